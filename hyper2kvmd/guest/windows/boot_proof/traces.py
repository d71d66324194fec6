"""The traces of a boot on the volume of Windows: new records of its System event log, and the result of the first boot.

They are noted before and after the boot, so that earlier boots do not count. The recovery environment writes neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from hyper2kvmd.guest.files.tree import printable
from hyper2kvmd.guest.windows.boot_proof.event_log import read_event_log
from hyper2kvmd.guest.windows.first_boot import RESULT as RESULT_NAME

LOG = "Windows/System32/winevt/Logs/System.evtx"
RESULT = f"Windows/{RESULT_NAME}"
LARGEST_LOG = 256 << 20
"""Bytes. Windows keeps 20 MiB unless an administrator wants more."""
STARTED: Mapping[tuple[str, int], str] = {
    ("Microsoft-Windows-Kernel-General", 12): "Windows started",
    ("EventLog", 6005): "its event log service started",
}
"""What is written in each boot, and by a running service only."""
ENDED: Mapping[tuple[str, int], str] = {
    ("User32", 1074): "a shutdown was requested",
    ("EventLog", 6006): "its event log service stopped",
    ("Microsoft-Windows-Kernel-General", 13): "Windows shut down",
}
RESULT_LIMIT = 1 << 20
RESULT_LINES, RESULT_LINE = 8, 200
"""Lines of the result that are reported, and characters of each."""

Reader = Callable[[str, int], bytes | None]
"""The first bytes of a file: empty if it is missing, None if it cannot be read."""


@dataclass(frozen=True)
class WindowsTraces:
    """Those of one moment. What could not be read then is None, and never becomes evidence."""

    highest: int | None
    """The number of the event log's last record."""
    result_size: int | None


def traces(read: Reader) -> WindowsTraces:
    log = read_event_log(read(LOG, LARGEST_LOG) or b"")
    result = read(RESULT, RESULT_LIMIT)
    return WindowsTraces(log.highest if log else None, None if result is None else len(result))


def new_since(before: WindowsTraces, read: Reader) -> tuple[str, ...]:
    """The traces that a boot has left since then, in words."""
    return (*_events(before.highest, read), *_result(before.result_size, read))


def _events(highest: int | None, read: Reader) -> tuple[str, ...]:
    if highest is None:
        return ()
    log = read_event_log(read(LOG, LARGEST_LOG) or b"", highest)
    new = {(event.provider, event.event_id) for event in log.new} if log else set()
    started = _named(new, STARTED)
    return (*started, *_named(new, ENDED)) if started else ()


def _named(new: Set[tuple[str, int | None]], known: Mapping[tuple[str, int], str]) -> tuple[str, ...]:
    return tuple(
        f"its System event log shows that {fact} (event {event_id} of {provider})"
        for (provider, event_id), fact in known.items()
        if (provider, event_id) in new
    )


def _result(size: int | None, read: Reader) -> tuple[str, ...]:
    data = read(RESULT, RESULT_LIMIT)
    if size is None or data is None:
        return ()
    lines = [line.strip() for line in data[size:].decode(errors="replace").splitlines()]
    shown = [printable(line[:RESULT_LINE]) for line in lines if line]
    return tuple(f"its service of the first boot wrote: {line}" for line in shown[-RESULT_LINES:])
