"""Which failures are reported together, and which end the work at once."""

from __future__ import annotations

import pytest

from hyper2kvmd.errors import BrokenInstallation, Failure, Interrupted, MigrationFailed, TryLater, Unsafe
from hyper2kvmd.findings import Findings, Several
from hyper2kvmd.progress import problems

TOOL = BrokenInstallation("tool-missing", "the program x is not installed", hint="Install it")
FULL = MigrationFailed("output-exists", "y exists", hint="Move it away")


def noted(*failures: Failure) -> Findings:
    findings = Findings()
    for failure in failures:
        with findings.noted():
            raise failure
    return findings


def test_nothing_found() -> None:
    Findings().require_none()


def test_one_failure_is_raised_as_it_is() -> None:
    with pytest.raises(BrokenInstallation) as caught:
        noted(TOOL).require_none()
    assert caught.value is TOOL


def test_more_are_raised_together_in_their_order() -> None:
    with pytest.raises(Several) as caught:
        noted(FULL, Several([TOOL, FULL]), TOOL).require_none()
    assert caught.value.failures == (FULL, TOOL)
    assert [one.code for one in problems(caught.value)] == ["output-exists", "tool-missing"]
    assert "y exists; the program x is not installed" in str(caught.value)


@pytest.mark.parametrize("kind", [Unsafe, TryLater, Interrupted])
def test_what_ends_the_work_is_not_held_back(kind: type[Failure]) -> None:
    findings = noted(TOOL)
    with pytest.raises(kind), findings.noted():
        raise kind("output-moved", "fact", hint="Do")
