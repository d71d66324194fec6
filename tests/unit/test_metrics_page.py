"""docs/reference/metrics.md is what `make reference` writes, and names each metric that is served."""

from __future__ import annotations

import re

import pytest

from hyper2kvmd.daemon.gauges import GAUGES
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.metrics_page import markdown
from hyper2kvmd.guest.mounts.rootside import outcome_of
from tests.support.host import REPOSITORY


def test_the_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "reference" / "metrics.md").read_text() == markdown(), "run `make reference`"


def test_each_metric_has_its_row() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)`", markdown(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert {gauge.name for gauge in GAUGES} <= set(rows)
    assert {"hyper2kvm_jobs_completed_total", "hyper2kvm_warnings_total", "process_resident_memory_bytes"} <= set(rows)
    for name in Metrics().labels:
        assert {name, f"{name}_total"} & set(rows), name


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("journal-dirty", "ok"),
        ("unsupported", "unable"),
        ("mount-failed", "unable"),
        ("device-failed", "unable"),
        ("timed-out", "unable"),
        ("bad-request", "refused"),
        ("bad-fd", "refused"),
        ("bad-caller", "refused"),
        ("internal", "failed"),
        ("not-root", "failed"),
    ],
)
def test_only_forbidden_requests_to_the_helper_count_as_refused(error: str, outcome: str) -> None:
    assert outcome_of(error) == outcome
