"""Hooks: programs of the administrator that a job starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hyper2kvmd.errors import Interrupted, Kind, MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Bounds, Order
from hyper2kvmd.model.results import Finished
from hyper2kvmd.progress import Context, Event, StageFinished, Warned
from hyper2kvmd.worker import interrupt, migrate
from tests.support.disks import empty_disk
from tests.support.house import until

NOBODY = 65534
NOTED = "#!/bin/sh\ncat >> $0.told\n"
FAILS = "#!/bin/sh\necho the array is busy >&2\nexit 3\n"


class Host:
    """A disk, a configured hook for each program, and the events of a job."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        self.hooks = {name: self.install(name, text) for name, text in programs.items()}
        self.events: list[Event] = []

    def install(self, name: str, text: str, mode: int = 0o755) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def migrate(self, **hooks: Any) -> Finished:
        disk = self.folder / "disk.raw"
        if not disk.exists():
            empty_disk(disk, 1)
        asked = {"vm_name": "web01", "vmdk": [disk], "guest": "none", "hooks": hooks}
        order = Order(
            job_id="7",
            migration=Migration.model_validate(asked),
            conversion_dir=self.folder / "conversions",
            output_dir=self.folder / "images",
            helper=("false",),
            bounds=Bounds(hooks=self.hooks),
        )
        return migrate(order, Context(self.events.append, lambda _: None))

    def refused(self, **hooks: Any) -> MigrationFailed:
        with pytest.raises(MigrationFailed) as caught:
            self.migrate(**hooks)
        return caught.value

    def told(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.told").read_text().splitlines()]

    @property
    def stages(self) -> list[str]:
        return [event.stage.value for event in self.events if isinstance(event, StageFinished)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


def test_hooks_are_told_about_the_job(tmp_path: Path) -> None:
    host = Host(tmp_path, first=NOTED, second=NOTED, other=NOTED)
    done = host.migrate(before=["first"], after=["second", "first"])
    before, after = host.told("first")
    image = str(tmp_path / "images" / "web01.qcow2")
    assert done.artifact is not None
    assert before == {
        "moment": "before",
        "job_id": "7",
        "attempt": 1,
        "vm_name": "web01",
        "submitter": None,
        "sources": [str(tmp_path / "disk.raw")],
        "target": "libvirt",
        "images": [],
        "report": None,
    }
    assert after == {**before, "moment": "after", "images": [image], "report": str(done.artifact.report_json)}
    assert host.told("second") == [after]
    assert not (tmp_path / "other.told").exists()


def test_a_hook_that_fails_before_the_conversion_ends_the_job(tmp_path: Path) -> None:
    host = Host(tmp_path, freeze=FAILS, never=NOTED)
    failure = host.refused(before=["freeze", "never"])
    assert failure.code == "hook-failed"
    assert failure.message == f"the hook freeze ({tmp_path}/freeze) failed: exit status 3: the array is busy"
    assert host.stages == ["plan"]
    assert not (tmp_path / "never.told").exists()
    assert not (tmp_path / "images").exists()


def test_a_hook_that_fails_after_the_last_stage_is_a_warning(tmp_path: Path) -> None:
    host = Host(tmp_path, cmdb=FAILS, next=NOTED)
    assert host.migrate(after=["cmdb", "next"]).registration is not None
    (warning,) = (one for one in host.warnings if "hook" in one)
    assert "exit status 3: the array is busy" in warning
    assert "[hook-without-success]" in warning
    assert len(host.told("next")) == 1


def test_a_job_names_only_hooks_of_the_configuration(tmp_path: Path) -> None:
    host = Host(tmp_path, cmdb=NOTED)
    failure = host.refused(after=["cmdb", "reboot"])
    assert failure.code == "hook-not-allowed"
    assert failure.message == "the hook reboot is not among those of the configuration (cmdb)"
    assert host.stages == []
    assert not (tmp_path / "cmdb.told").exists()


@pytest.mark.parametrize(
    ("mode", "fact"),
    [
        (0o775, "changed by other users"),
        (0o757, "changed by other users"),
        (0o644, "not an executable file"),
        (None, "No such file"),
    ],
)
def test_an_unsafe_program_is_refused_by_the_plan(tmp_path: Path, mode: int | None, fact: str) -> None:
    host = Host(tmp_path, cmdb=NOTED)
    host.hooks["cmdb"].unlink()
    if mode is not None:
        host.install("cmdb", NOTED, mode)
    failure = host.refused(after=["cmdb"])
    assert failure.code == "hook-unusable"
    assert fact in failure.message
    assert host.stages == []


def in_a_directory_of_everybody(hook: Path) -> Path:
    open_to_all = hook.parent / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    return hook.rename(open_to_all / hook.name)


def below_a_directory_of_somebody(hook: Path) -> Path:
    theirs = hook.parent / "theirs"
    (theirs / "inner").mkdir(parents=True)
    os.chown(theirs, NOBODY, NOBODY)
    return hook.rename(theirs / "inner" / hook.name)


def by_a_link_of_somebody(hook: Path) -> Path:
    theirs = hook.parent / "theirs"
    theirs.mkdir()
    (theirs / "link").symlink_to(hook.parent)
    os.chown(theirs, NOBODY, NOBODY)
    (hook.parent / "first").symlink_to("theirs/link")
    return hook.parent / "first" / hook.name


@pytest.mark.parametrize("move", [in_a_directory_of_everybody, below_a_directory_of_somebody, by_a_link_of_somebody])
def test_a_program_that_others_can_replace_is_refused(tmp_path: Path, move: Callable[[Path], Path]) -> None:
    host = Host(tmp_path, cmdb=NOTED)
    host.hooks["cmdb"] = move(host.hooks["cmdb"])
    failure = host.refused(after=["cmdb"])
    assert failure.code == "hook-unusable"
    assert "can be replaced by other users" in failure.message
    assert host.stages == []


def test_a_link_of_the_administrator_is_followed(tmp_path: Path) -> None:
    host = Host(tmp_path, cmdb=NOTED)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "up").symlink_to("..")
    host.hooks["cmdb"] = tmp_path / "links" / "up" / "links" / ".." / "cmdb"
    assert host.migrate(after=["cmdb"]).registration is not None


LEAVES = """#!/bin/sh
setsid sleep 4711 </dev/null >/dev/null 2>&1 &
(sleep 4711; true) &
touch $0.started
"""
STAYS = f"{LEAVES}sleep 4711\n"


def left(host: Host) -> list[int]:
    """Processes that a hook has started, by their working directory and argument: other tests have theirs."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        cmdline = process.info["cmdline"] or []
        if cmdline[:2] == ["sleep", "4711"] and (process.info["environ"] or {}).get("HOST") == str(host.folder):
            found.append(process.pid)
    return found


def marked(text: str, folder: Path) -> str:
    return text.replace("#!/bin/sh\n", f"#!/bin/sh\nexport HOST={folder}\n")


def test_what_a_hook_leaves_running_ends_with_it(tmp_path: Path) -> None:
    host = Host(tmp_path, hook=marked(LEAVES, tmp_path))
    host.migrate(before=["hook"])
    assert (tmp_path / "hook.started").exists()
    assert left(host) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_hook_has_started_dies_with_the_worker(tmp_path: Path, number: signal.Signals) -> None:
    host = Host(tmp_path, hook=marked(STAYS, tmp_path))
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, interrupt)
        with contextlib.suppress(Interrupted):
            host.migrate(before=["hook"])
        os._exit(0)
    until(lambda: len(left(host)) == 3, "the hook has started its processes")
    os.kill(worker, number)
    os.waitpid(worker, 0)
    until(lambda: left(host) == [], "they have ended")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("exit 3", "exit status 3"),
        ("kill -KILL $$", "was killed: Killed"),
        ("kill -SEGV $$", "was killed: Segmentation"),
    ],
)
def test_a_hook_that_fails_is_for_a_person(tmp_path: Path, text: str, fact: str) -> None:
    """It ends as it would without a keeper. Nobody knows how far a killed one has come, so it is not started again."""
    failure = Host(tmp_path, hook=f"#!/bin/sh\n{text}\n").refused(before=["hook"])
    assert (failure.code, failure.kind) == ("hook-failed", Kind.OPERATOR)
    assert failure.message.startswith(f"the hook hook ({tmp_path}/hook) failed: ") and fact in failure.message
