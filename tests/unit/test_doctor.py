"""The report of `h2kvmctl doctor`: every check is in it, also one that fails, is forbidden, or never ends."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.cli.checks import directories, people
from hyper2kvmd.cli.checks.check import Check, Host, Line, examine, ok, warning
from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.findings import Several
from hyper2kvmd.host import packages
from hyper2kvmd.host.packages import DistroPackage
from hyper2kvmd.host.person import Person

ME = Person.of(os.geteuid())
HOST = Host(DaemonConfig(), ME)


def missing(name: str) -> BrokenInstallation:
    return BrokenInstallation("tool-missing", f"{name} is missing", hint=f"Install {name}")


def fine(_host: Host) -> Iterator[Line]:
    yield ok("first", "fine")
    yield warning("second", "old", "Update it")


def forbidden(_host: Host) -> Iterator[Line]:
    raise PermissionError(errno.EACCES, "no")
    yield


def failing(_host: Host) -> Iterator[Line]:
    yield ok("begun", "fine")
    raise Several((missing("this"), missing("that")))


def broken(_host: Host) -> Iterator[Line]:
    raise OSError(errno.EIO, "I/O error")
    yield


def test_checks_share_sections_and_keep_their_order() -> None:
    sections = examine([Check("A", "one", fine), Check("B", "two", fine), Check("A", "three", broken)], HOST)
    assert [(section.title, len(section.lines)) for section in sections] == [("A", 3), ("B", 2)]
    assert [line.object for line in sections[0].lines] == ["first", "second", "three"]


def test_a_check_that_fails_or_is_forbidden_is_a_line() -> None:
    (section,) = examine([Check("A", "one", forbidden), Check("A", "two", failing), Check("A", "three", broken)], HOST)
    assert [(line.level, line.object) for line in section.lines] == [
        ("not checked", "one"),
        ("ok", "begun"),
        ("error", "two"),
        ("error", "two"),
        ("error", "three"),
    ]
    assert [line.remedy for line in section.lines[2:4]] == ["Install this", "Install that"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_check_with_a_bug_is_an_error() -> None:
    def faulty(_host: Host) -> Iterator[Line]:
        yield ok("begun", "fine")
        raise ValueError

    (section,) = examine([Check("A", "one", faulty)], HOST)
    assert [(line.level, line.object) for line in section.lines] == [("ok", "begun"), ("error", "one")]


def test_a_check_that_never_ends_is_left_behind_with_what_it_found() -> None:
    ended = threading.Event()

    def hanging(_host: Host) -> Iterator[Line]:
        yield ok("begun", "fine")
        ended.wait()

    try:
        (section,) = examine([Check("A", "mount", hanging), Check("A", "other", fine)], HOST, limit_seconds=0.1)
    finally:
        ended.set()
    levels = [(line.level, line.object) for line in section.lines]
    assert levels == [("ok", "begun"), ("error", "mount"), ("ok", "first"), ("warning", "second")]


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("debian", "`apt install ovmf`"),
        ("rpm", "`dnf install edk2-ovmf`"),
        ("", "`apt install ovmf` (Debian, Ubuntu) or `dnf install edk2-ovmf` (RHEL, Fedora)"),
    ],
)
def test_the_command_that_installs_a_package(family: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "family", lambda: family)
    assert DistroPackage("ovmf", "edk2-ovmf").install_line == line


def lines_of(checks: Iterator[Check], host: Host) -> dict[str, Line]:
    return {line.object: line for section in examine(list(checks), host) for line in section.lines}


def test_directories_are_judged_by_space_owner_and_mode(tmp_path: Path) -> None:
    spool, conversions = tmp_path / "spool", tmp_path / "conversions"
    for folder in SpoolFolder:
        (spool / folder).mkdir(parents=True)
    (spool / SpoolFolder.DONE).rmdir()
    conversions.mkdir()
    (spool / SpoolFolder.ACTIVE).chmod(0o700)
    conversions.chmod(0o755)
    config = DaemonConfig(spool_dir=spool, state_dir=tmp_path, conversion_dir=conversions, output_dir=tmp_path / "none")
    found = lines_of(directories.checks(config), Host(config, ME))
    assert found[f"state_dir {tmp_path}"].level == "ok"
    assert "reserve" in found[f"state_dir {tmp_path}"].fact
    assert "does not exist" in found[f"output_dir {tmp_path}/none"].fact
    assert "does not exist" in found[str(spool / SpoolFolder.DONE)].fact
    incoming = found[str(spool / SpoolFolder.INCOMING)]
    assert incoming.level == "warning"
    assert incoming.remedy == "Start the daemon, which sets them, or reports why it cannot"


def test_a_reserve_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    config = DaemonConfig(state_dir=tmp_path, space_reserve="900000T")
    line = lines_of(directories.checks(config), Host(config, ME))[f"state_dir {tmp_path}"]
    assert line.level == "error"
    assert "h2kvmctl gc" in line.remedy


def test_this_user_is_operator_submitter_or_neither(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    config = DaemonConfig(spool_dir=tmp_path)
    nobody = Person("someone", 54321, frozenset({54321}))

    def role(person: Person) -> str:
        return lines_of(people.checks(), Host(config, person))[f"this user ({person.name})"].fact

    assert role(Person("root", 0, frozenset({0}))).startswith("operator")
    assert role(nobody).startswith("neither")
    (tmp_path / "incoming").chmod(0o777)
    assert role(nobody).startswith("submitter")
