"""What submitters can demand of a queue in which jobs wait for times, windows and each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hyper2kvmd import spec
from hyper2kvmd.daemon.wire import JobsQuery


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "9999-12-31T09:59", "9000-01-01 00:00Z"])
def test_a_time_at_the_end_of_the_calendar(moment: str) -> None:
    """There is no window after it, and no local time in zones east of Greenwich."""
    text = f"vmdk: /exports/web01.vmdk\nnot_before: {moment}\nwindow: {{from: '22:00', to: '04:00'}}\n"
    with pytest.raises(spec.Rejected) as refused:
        spec.parse(text, base=None, home=None, default_name="web01")
    assert [(one.code, one.key) for one in refused.value.problems] == [("value-invalid", "not_before")]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_query_for_a_time_that_does_not_exist_in_utc(moment: str) -> None:
    with pytest.raises(ValidationError, match="out of range"):
        JobsQuery.model_validate({"since": moment})
