"""Files that are no submissions: when they are reported, and how many."""

from __future__ import annotations

import time

import pytest

from hyper2kvmd.daemon import ignored
from hyper2kvmd.daemon.ignored import Ignored
from hyper2kvmd.daemon.quota import FileState


def look(uid: int = 0, size: int = 1, ctime_ns: int = 0) -> FileState:
    return FileState(inode=1, size=size, mtime_ns=0, ctime_ns=ctime_ns, uid=uid, mode=0o100644)


def shown(found: Ignored, owner: int | None = None) -> tuple[list[str], int]:
    files, number = found.found.shown_to(owner)
    return [file.name for file in files], number


def passes(found: Ignored, *files: tuple[str, FileState]) -> None:
    for name, state in files:
        found.see(name, state, "a reason")
    found.end_pass()


def test_a_name_that_ends_soon_is_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    found = Ignored()
    passes(found, (".web01.yaml.Xb12", look()))
    passes(found, (".web01.yaml.Xb12", look()))
    passes(found)
    assert shown(found) == ([], 0)
    assert caplog.text == ""


def test_a_file_that_still_grows_is_no_complaint(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, now = Ignored(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for size in range(5):
        now += ignored.PATIENCE_SECONDS
        passes(found, ("web01.part", look(size=size)))
    assert shown(found) == ([], 0)
    now += ignored.PATIENCE_SECONDS
    passes(found, ("web01.part", look(size=4)))
    assert shown(found) == (["web01.part"], 1)
    assert caplog.text.count("web01.part") == 1


def test_each_owner_has_a_share(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignored, "PATIENCE_SECONDS", 0)
    found = Ignored()
    files = [(f"junk{number}", look(uid=65534, ctime_ns=number * 10**9)) for number in range(500)]
    for _ in range(3):
        passes(found, *files, ("mine", look(uid=5, ctime_ns=10**12)))
    assert shown(found) == ([f"junk{number}" for number in range(ignored.MAX_SHOWN)], 501)
    assert shown(found, 5) == (["mine"], 1)
    assert caplog.text.count("junk") == ignored.MAX_LOGGED
    assert caplog.text.count("mine") == 1
    passes(found, *files[ignored.MAX_LOGGED :], ("mine", look(uid=5, ctime_ns=10**12)))
    assert caplog.text.count("junk") == 2 * ignored.MAX_LOGGED, "others are logged when the first ones are gone"
