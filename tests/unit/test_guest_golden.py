"""Guests of many makes: their files before and after, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.stages.repair import repair_opened
from tests.unit.guest_on_disk import GOLDEN, FolderAccess, GoldenCase, files_below, quiet_context, repaired

CASES = sorted(place.name for place in GOLDEN.iterdir())


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> GoldenCase:
    return GoldenCase(request.param, tmp_path / "guest")


def test_files_after_repair(case: GoldenCase, tmp_path: Path) -> None:
    guest = repaired(case.folders, case.layout, case.migration, case.vmx)
    assert files_below(tmp_path / "guest") == files_below(case.place / "after")
    assert list(guest.warnings) == case.warnings
    if case.nics is not None:
        assert [[nic.name, nic.mac] for nic in guest.nics] == case.nics


def test_a_second_repair_changes_nothing(case: GoldenCase, tmp_path: Path) -> None:
    first = repaired(case.folders, case.layout, case.migration, case.vmx)
    before = files_below(tmp_path / "guest")
    again = repaired(case.folders, case.layout, case.migration, case.vmx)
    assert again.changes == ()
    assert again.nics == first.nics
    assert files_below(tmp_path / "guest") == before


def test_a_dry_run_says_the_same_and_writes_nothing(case: GoldenCase, tmp_path: Path) -> None:
    access = FolderAccess(case.folders)
    dry = case.migration.model_copy(update={"dry_run": True})
    promised = repair_opened(access, case.layout, dry, quiet_context(), case.vmx)
    assert files_below(tmp_path / "guest") == files_below(case.place / "before")
    assert all(read_only for _, read_only in access.mounted)
    assert promised == repaired(case.folders, case.layout, case.migration, case.vmx)
