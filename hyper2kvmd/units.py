"""Shows sizes, durations and times to people. Programs get plain bytes, seconds and UTC."""

from __future__ import annotations

import math
from datetime import datetime

MINUTE, HOUR = 60, 3600


def counted(count: int, noun: str) -> str:
    """`1 edit`, `2 edits`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: int) -> str:
    """Bytes, in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 10 s` or `2 h 5 min`."""
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"


def about(seconds: float) -> str:
    """An estimate: `less than a minute`, `about 4 min` or `about 2 h 5 min`."""
    minutes = math.ceil(seconds / MINUTE)
    if minutes <= 1:
        return "less than a minute"
    return f"about {minutes} min" if minutes < 60 else f"about {minutes // 60} h {minutes % 60} min"


def local_time(moment: datetime) -> str:
    """In the time zone of the host, with its offset."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"
