"""Log lines as the journal and as a terminal get them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HOSTILE = """
import logging
from hyper2kvmd.daemon import journal
journal.set_up("info")
logging.warning("%s rejected", "evil\\x1b[2J\\a.yaml\\n<0>forged\\u2028line\\udcff")
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
