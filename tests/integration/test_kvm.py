"""The program that decides whether KVM is used."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.host.boot_sector import CODE, SOURCE
from hyper2kvmd.host.kvm import executes
from tests.support.boot_sectors import assembled


def test_the_machine_code_is_that_of_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


def test_emulation_executes_the_probe() -> None:
    """What working KVM does as well."""
    assert executes("tcg", 60.0)


def test_a_probe_that_does_not_come_to_its_end(tmp_path: Path) -> None:
    """It stops where the comparison fails, as a processor's would that has no such instruction."""
    broken = assembled(SOURCE.replace("lock cmpxchg16b (%rdi)", "incl %eax"), tmp_path)
    assert not executes("tcg", 0.5, broken)
