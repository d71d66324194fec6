"""A guest that booted has booted, also if its state cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.guest.family import BootedUnchanged, ShownState
from hyper2kvmd.proof.boot import Booted, compare_state
from hyper2kvmd.proof.console import Console


@dataclass(frozen=True)
class Faulty(BootedUnchanged):
    def compare(self, _console: str, /) -> None:
        raise IndexError("list index out of range")


def test_a_fault_of_the_comparison_is_a_difference() -> None:
    console = Console()
    console.feed(b"[FAILED] Failed to start nginx.service.\n")
    assert compare_state(BootedUnchanged("it is locked"), console) is None
    assert compare_state(Faulty("it is locked"), console) == ShownState(
        ("nginx.service",), ("its state could not be compared with its files (IndexError)",)
    )


def test_what_a_boot_warns_of() -> None:
    booted = Booted(seconds=1, console_tail=(), evidence=("it asked for a login",), failed_units=("nginx.service",))
    assert booted.warnings == ("the guest booted, but failed to start nginx.service",)
    emulated = booted.with_changes(failed_units=(), differences=("/data is missing",), kvm_failure="KVM failed")
    assert emulated.warnings == ("the guest booted, but /data is missing", "KVM failed")
