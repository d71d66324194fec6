"""Log lines as the journal and as a terminal get them."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp.http_exceptions import BadStatusLine

from hyper2kvmd.daemon import journal

REPOSITORY = Path(__file__).parents[2]
HOSTILE = """
import logging
from hyper2kvmd.daemon import journal
journal.set_up("info")
logging.warning("%s rejected", "evil\\x1b[2J\\a.yaml\\n<0>forged\\u2028line\\udcff")
"""
TRACEBACK = """
import logging
from hyper2kvmd.daemon import journal
journal.set_up("info")
try:
    raise ValueError("evil\\x1b[2J\\n2026-01-01 00:00:00,000 INFO forged")
except ValueError:
    logging.exception("own")
"""
OF_A_JOB = """
import logging, sys
from logging_journald import JournaldTransport
from hyper2kvmd.daemon import journal
JournaldTransport.SOCKET_PATH = sys.argv[1]
journal.set_up("info")
log = logging.getLogger("test")
journal.JobLog(log, 7).warning("%s rejected", "evil\\nMESSAGE=forged")
log.info("ready")
"""


FULL = """
import logging, resource
from hyper2kvmd.daemon import journal
journal.set_up("info")
logging.info("before")
resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
for number in range(3):
    logging.info("lost %d", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
logging.info("after")
"""


def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stderr:
        subprocess.run([sys.executable, "-c", FULL], stderr=stderr, cwd=REPOSITORY, timeout=60, check=True)
    before, cut, lost, after = (tmp_path / "log").read_text().splitlines()
    assert before.endswith("INFO before") and len(before) + len(cut) == 59 and after.endswith("INFO after")
    assert lost.endswith("WARNING messages that could not be written to the log: 3")


def test_a_log_that_is_full_from_the_start_is_no_error() -> None:
    with Path("/dev/full").open("w") as stderr:
        done = subprocess.run([sys.executable, "-c", HOSTILE], stderr=stderr, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_message_is_one_printable_line() -> None:
    command = [sys.executable, "-c", HOSTILE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith("WARNING evil\ufffd[2J\ufffd.yaml / <0>forged / line\ufffd rejected")


def told_to_the_journal(tmp_path: Path) -> str:
    """Runs what a job tells, with stderr as the journal's stream and its socket in `tmp_path`; stderr."""
    path = tmp_path / "stderr"
    with path.open("w") as stderr:
        facts = os.fstat(stderr.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        argv = [sys.executable, "-c", OF_A_JOB, str(tmp_path / "socket")]
        subprocess.run(argv, stderr=stderr, env=environment, cwd=REPOSITORY, timeout=60, check=True)
    return path.read_text()


def test_the_journal_gets_the_jobs_number_as_a_field(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert told_to_the_journal(tmp_path) == ""
        listening.setblocking(False)
        told = [listening.recv(4096).decode().splitlines() for _ in range(2)]
    assert told[0] == [
        "MESSAGE=job 7: evil / MESSAGE=forged rejected",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=hyper2kvmd",
        "JOB_ID=7",
    ]
    assert told[1] == ["MESSAGE=ready", "PRIORITY=6", "SYSLOG_IDENTIFIER=hyper2kvmd"]


def test_without_the_journals_socket_its_stream_gets_lines(tmp_path: Path) -> None:
    lines = told_to_the_journal(tmp_path).splitlines()
    assert [line.split(maxsplit=2)[-1] for line in lines] == [
        "WARNING job 7: evil / MESSAGE=forged rejected",
        "INFO ready",
    ]


def logged(name: str, limit: journal.Limit, message: str, error: Exception | None = None) -> logging.LogRecord | None:
    """The record of a message as it is after the limit, or None when it is left out."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, (), exc_info)
    return record if limit.filter(record) else None


def test_messages_over_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = journal.Limit("test")
    assert sum(logged("test", limit, "again") is not None for _ in range(35)) == journal.MAX_MESSAGES
    now += journal.PERIOD_SECONDS - 1
    assert logged("test", limit, "again") is None
    limit.report_omitted()
    assert caplog.messages == []
    now += 1
    limit.report_omitted()
    limit.report_omitted()
    assert caplog.messages == ["test: messages left out of the log within 60 s: 26"]
    assert logged("test", limit, "again") is not None


def test_a_bad_request_is_one_line_and_an_error_keeps_its_traceback() -> None:
    """Many of the first kind leave room for the second."""
    limit = journal.Limit("test")
    for _ in range(50):
        logged("test", limit, "bad", BadStatusLine("\x1b[31m"))
    bad = logged("test", journal.Limit("test"), "bad", BadStatusLine("\x1b[31m"))
    assert bad is not None and bad.getMessage() == "bad: BadStatusLine" and bad.exc_info is None
    assert bad.levelno == logging.WARNING
    own = logged("test", limit, "own", ValueError("an error of our own"))
    assert own is not None and own.exc_info


def test_nothing_in_a_traceback_passes_for_a_message() -> None:
    command = [sys.executable, "-c", TRACEBACK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=True)
    first, *traceback = done.stderr.splitlines()
    assert first.endswith("ERROR own") and "Traceback" in traceback[0]
    assert all(line.startswith("    ") and line.isprintable() for line in traceback)


def test_loggers_that_strangers_reach_are_limited() -> None:
    script = "import logging; from hyper2kvmd.daemon import journal; journal.set_up('info')\n" + "".join(
        f"for _ in range(99): logging.getLogger({name!r}).error('again')\n" for name in journal.LIMITED
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stderr.count("ERROR again") == journal.MAX_MESSAGES * len(journal.LIMITED)
