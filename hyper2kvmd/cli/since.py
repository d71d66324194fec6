"""Times as a person writes them after `--since`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str, now: datetime) -> datetime:
    """`30m`, `2h`, `3d` or `1w` before now; a date, or date and time, of the host's time zone unless it has an offset.

    Raises ValueError.
    """
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", text, re.ASCII):
        try:
            return now - timedelta(seconds=int(found[1]) * SECONDS[found[2]])
        except OverflowError as error:
            raise ValueError(text) from error
    return datetime.fromisoformat(text).astimezone()


class MomentType(click.ParamType[datetime]):
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return moment(value, datetime.now().astimezone())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time such as 2h, 3d, 2026-01-31 or 2026-01-31T22:00", param, ctx)
