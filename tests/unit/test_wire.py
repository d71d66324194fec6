"""What the control socket refuses before anybody looks at it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hyper2kvmd.daemon.wire import JobsQuery


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_query_for_a_time_that_does_not_exist_in_utc(moment: str) -> None:
    with pytest.raises(ValidationError, match="out of range"):
        JobsQuery.model_validate({"since": moment})
