"""The interface of the guest families: finding a guest, making it boot on KVM, and observing its boot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hyper2kvmd.guest.files.tree import printable
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.model.guest import FamilyName, Guest
from hyper2kvmd.model.machine import DiskIdentity, Firmware, SourceNic
from hyper2kvmd.progress import Context


@dataclass(frozen=True)
class GuestDisks:
    """The open disks of one machine, and the migration of the guest on them."""

    access: Access
    layout: Layout
    migration: Migration
    ctx: Context
    firmware: Firmware
    """Of the new machine."""
    nics: tuple[SourceNic, ...] = ()
    """The source's network cards, as far as they are known."""
    identities: tuple[DiskIdentity, ...] = ()
    """Of the source's disks; empty if unknown."""
    virtio_win: Path | None = None
    """The source of drivers for Windows."""
    secure_boot: bool = False
    """Whether the new machine has it if the guest allows it."""
    mandate: Mandate = ANYONE
    """By whose rights `virtio_win` is opened."""


class Found(Protocol):
    """A guest that a family has found on the disks."""

    def repair(self) -> Guest:
        """Make it boot on KVM, without running any of its programs; returns its facts, changes and capabilities.

        A file system is mounted writable only if an edit is written to it or its journal is dirty. A dry run writes
        nothing and returns the same. Raises MigrationFailed.
        """
        ...


@dataclass(frozen=True)
class OverlayDisks:
    """A guest on the throwaway overlays of the boot proof, which nothing holds open while it runs."""

    layout: Layout
    open: Callable[[], AbstractContextManager[Access]]
    """Raises as `open_image` does."""
    root: str | None = None
    """The root that the migration chooses, if it does."""


@dataclass(frozen=True)
class ShownState:
    """The state of a booted guest."""

    failed_units: tuple[str, ...]
    differences: tuple[str, ...]
    """From what its own files say, in words."""


@dataclass(frozen=True)
class Patience:
    """With a guest that is never idle, in seconds."""

    press_seconds: float
    """After this time its power button is pressed, and then again and again."""
    limit_seconds: float
    """After this time the wait for its answer ends."""


class PreparedGuest(Protocol):
    """A guest that the boot proof can boot now."""

    @property
    def note(self) -> str:
        """What was changed in it for the proof, for the evidence."""
        ...

    @property
    def patience(self) -> Patience | None:
        """None if it becomes idle once its boot is over."""
        ...

    @property
    def power_off_proves(self) -> bool:
        """Whether a shutdown that answers the power button proves its boot. Else only its new traces do."""
        ...

    def new_traces(self) -> tuple[str, ...]:
        """After its boot: what its own logs show that only a guest that came up writes, in words.

        Traces of earlier boots do not count. Raises MigrationFailed and OSError if its files cannot be read.
        """
        ...

    def is_shown(self, console: str, /) -> bool:
        """Whether the guest has printed all that it was made to print."""
        ...

    def compare(self, console: str, /) -> ShownState | None:
        """The state that it printed, compared with the one that its own files describe; None if it printed none."""
        ...


@dataclass(frozen=True)
class BootedUnchanged:
    """A guest that the boot proof boots as it is, and that has no logs to compare."""

    reason: str

    @property
    def note(self) -> str:
        return printable(f"it was booted unchanged: {self.reason}")

    @property
    def patience(self) -> None:
        return None

    @property
    def power_off_proves(self) -> bool:
        return True

    def new_traces(self) -> tuple[str, ...]:
        return ()

    def is_shown(self, _console: str, /) -> bool:
        return True

    def compare(self, _console: str, /) -> None:
        return None


class Family(Protocol):
    """One kind of guest."""

    @property
    def name(self) -> FamilyName:
        """As `Guest.family` records it."""
        ...

    @property
    def unproven_hint(self) -> str:
        """What to do if a boot gives no sign of itself: the hint of `boot-unproven`."""
        ...

    def find(self, disks: GuestDisks, /) -> Found | None:
        """Look for a guest of this family, read-only; None if there is none.

        Raises MigrationFailed if there is one that cannot be repaired.
        """
        ...

    def prepare_boot(self, disks: OverlayDisks, /) -> PreparedGuest:
        """Make the guest show how far it boots, if it can, and note the traces of earlier boots.

        It writes to the overlays only. Raises MigrationFailed and OSError if its files cannot be read or written.
        """
        ...


def warning(text: str) -> str:
    """A warning about a guest in the form of a concern. `text` is the fact, as a sentence, and maybe the remedy."""
    fact, _, remedy = text.partition(". ")
    hint = remedy.rstrip(".") or "Check it when the new machine has booted"
    return printable(str(Concern(code="repair-incomplete", message=fact, hint=hint)))


def describe(volume: Volume) -> str:
    """A volume as messages show it: its name, content and UUID."""
    return printable(f"{volume.name} ({volume.content}{', UUID ' + volume.uuid if volume.uuid else ''})")
