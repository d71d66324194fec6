"""A Linux guest on throwaway overlays, prepared for its boot and searched for traces after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import OverlayDisks, ShownState
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.linux.boot_proof.serial import speak_on_serial
from hyper2kvmd.guest.linux.boot_proof.state import (
    GuestState,
    differences,
    expected_state,
    is_complete,
    show_state,
    shown_state,
)
from hyper2kvmd.guest.linux.boot_proof.traces import VOLUMES, Traces, new_since, traces
from hyper2kvmd.guest.linux.compose import Composition
from hyper2kvmd.guest.linux.ostree import find_deployment
from hyper2kvmd.guest.linux.root_search import find_locked_root, find_root


@dataclass(frozen=True)
class PreparedLinux:
    """`before` are the traces of earlier boots."""

    disks: OverlayDisks
    before: Traces
    note: str
    expected: GuestState | None
    """None if the guest prints no state."""
    patience: None = None
    power_off_proves: bool = True

    def new_traces(self) -> tuple[str, ...]:
        with _mounted(self.disks) as tree:
            return new_since(self.before, tree)

    def is_shown(self, console: str, /) -> bool:
        return self.expected is None or is_complete(console)

    def compare(self, console: str, /) -> ShownState | None:
        shown = shown_state(console)
        if self.expected is None or shown is None:
            return None
        return ShownState(shown.failed_units, differences(self.expected, shown))


def prepare_linux(disks: OverlayDisks) -> PreparedLinux:
    """Note the traces of earlier boots, and add the serial console to the kernel lines.

    Raises OSError, and MigrationFailed as `find_root`, `Access.mount` and every write to a guest do.
    """
    with _mounted(disks) as tree:
        before, changed, expected = traces(tree), speak_on_serial(tree), _expected(tree)
        shows = bool(changed) and expected is not None and show_state(tree)
    return PreparedLinux(disks, before, _note(changed), expected if shows else None)


def _expected(tree: GuestTree) -> GuestState | None:
    """None if its files do not show it: the guest may boot all the same."""
    try:
        return expected_state(tree)
    except (MigrationFailed, OSError, ValueError):
        return None


@contextmanager
def _mounted(disks: OverlayDisks) -> Iterator[GuestTree]:
    with disks.open() as access:
        layout = disks.layout
        root = (
            find_root(access, layout, disks.root) or find_deployment(access, layout) or find_locked_root(access, layout)
        )
        if root is None:
            raise MigrationFailed("guest-root-missing", "no Linux root was found", hint="Boot the guest by hand")
        composition = Composition(access, layout, root, read_only=False, also=VOLUMES)
        with composition.mounted() as tree:
            yield tree


def _note(changed: tuple[str, ...]) -> str:
    if not changed:
        return "its kernel lines were booted unchanged: none was found that can be edited"
    names = ", ".join(printable(path) for path in changed)
    return f"a serial console was added to its kernel lines for the proof, on a throwaway overlay ({names})"
