"""The power button of a guest that is never idle, as Windows is. QEMU's end of both pipes is played here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import Patience, ShownState
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import DiskImage, Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.progress import Context
from hyper2kvmd.proof.boot import DISK_STEP, CameUp, Trial, watch
from hyper2kvmd.proof.machine import RunningMachine
from tests.support.benches import admit_nothing, hardware_for, unheard
from tests.support.qmp import asking, line

LIVING = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.1)"
ENDED = {
    "event": "SHUTDOWN",
    "data": {"guest": True, "reason": "guest-shutdown"},
    "timestamp": {"seconds": 1, "microseconds": 0},
}


@dataclass(frozen=True)
class Restless:
    """A guest whose disk never rests."""

    patience: Patience | None
    note: str = "it is not there"
    power_off_proves: bool = False

    def new_traces(self) -> tuple[str, ...]:
        return ()

    def is_shown(self, _console: str, /) -> bool:
        return True

    def compare(self, _console: str, /) -> ShownState | None:
        return None


@dataclass
class Played:
    """Its disk is read all the time, and it ends at the press with the number `ends_at`."""

    end: Path
    ends_at: int
    presses: int = 0
    read: int = 0
    is_over: bool = field(default=False, init=False)

    def answer(self, command: str, number: object) -> bytes | None:
        if self.is_over:
            self.end.touch()
            return None
        said: object = {}
        if command == "query-status":
            said = {"status": "running"}
        if command == "query-blockstats":
            self.read += 2 * DISK_STEP
            said = [{"stats": {"rd_bytes": self.read, "wr_bytes": 0}}]
        if command == "system_powerdown":
            self.presses += 1
            self.is_over = self.presses == self.ends_at
        return line({"return": said, "id": number}) + (line(ENDED) if self.is_over else b"")


@contextmanager
def machine(played: Played) -> Iterator[RunningMachine]:
    with asking(played.answer) as monitor:
        argv = [sys.executable, "-c", LIVING, str(played.end)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                yield RunningMachine(process, monitor, "tcg")
            finally:
                process.kill()


def watched(played: Played, patience: Patience, folder: Path) -> CameUp | None:
    image = Image(disks=(DiskImage(path=folder, virtual_size=1, file_bytes=0),), format="raw", layout=Layout(tables=()))
    guest, helper, ctx = Guest(family="none"), Helper(("false",)), Context(unheard, admit_nothing)
    trial = Trial(image, family_of(guest), hardware_for("bios"), helper, folder, ctx, (), None, silence_seconds=100.0)
    with machine(played) as running:
        return watch(trial, running, time.monotonic(), Restless(patience))


def test_the_button_is_pressed_again_on_a_guest_that_is_never_idle(tmp_path: Path) -> None:
    played = Played(tmp_path / "end", ends_at=2)
    came_up = watched(played, Patience(press_seconds=2.0, limit_seconds=120.0), tmp_path)
    assert came_up is not None and came_up.answered
    assert played.presses == 2


def test_the_wait_for_an_answer_ends(tmp_path: Path) -> None:
    played = Played(tmp_path / "end", ends_at=1000)
    came_up = watched(played, Patience(press_seconds=2.0, limit_seconds=5.0), tmp_path)
    assert came_up is not None and not came_up.answered and not came_up.is_idle
    assert played.presses > 0
