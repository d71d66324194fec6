"""A short run of what `make fuzz` does for long."""

from __future__ import annotations

from tests.fuzz.foreign import fuzz


def test_damaged_headers_are_described_or_refused() -> None:
    ends, wrong = fuzz(seed=1, count=500)
    assert not wrong, wrong[0]
    assert {"described", "source-corrupt", "source-truncated", "source-unsupported", "source-has-parent"} <= set(ends)
