"""`h2kvmctl doctor` on this host, as root and as others."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ctl import PROJECT, ctl
from tests.support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


def report(*arguments: str | Path, cwd: Path) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the lines by their objects."""
    done = ctl("doctor", "--json", *arguments, cwd=cwd)
    answer: dict[str, Any] = json.loads(done.stdout)
    lines = {line["object"]: line for section in answer["sections"] for line in section["lines"]}
    errors = [line for line in lines.values() if line["level"] == "error"]
    assert (answer["counts"]["error"] > 0) == bool(errors) == (done.returncode == 1)
    return done.returncode, lines


def configuration(folder: Path, **keys: object) -> Path:
    path = folder / "doctor.yaml"
    path.write_text(json.dumps(keys))
    return path


def test_programs_have_versions_and_errors_have_remedies(tmp_path: Path) -> None:
    _, lines = report(cwd=tmp_path)
    assert lines["qemu-img"]["fact"].endswith(f"({shutil.which('qemu-img')})")
    assert lines["qemu-img"]["fact"][0].isdigit()
    assert all(line["remedy"] for line in lines.values() if line["level"] in ("error", "warning"))


def test_an_invalid_configuration_is_an_error_with_all_of_its_lines(tmp_path: Path) -> None:
    path = configuration(tmp_path, threads="many", log_level="loud")
    code, lines = report("--config", path, cwd=tmp_path)
    line = lines[f"configuration {path}"]
    assert (code, line["level"], len(line["fact"].splitlines())) == (1, "error", 3)


def test_a_daemon_that_is_silent_or_of_this_version(tmp_path: Path, house: House) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        path = configuration(tmp_path, control_socket=str(tmp_path / "silent.sock"))
        _, lines = report("--config", path, cwd=tmp_path)
    assert "did not answer" in lines[f"daemon at {tmp_path / 'silent.sock'}"]["fact"]
    house.start()
    _, lines = report("--config", house.root / "hyper2kvmd.yaml", cwd=tmp_path)
    assert lines[f"daemon at {house.socket}"]["level"] == "ok"
    assert lines[f"state_dir {house.root / 'state'}"]["level"] == "ok"


def test_the_helper_is_asked_with_the_rights_of_the_service(tmp_path: Path, installed_helper: tuple[str, ...]) -> None:
    path = configuration(tmp_path, helper=installed_helper)
    _, lines = report("--config", path, cwd=tmp_path)
    answer = lines["request to the root helper"]
    assert answer["level"] == "ok", answer
    assert answer["fact"] == "answered to hyper2kvm"
    assert lines[installed_helper[-1]]["level"] == "ok"
    assert lines["/etc/sudoers.d/hyper2kvm"]["level"] == "ok"
    shutil.chown(installed_helper[-1], "nobody")
    _, lines = report("--config", path, cwd=tmp_path)
    assert "others than root can change it" in lines[installed_helper[-1]]["fact"]


def test_another_user_is_told_what_was_not_checked(tmp_path: Path, installed_helper: tuple[str, ...]) -> None:
    tmp_path.chmod(0o755)
    path = configuration(tmp_path, helper=installed_helper)
    done = subprocess.run(
        ["runuser", "-u", "nobody", "--", sys.executable, "-m", "hyper2kvmd.cli.ctl", "doctor", "--config", path],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert "not checked  request to the root helper: it serves hyper2kvm only" in done.stdout
    assert "Run `sudo -u hyper2kvm h2kvmctl doctor`" in done.stdout
    assert "\x1b" not in done.stdout
