"""docs/reference/guests.md is what the tests do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.guest import tested
from hyper2kvmd.model.guest import Guest
from tests.guests import debian12, support_matrix
from tests.guests.catalogue import GUESTS
from tests.guests.guest import REPOSITORY

DEBIAN12_RECIPES = Path(debian12.__file__)
REFERENCE = REPOSITORY / "docs/reference/guests.md"


def test_the_reference_is_generated() -> None:
    assert REFERENCE.read_text() == support_matrix.markdown(), "run: make reference"


def test_every_guest_is_listed_with_a_test_that_boots_it() -> None:
    assert set(support_matrix.BOOTED) == set(GUESTS)


def test_the_firmware_of_a_guest_is_that_of_its_recipe() -> None:
    """A recipe for UEFI makes an EFI system partition, or has it made; that of Debian 12 does it for some guests."""
    for name, guest in GUESTS.items():
        text = guest.recipe.read_text()
        by_uefi = "efi_guest(" in text or '"uefi")' in text
        if guest.recipe != DEBIAN12_RECIPES:
            assert by_uefi == ("BIOS" not in support_matrix.firmwares(name)), name


def test_what_was_not_booted_is_said() -> None:
    page = support_matrix.markdown()
    assert "| Linux | Debian 13 | yes | BIOS | UEFI, Secure Boot |" in page
    assert "| Linux | Debian 12 | yes | BIOS, UEFI, Secure Boot | - |" in page
    assert "| Windows | all | no: SATA disks, e1000e cards | - | BIOS, UEFI, Secure Boot |" in page
    assert support_matrix.firmwares("debian12-uefi-healthy") == ("UEFI",)
    assert support_matrix.firmwares("debian12") == ("BIOS",)


def test_the_systems_that_are_booted_are_those_without_a_note() -> None:
    suites = {support_matrix.SUITES[guest.suite].replace("Debian", "Debian GNU/Linux") for guest in GUESTS.values()}
    assert set(tested.BOOTED) == suites
    booted = Guest(os_name="Debian GNU/Linux 12 (bookworm)")
    assert tested.note_if_not_booted(booted) == ()
    (note,) = tested.note_if_not_booted(booted.with_changes(os_name="Rocky Linux 9.4 (Blue Onyx)"))
    assert (note.code, note.level) == ("guest-not-booted", "information") and "Rocky Linux 9.4" in note.message
    assert tested.note_if_not_booted(Guest(family="none")) == ()


def test_a_test_that_is_gone_is_noticed() -> None:
    with pytest.raises(LookupError):
        support_matrix.make_target("tests/integration/test_boot.py::test_of_another_name")


def test_every_golden_case_is_listed() -> None:
    listed = [case for cases in support_matrix.golden_systems().values() for case in cases]
    assert sorted(listed) == sorted(place.name for place in support_matrix.GOLDEN.iterdir())


@pytest.mark.parametrize("file", support_matrix.BY_UNIT_TESTS.values())
def test_unit_tests_that_are_named_exist(file: str) -> None:
    assert (REPOSITORY / file).is_file()
