"""The proof that a guest boots: on throwaway overlays, on the devices that its libvirt domain will have.

The images are only read; on the overlay, the guest's family may give it a serial console, to show how far it boots.
Without console output, the proof is a shutdown when the power button is pressed, or traces on its disk that only a
system that came up writes. The wait ends when console and disk are both idle: a slow host is not a failure.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import BootedUnchanged, Family, OverlayDisks, Patience, PreparedGuest, ShownState
from hyper2kvmd.guest.mounts.access import open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.host import run
from hyper2kvmd.host.kvm import Accelerator, choose_accelerator
from hyper2kvmd.host.space import disk_full
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.progress import Context
from hyper2kvmd.proof.console import LOGIN, REACHED, SPOKE, Console
from hyper2kvmd.proof.machine import Overlay, RunningMachine, overlay, running

SILENCE_SECONDS = 200.0
"""Longer than the silent waits of a Linux boot: 90 s for a device in systemd, 180 s in dracut."""
BUSY_PATIENCE = 3
"""Factor of the wait for a guest that uses the CPU all the time: emulation takes minutes to check some kernels. For
one that needs patience too: its services may take minutes to stop after the power button was pressed.
"""
BUSY_SHARE = 0.5
"""Of one CPU."""
STABLE_SECONDS = 20.0
"""The time that a guest may take from its last target to its login prompt. Also the idle time before each press of its
power button."""
RESTARTS = 2
"""A first boot may end in a restart, for example after an SELinux relabel."""
CONSOLE_LIMIT = 32 << 20
"""Bytes: no boot prints more, so this is a loop."""
DISK_STEP = 1 << 20
"""Bytes read or written that count as progress: an idle system does less, even over minutes."""
STATE_SECONDS = 300.0
"""The time that a guest may take from its login prompt to the end of its boot, when it prints its state. Its own script
waits two minutes, but a busy host slows it down."""
NAMES: Mapping[Accelerator, str] = {"kvm": "KVM", "tcg": "emulation"}
AS_BEFORE = "its host name, static addresses, mounts and SSH host keys are as its own files say"
WITHOUT_TPM = "it booted without a TPM, which the new machine has"
DISK_LIMIT = 64 << 30
"""Bytes in addition to four times the disks' size: no boot reads more, so this is a loop."""


class Booted(Frozen):
    """The result of a successful boot."""

    seconds: float
    console_tail: tuple[str, ...]
    evidence: tuple[str, ...]
    failed_units: tuple[str, ...]
    """Units that it failed to start."""
    differences: tuple[str, ...] = ()
    """What is not as its own files say, in words."""
    kvm_failure: str | None = None
    """Why the guest was emulated although KVM was chosen, as a sentence."""

    @property
    def warnings(self) -> tuple[str, ...]:
        units = (f"the guest booted, but failed to start {unit}" for unit in self.failed_units)
        differences = (f"the guest booted, but {difference}" for difference in self.differences)
        return (*units, *differences, *((self.kvm_failure,) if self.kvm_failure else ()))


class KvmFailed(Exception):
    """QEMU could not go on under KVM; the text says how."""


@dataclass(frozen=True)
class Trial:
    """What is booted, and how."""

    image: Image
    family: Family
    hardware: Hardware
    helper: Helper
    folder: Path
    ctx: Context
    keys: Sequence[bytes]
    root: str | None
    silence_seconds: float

    @property
    def disk_limit(self) -> int:
        """Bytes that the guest may read and write."""
        return DISK_LIMIT + 4 * sum(disk.virtual_size for disk in self.image.disks)


def boot(
    image: Image,
    guest: Guest,
    hardware: Hardware,
    helper: Helper,
    folder: Path,
    ctx: Context,
    *,
    keys: Sequence[bytes] = (),
    root: str | None = None,
    silence_seconds: float = SILENCE_SECONDS,
    accelerator: Accelerator | None = None,
) -> Booted:
    """Boot `guest` from its boot disk in `image` and return when its userspace is up. Scratch files go to `folder`.

    `keys` open LUKS containers, to look for traces that the guest has left there. `root` is that of the migration.
    `accelerator` is KVM if it works, unless given. A guest in which KVM fails is booted again, by emulation.

    Raises MigrationFailed: `boot-failed` if it cannot come up, `boot-unproven` if there is no evidence that it did,
    `emulator-ended` if QEMU failed, `tool-killed`, `disk-full`; BrokenInstallation (`tool-missing`,
    `firmware-missing`).
    """
    trial = Trial(image, family_of(guest), hardware, helper, folder, ctx, keys, root, silence_seconds)
    try:
        return _boot(trial, accelerator or choose_accelerator())
    except KvmFailed as failed:
        booted = _boot(trial, "tcg")
        note = f"KVM failed in this guest, so it was emulated: {failed}"
    return booted.with_changes(evidence=(*booted.evidence, note), kvm_failure=note)


def _boot(trial: Trial, accelerator: Accelerator) -> Booted:
    """One boot, on fresh overlays. Raises KvmFailed, and what `boot` raises."""
    image, ctx = trial.image, trial.ctx
    with tempfile.TemporaryDirectory(prefix="boot-", dir=trial.folder) as name:
        scratch = Path(name)
        overlaid = overlay(image, scratch)
        below = overlaid.below
        opening = functools.partial(open_image, overlaid.image, trial.helper, scratch, trial.keys, backing=below)
        with ctx.step("Preparing a throwaway overlay"):
            prepared = _prepare(trial.family, OverlayDisks(image.layout, opening, trial.root))
        with ctx.step(f"Booting {image.disks[0].path.name}"):
            came_up = _come_up(trial, overlaid, scratch, accelerator, prepared)
        left = Left() if came_up.heard else _left(prepared)
    if not (came_up.heard or left.traces or (came_up.answered and prepared.power_off_proves)):
        raise _silence(came_up, f"{prepared.note}{left.fault}", trial.family.unproven_hint)
    answer = ("it answered the power button with an orderly shutdown",) if came_up.answered else ()
    evidence = (*came_up.console.evidence(), *answer, *left.traces)
    shown = compare_state(prepared, came_up.console)
    as_before = (AS_BEFORE,) if shown and not shown.differences else ()
    by = NAMES[accelerator] + ", with Secure Boot" * trial.hardware.secure_boot
    after = [f"its userspace was up after {came_up.seconds:.0f} s, by {by}", *[WITHOUT_TPM] * trial.hardware.tpm]
    return Booted(
        seconds=round(came_up.seconds, 1),
        console_tail=came_up.tail or came_up.console.tail,
        evidence=(*evidence, *as_before, prepared.note, *after),
        failed_units=shown.failed_units if shown else came_up.console.failed_units(),
        differences=shown.differences if shown else (),
    )


def _prepare(family: Family, disks: OverlayDisks) -> PreparedGuest:
    """Raises as `_fact` does."""
    try:
        return family.prepare_boot(disks)
    except (MigrationFailed, OSError) as error:
        return BootedUnchanged(_fact(error))


@dataclass(frozen=True)
class Left:
    """What a boot has left on the disk."""

    traces: tuple[str, ...] = ()
    fault: str = ""
    """Why they could not be read, as the end of a sentence."""


def _left(prepared: PreparedGuest) -> Left:
    """Raises as `_fact` does."""
    try:
        return Left(prepared.new_traces())
    except (MigrationFailed, OSError) as error:
        return Left(fault=f"; its logs could not be read: {_fact(error)}")


def _fact(error: MigrationFailed | OSError) -> str:
    """What is wrong with the guest. Raises the error itself if it is temporary: the next attempt proves more."""
    if isinstance(error, MigrationFailed) and error.kind is Kind.RETRY:
        raise error
    return error.message if isinstance(error, MigrationFailed) else str(error)


def compare_state(prepared: PreparedGuest, console: Console) -> ShownState | None:
    """The guest has booted, so a fault of the comparison is only a difference."""
    try:
        return prepared.compare(console.text)
    except Exception as error:
        # without the error's text, which can be a guest's
        fact = f"its state could not be compared with its files ({type(error).__name__})"
        return ShownState(console.failed_units(), (fact,))


@dataclass(frozen=True)
class CameUp:
    """How far the guest got, in seconds from its start: `heard` on its console, or idle."""

    console: Console
    seconds: float
    heard: bool = False
    answered: bool = False
    """Whether it answered the power button with a shutdown."""
    is_idle: bool = True
    tail: tuple[str, ...] = ()
    """The last lines of the console at that time."""


class Pulse:
    """Whether the guest makes progress: new text on its console, or another megabyte of disk traffic."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moved = time.monotonic()
        self._disk_bytes, self._cpu_mark, self._cpu = 0, 0.0, 0.0

    def beat(self, disk_bytes: int, cpu_seconds: float) -> None:
        self._cpu = cpu_seconds
        moved = self._console.heard
        if disk_bytes >= self._disk_bytes + DISK_STEP:
            self._disk_bytes, moved = disk_bytes, time.monotonic()
        if moved > self._moved:
            self._moved, self._cpu_mark = moved, cpu_seconds

    @property
    def moved(self) -> float:
        """When it last made progress."""
        return self._moved

    @property
    def still_seconds(self) -> float:
        return time.monotonic() - self._moved

    @property
    def busy(self) -> bool:
        """It uses the CPU all the time: not idle, but without visible progress."""
        return self._cpu - self._cpu_mark > BUSY_SHARE * self.still_seconds


def _come_up(
    trial: Trial, overlaid: Overlay, scratch: Path, accelerator: Accelerator, prepared: PreparedGuest
) -> CameUp:
    for _ in range(1 + RESTARTS):
        began = time.monotonic()
        with running(overlaid, trial.hardware, scratch, accelerator) as machine:
            came_up = watch(trial, machine, began, prepared)
        if came_up is not None:
            return came_up
    seen = "".join(f"; {trace}" for trace in _left(prepared).traces)
    raise MigrationFailed(
        "boot-failed",
        f"{overlaid.base.disks[0].path.name} restarted or powered off {RESTARTS + 1} times before it came up{seen}",
        hint="Boot the guest by hand on a console to see why",
    )


def watch(trial: Trial, machine: RunningMachine, began: float, prepared: PreparedGuest) -> CameUp | None:
    """One run of the machine until its result, or until it is idle; None if it restarted or powered itself off."""
    console = Console()
    pulse = Pulse(console)
    pressed: float | None = None
    up: CameUp | None = None
    while True:
        said = machine.read_console(1.0)
        console.feed(said or b"")
        if sign := console.dead_end():
            raise _failure(console, sign.fact, sign.hint, sign.code)
        if up is None and _is_up(console):
            up = CameUp(console, console.heard - began, heard=True, tail=console.tail)
        if up is not None:
            waited = time.monotonic() - began - up.seconds
            if said is None or prepared.is_shown(console.text) or waited > STATE_SECONDS:
                return up
        if said is None:
            status = machine.wait()
            if run.ended_from_outside(status):
                raise run.killed("QEMU", -status)
            if status != 0:
                raise _emulator_failure(machine, console, "QEMU exited with an error")
            if pressed is not None and machine.ending == "guest-shutdown":
                return CameUp(console, pressed - began, answered=True)
            return None
        if (state := machine.stopped_state()) is not None:
            raise _stop(trial, machine, console, state)
        disk_bytes = machine.disk_bytes()
        pulse.beat(disk_bytes, machine.cpu_seconds())
        if console.received > CONSOLE_LIMIT or disk_bytes > trial.disk_limit:
            raise _failure(console, "it never becomes idle", "Boot the guest by hand on a console to see why")
        if pulse.still_seconds > trial.silence_seconds * (BUSY_PATIENCE if pulse.busy or prepared.patience else 1):
            return CameUp(console, pulse.moved - began)
        if up is not None:
            continue
        if prepared.patience and time.monotonic() - began > prepared.patience.limit_seconds:
            return CameUp(console, pulse.moved - began, is_idle=False)
        if time.monotonic() - (pressed or began) > _button_seconds(pulse, prepared.patience):
            machine.press_power_button()
            pressed = time.monotonic()


def _button_seconds(pulse: Pulse, patience: Patience | None) -> float:
    """The time between two presses of the power button, as the guest is now."""
    if pulse.still_seconds > STABLE_SECONDS and not pulse.busy:
        return STABLE_SECONDS
    return patience.press_seconds if patience else math.inf


def _is_up(console: Console) -> bool:
    text = console.text
    return bool(LOGIN.search(text) or (REACHED.search(text) and console.silent_seconds > STABLE_SECONDS))


def _stop(trial: Trial, machine: RunningMachine, console: Console, state: str) -> Exception:
    """Why QEMU stopped the machine. QEMU stops it for an I/O error only when an overlay meets ENOSPC (`werror`)."""
    if state == "io-error":
        return disk_full(trial.folder)
    return _emulator_failure(machine, console, f"QEMU stopped the machine ({state})")


def _emulator_failure(machine: RunningMachine, console: Console, fact: str) -> Exception:
    fact = f"{fact}: {machine.messages() or 'no message'}"
    if machine.accelerator == "kvm":
        return KvmFailed(fact)
    return _failure(console, fact, "Correct the cause that QEMU names", "emulator-ended")


def _failure(console: Console, fact: str, hint: str, code: str = "boot-failed") -> MigrationFailed:
    complaints = "".join(f"; it said: {line}" for line in console.complaints())
    last = " / ".join(console.tail) or "nothing"
    return MigrationFailed(
        code, f"the guest did not boot: {fact}{complaints}; its console ended with: {last}", hint=hint
    )


def _silence(came_up: CameUp, note: str, hint: str) -> MigrationFailed:
    console = came_up.console
    state = "its console and its disk are idle" if came_up.is_idle else "it did not become idle"
    if SPOKE.search(console.text):
        return _failure(console, state, "Read the console lines above")
    answer = f"{state}; its logs show no finished boot, and it did not answer the power button"
    if came_up.answered:
        answer = "it powered off when the power button was pressed, but its logs show no boot"
    return _failure(console, f"{answer}; its serial console has no output ({note})", hint, "boot-unproven")
