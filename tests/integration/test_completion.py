"""What a shell gets from h2kvmctl at TAB: ids of the daemon's jobs in fitting states, and nothing without a daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.model.jobs import State
from tests.support.ctl import PROJECT, ctl
from tests.support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


def proposed(cwd: Path, *words: str) -> list[tuple[str, str]]:
    """The proposals for the last word with their explanations, as zsh gets them."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "_H2KVMCTL_COMPLETE": "zsh_complete",
        "COMP_WORDS": " ".join(("h2kvmctl", *words)),
        "COMP_CWORD": str(len(words)),
    }
    argv = [sys.executable, "-m", "hyper2kvmd.cli.ctl"]
    done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return list(zip(lines[1::3], lines[2::3], strict=True))


def test_ids_are_those_of_jobs_in_fitting_states(house: House, tmp_path: Path) -> None:
    house.start()
    at = ("--socket", str(house.socket))
    assert ctl("pause", *at, cwd=tmp_path).returncode == 0
    for name in ("web01", "db01"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"vmdk: {tmp_path}/{name}.vmdk\n")
        assert ctl("submit", *at, path, cwd=tmp_path).returncode == 0
    assert ctl("hold", *at, "2", cwd=tmp_path).returncode == 0
    assert house.job(1).state == State.QUEUED
    assert proposed(tmp_path, "show", *at, "") == [("2", "db01 held"), ("1", "web01 queued")]
    assert proposed(tmp_path, "show", *at, "1") == [("1", "web01 queued")]
    assert proposed(tmp_path, "release", *at, "") == [("2", "db01 held")]
    assert proposed(tmp_path, "hold", *at, "") == [("1", "web01 queued")]
    assert proposed(tmp_path, "retry", *at, "") == [("2", "db01 held")]


def test_a_daemon_that_is_silent_or_missing_proposes_nothing(tmp_path: Path) -> None:
    assert proposed(tmp_path, "show", "--socket", str(tmp_path / "none"), "") == []
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        assert proposed(tmp_path, "show", "--socket", str(tmp_path / "silent"), "") == []


def test_codes_are_proposed_for_explain(tmp_path: Path) -> None:
    assert [code for code, _ in proposed(tmp_path, "explain", "config-")] == ["config-invalid"]


COMPLETING = """
import sys
from hyper2kvmd.cli import ctl
sys.argv = ["h2kvmctl"]
try:
    ctl.main()
except SystemExit:
    pass
print(sorted({"pydantic", "sqlalchemy", "aiohttp", "rich"} & sys.modules.keys()))
"""


def test_a_shell_does_not_wait_for_libraries(house: House, tmp_path: Path) -> None:
    house.start()
    words = ("h2kvmctl", "show", "--socket", str(house.socket), "")
    environment = {
        **os.environ,
        "_H2KVMCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-c", COMPLETING]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
