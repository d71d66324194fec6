"""The outbox as the daemon empties it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.jobs.outbox import DELIVERED, GIVEN_UP, PENDING
from hyper2kvmd.jobs.tables import notifications, subscriptions
from hyper2kvmd.jobs.transactions import Transactions, remembered
from hyper2kvmd.model.notifications import DestinationState, Notification, Occasion, Outgoing

KEPT = 1000
"""Notifications on record that are delivered or given up."""
MAX_PENDING = 10_000
"""Pending notifications of one destination; of more, the oldest are given up."""
MAX_ERROR = 500
"""Characters of an error on record."""


class Notices(Transactions):
    def subscribe(self, wanted: Mapping[str, Sequence[Occasion]]) -> None:
        """From now on, these destinations get notifications of these occasions, and no others."""
        rows = [{"destination": name, "occasion": one} for name, on in wanted.items() for one in dict.fromkeys(on)]
        with self.transaction(writes=True) as connection:
            connection.execute(delete(subscriptions))
            if rows:
                connection.execute(insert(subscriptions), rows)

    def due_destinations(self, now: datetime) -> frozenset[str]:
        """Those with a notification to be sent now."""
        if not self._any_pending():
            return frozenset()
        due = notifications.c.state == PENDING, notifications.c.next_try <= now
        with self.transaction() as connection:
            query = select(notifications.c.destination).where(*due).distinct()
            return frozenset(connection.execute(query).scalars())

    @remembered
    def _any_pending(self) -> bool:
        with self.transaction() as connection:
            pending = select(notifications.c.id).where(notifications.c.state == PENDING).limit(1)
            return connection.execute(pending).first() is not None

    def next_notification(self, destination: str, now: datetime) -> Outgoing | None:
        """The one that has been due for longest."""
        due = _pending(destination), notifications.c.next_try <= now
        order = notifications.c.next_try, notifications.c.id
        while True:
            with self.transaction() as connection:
                row = connection.execute(select(notifications).where(*due).order_by(*order).limit(1)).first()
            if row is None:
                return None
            with suppress(ValueError):
                return _outgoing(row)
            self._give_up_unreadable(row.id)

    def _give_up_unreadable(self, number: int) -> None:
        with self.transaction(writes=True) as connection:
            _finish(connection, notifications.c.id == number, GIVEN_UP)

    def record_delivery(self, number: int) -> None:
        with self.transaction(writes=True) as connection:
            _finish(connection, notifications.c.id == number, DELIVERED)
            _forget_finished(connection)

    def postpone_delivery(self, number: int, error: str, next_try: datetime) -> None:
        """Repeated with the same time, it counts as one try."""
        values = {
            "tries": notifications.c.tries + 1,
            "last_error": error[:MAX_ERROR],
            "last_try": datetime.now(UTC),
            "next_try": next_try,
        }
        with self.transaction(writes=True) as connection:
            pending = notifications.c.id == number, notifications.c.state == PENDING
            anew = notifications.c.next_try != next_try
            connection.execute(update(notifications).where(*pending, anew).values(values))

    def give_up_deliveries(self, tries: int, known: Sequence[str]) -> Mapping[str, int]:
        """Give up what was tried so often, what goes to destinations that are not `known`, and excess.

        Returns the numbers of notifications by destination.
        """
        given_up: dict[str, int] = {}
        with self.transaction(writes=True) as connection:
            pending = select(notifications.c.destination).where(notifications.c.state == PENDING).distinct()
            for destination in connection.execute(pending).scalars().all():
                where = _pending(destination)
                if destination in known:
                    excess = select(notifications.c.id).where(where).order_by(notifications.c.id.desc())
                    newest = connection.execute(excess.limit(1).offset(MAX_PENDING)).scalar()
                    where &= (notifications.c.tries >= tries) | (notifications.c.id <= (newest or 0))
                if number := _finish(connection, where, GIVEN_UP):
                    given_up[destination] = number
            if given_up:
                _forget_finished(connection)
        return given_up

    @remembered
    def delivery_states(self) -> tuple[DestinationState, ...]:
        """Of destinations that get notifications, or have pending ones."""
        figures = (
            select(notifications.c.destination, func.count(), func.min(notifications.c.created))
            .where(notifications.c.state == PENDING)
            .group_by(notifications.c.destination)
        )
        with self.transaction() as connection:
            names = set(connection.execute(select(subscriptions.c.destination).distinct()).scalars())
            found = {row[0]: row for row in connection.execute(figures)}
            errors = {name: _last_error(connection, name) for name in found}
        return tuple(
            DestinationState(
                destination=name,
                pending=found[name][1] if name in found else 0,
                oldest=found[name][2] if name in found else None,
                last_error=errors.get(name, ""),
            )
            for name in sorted({*names, *found})
        )


def _outgoing(row: Row[Any]) -> Outgoing:
    """Raises ValueError for a message that this version cannot read."""
    return Outgoing(
        number=row.id,
        destination=row.destination,
        notification=Notification.model_validate_json(row.message),
        tries=row.tries,
        created=row.created,
    )


def _pending(destination: str) -> ColumnElement[bool]:
    return (notifications.c.state == PENDING) & (notifications.c.destination == destination)


def _finish(connection: Connection, where: ColumnElement[bool], state: str) -> int:
    pending = update(notifications).where(where, notifications.c.state == PENDING)
    return connection.execute(pending.values(state=state, last_try=datetime.now(UTC))).rowcount


def _forget_finished(connection: Connection) -> None:
    finished = notifications.c.state != PENDING
    order = notifications.c.id.desc()
    oldest = connection.execute(select(notifications.c.id).where(finished).order_by(order).limit(1).offset(KEPT))
    connection.execute(delete(notifications).where(finished, notifications.c.id <= (oldest.scalar() or 0)))


def _last_error(connection: Connection, destination: str) -> str:
    tried = _pending(destination), notifications.c.last_try.is_not(None)
    query = select(notifications.c.last_error).where(*tried).order_by(notifications.c.last_try.desc()).limit(1)
    return connection.execute(query).scalar() or ""
