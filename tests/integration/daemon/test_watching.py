"""`watch` and `logs -f`: in a terminal and elsewhere, past Ctrl-C and a restart of the daemon."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hyper2kvmd.model.jobs import State
from tests.support.ctl import PROJECT, ctl
from tests.support.house import House
from tests.support.terminal import Terminal


def submitted(house: House, name: str, *words: str) -> int:
    path = house.root / f"{name}.yaml"
    path.write_text(house.migration(name, *words))
    return int(json.loads(ctl("submit", path, "--json", "--socket", house.socket, cwd=house.root).stdout)[0]["id"])


def following(house: House, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hyper2kvmd.cli.ctl", *words, "--socket", str(house.socket)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("columns", [80, 200])
def test_a_running_job_is_a_bar_that_ends_with_the_job(house: House, columns: int) -> None:
    house.start()
    submitted(house, "web01", "plan", "start convert", "progress 40 100", f"wait {house.root}/go", "fail permanent")
    with Terminal("watch", "1", "--socket", house.socket, cwd=house.root, columns=columns) as terminal:
        shown = terminal.shows("40%")
        assert "1 web01: convert" in shown and "━" in shown
        (house.root / "go").touch()
        assert terminal.ends() == 1
        assert max(map(len, terminal.text.splitlines()[:1])) <= columns
        assert "told to fail. Tell it otherwise. [told-to]" in " ".join(terminal.text.split())


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_cancel_it(house: House) -> None:
    house.start()
    submitted(house, "web01", f"wait {house.root}/go")
    house.reaches(1, State.RUNNING)
    with Terminal("watch", "1", "--socket", house.socket, cwd=house.root) as terminal:
        terminal.shows("claimed")
        terminal.press("\x03")
        assert terminal.ends() == 130
        assert "job 1 continues. Run `h2kvmctl cancel 1` to stop it. [watch-ended]" in " ".join(terminal.text.split())
    assert house.job(1).state is State.RUNNING


def test_all_jobs_are_followed_until_the_queue_is_empty(house: House) -> None:
    house.configure(max_concurrent_jobs=2)
    house.start()
    for name in ("a", "b", "c"):
        submitted(house, name, f"wait {house.root}/go", "plan", *(["fail permanent"] if name == "b" else []))
    house.reaches(2, State.RUNNING)
    with following(house, "watch") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2 running, 1 queued\n"
        (house.root / "go").touch()
        text = process.stdout.read()
        assert process.wait(60) == 1
    assert "job 2 (b)  " in text and "failed: told to fail" in text
    assert "job 3 (c)  " in text
    assert text.splitlines()[-1] == "3 jobs: 2 succeeded, 1 failed (2 b)"
    assert ctl("watch", "--socket", house.socket, cwd=house.root).stdout == "no job is running or queued\n"


def test_watching_goes_on_when_the_daemon_is_restarted(house: House) -> None:
    house.start()
    submitted(house, "web01", f"wait {house.root}/go", "plan", "convert", "publish")
    house.reaches(1, State.RUNNING)
    with following(house, "watch", "1") as process:
        assert process.stdout is not None
        lines: list[str] = []
        told = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if "does not answer" in line:
                    told.set()

        reader = threading.Thread(target=read)
        reader.start()
        while not lines:
            told.wait(0.05)
        house.stop()
        assert told.wait(60), lines
        house.start()
        (house.root / "go").touch()
        reader.join(90)
        assert process.wait(60) == 0, lines
    assert "the daemon does not answer; its jobs continue when it is started again" in lines
    assert "the daemon answers again" in lines
    assert any("succeeded" in line for line in lines)


def test_logs_follow_until_the_job_ends(house: House) -> None:
    house.start()
    submitted(house, "web01", f"wait {house.root}/go", "plan", "warn beware")
    with following(house, "logs", "-f", "1") as process:
        assert process.stdout is not None
        assert "submitted" in process.stdout.readline()
        (house.root / "go").touch()
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert "warned: beware" in rest and "succeeded" in rest.splitlines()[-1]
    assert ctl("logs", "1", "-f", "--json", "--socket", house.socket, cwd=house.root).returncode == 2
    document = json.loads(ctl("logs", "1", "--json", "--socket", house.socket, cwd=house.root).stdout)
    assert document[0]["kind"] == "submitted"


def test_watch_as_json_is_one_document(house: House, tmp_path: Path) -> None:
    house.start()
    submitted(house, "a", "plan", "fail permanent")
    submitted(house, "b", "plan", "convert", "publish")
    one = ctl("watch", "1", "--json", "--socket", house.socket, cwd=tmp_path)
    assert (one.returncode, json.loads(one.stdout)["state"]) == (1, "failed")
    both = ctl("watch", "1-2", "--json", "--socket", house.socket, cwd=tmp_path)
    assert [job["state"] for job in json.loads(both.stdout)] == ["failed", "succeeded"]
