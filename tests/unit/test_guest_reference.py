"""docs/reference/guests.md is what the tests do."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest import tested
from hyper2kvmd.model.guest import Guest
from tests.guests import support_matrix
from tests.guests.catalogue import GUESTS
from tests.guests.guest import REPOSITORY

REFERENCE = REPOSITORY / "docs/reference/guests.md"


def test_the_reference_is_generated() -> None:
    assert REFERENCE.read_text() == support_matrix.markdown(), "run: make reference"


def test_every_guest_is_listed_with_a_test_that_boots_it() -> None:
    assert set(support_matrix.BOOTED) == set(GUESTS)


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
