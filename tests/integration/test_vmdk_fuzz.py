"""A short run of what `make fuzz` does for long."""

from __future__ import annotations

from tests.fuzz.vmdk import fuzz


def test_a_damaged_vmdk_gives_bytes_or_a_failure() -> None:
    ends, wrong = fuzz(seed=1, count=2000)
    assert not wrong, wrong[0]
    assert {"bytes", "source-not-vmdk", "source-corrupt", "source-truncated", "source-unsupported"} <= set(ends)
