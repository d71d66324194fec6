"""Reads the query of an address: which jobs a page shows, in which order, and which part of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import MAX_ID, JobFilter, Sort, State

PAGE_JOBS = 50
"""Jobs on one page."""
MAX_PAGE = 400
"""Jobs that are further away are found by a filter, or in another order."""
MAX_WORD = 255
REFRESH = (0, 10, 60)
"""Seconds between two loads of a page that a reader may choose; 0 for no refresh."""
_AGO = re.compile(r"([0-9]{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


class BadAddress(Exception):
    """The query has a value that no page understands."""


class Wanted(Frozen):
    """The part of the list of jobs that an address names."""

    states: tuple[State, ...] = ()
    since: str = ""
    """As it was given: `24h`, `7d`, `2w`, a date, or a date with time."""
    batch: int | None = None
    submitter: str = ""
    """A user name, or a uid."""
    warned: bool = False
    vm: str = ""
    sort: Sort = Sort.NEWEST
    page: int = 1
    refresh: int = 0

    @property
    def offset(self) -> int:
        return (self.page - 1) * PAGE_JOBS

    def chosen(self, submitter_uid: int | None) -> JobFilter:
        return JobFilter(
            states=self.states,
            since=moment(self.since),
            batch_id=self.batch,
            submitter_uid=submitter_uid,
            warned=self.warned,
            vm_name=self.vm or None,
        )

    def address(self, path: str, **changes: object) -> str:
        """The address of this list with some values changed, without those that are defaults."""
        values = self.with_changes(**changes).model_dump(exclude_defaults=True, mode="json")
        words = {name: "1" if value is True else value for name, value in values.items() if value is not False}
        words["state"] = words.pop("states", ())
        query = urlencode(words, doseq=True)
        return f"{path}?{query}" if query else path


def read(query: Mapping[str, str], states: Iterable[str]) -> Wanted:
    """Raises BadAddress with the fact. `states` are all values of `state`, which may be given several times."""
    unknown = set(query) - {*Wanted.model_fields, "state"} | set(query) & {"states"}
    if unknown:
        raise BadAddress(f"{min(unknown)[:40]} is no filter of this page")
    wanted = Wanted(
        states=tuple(_state(text) for text in states if text),
        since=_word(query, "since"),
        batch=_number(query, "batch", MAX_ID) if query.get("batch") else None,
        submitter=_word(query, "submitter"),
        warned=query.get("warned", "") == "1",
        vm=_word(query, "vm"),
        sort=_sort(query.get("sort") or "newest"),
        page=_number(query, "page", MAX_PAGE) if query.get("page") else 1,
        refresh=_refresh(query),
    )
    moment(wanted.since)
    return wanted


def moment(since: str) -> datetime | None:
    """The point in time that `since` means. A time without an offset is local time. Raises BadAddress."""
    if not since:
        return None
    ago = _AGO.fullmatch(since)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
        return datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadAddress("since is not a duration such as 24h or 7d, nor a date such as 2026-01-31") from error


def written_uid(submitter: str) -> int | None:
    """The uid that this is, unless it is a name."""
    return int(submitter) if submitter.isascii() and submitter.isdecimal() and len(submitter) <= 10 else None


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError as error:
        raise BadAddress(f"state must be one of {', '.join(State)}") from error


def _sort(text: str) -> Sort:
    try:
        return Sort(text)
    except ValueError as error:
        raise BadAddress(f"sort must be one of {', '.join(Sort)}") from error


def _word(query: Mapping[str, str], name: str) -> str:
    text = query.get(name, "").strip()
    if len(text) > MAX_WORD or not text.isprintable():
        raise BadAddress(f"{name} is not a name")
    return text


def _number(query: Mapping[str, str], name: str, most: int) -> int:
    text = query[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) <= most):
        raise BadAddress(f"{name} must be a number from 1 to {most}")
    return int(text)


def _refresh(query: Mapping[str, str]) -> int:
    text = query.get("refresh") or "0"
    if text not in {str(seconds) for seconds in REFRESH}:
        raise BadAddress(f"refresh must be one of {', '.join(map(str, REFRESH))}")
    return int(text)
