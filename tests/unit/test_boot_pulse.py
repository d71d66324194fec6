"""What counts as getting somewhere, when a guest boots."""

from __future__ import annotations

from hyper2kvmd.proof.boot import DISK_STEP, Pulse
from hyper2kvmd.proof.console import Console


def test_disk_traffic_is_progress_and_a_trickle_is_not() -> None:
    pulse = Pulse(Console())
    began = pulse.moved
    pulse.beat(DISK_STEP - 1, 1.0)
    assert pulse.moved == began
    pulse.beat(DISK_STEP, 1.0)
    moved = pulse.moved
    assert moved > began
    pulse.beat(2 * DISK_STEP - 1, 1.0)
    assert pulse.moved == moved


def test_new_words_are_progress() -> None:
    console = Console()
    pulse = Pulse(console)
    began = pulse.moved
    console.feed(b"[  OK  ] Reached target Swaps.\n")
    pulse.beat(0, 1.0)
    assert pulse.moved > began


def test_a_guest_that_computes_without_getting_anywhere_is_busy_until_it_gets_somewhere() -> None:
    pulse = Pulse(Console())
    pulse.beat(0, 0.0)
    assert not pulse.busy
    pulse.beat(0, 1000.0)
    assert pulse.busy
    pulse.beat(DISK_STEP, 1000.0)
    assert not pulse.busy
