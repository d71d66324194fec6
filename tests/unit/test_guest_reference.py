"""docs/reference/guests.md is what the tests do."""

from __future__ import annotations

import pytest

from tests.guests import support_matrix
from tests.guests.catalogue import GUESTS
from tests.guests.guest import REPOSITORY

REFERENCE = REPOSITORY / "docs/reference/guests.md"


def test_the_reference_is_generated() -> None:
    assert REFERENCE.read_text() == support_matrix.markdown(), "run: make reference"


def test_every_guest_is_listed_with_a_test_that_boots_it() -> None:
    assert set(support_matrix.BOOTED) == set(GUESTS)


def test_a_test_that_is_gone_is_noticed() -> None:
    with pytest.raises(LookupError):
        support_matrix.make_target("tests/integration/test_boot.py::test_of_another_name")


def test_every_golden_case_is_listed() -> None:
    listed = [case for cases in support_matrix.golden_systems().values() for case in cases]
    assert sorted(listed) == sorted(place.name for place in support_matrix.GOLDEN.iterdir())


@pytest.mark.parametrize("file", support_matrix.BY_UNIT_TESTS.values())
def test_unit_tests_that_are_named_exist(file: str) -> None:
    assert (REPOSITORY / file).is_file()
