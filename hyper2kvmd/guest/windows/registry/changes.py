"""What an editor has changed: one entry for each value or key whose state differs from that before all edits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hyper2kvmd.guest.windows.registry.names import upcase
from hyper2kvmd.guest.windows.registry.value import Value


class EditKind(StrEnum):
    VALUE = "value"
    KEY_CREATED = "key-created"
    KEY_DELETED = "key-deleted"


@dataclass(frozen=True)
class RegistryEdit:
    r"""A value set or deleted (`after` is None), or a key created or deleted; `path` is without the root: `a\b\c`.

    Values of a deleted key have entries of their own.
    """

    path: str
    name: str
    before: Value | None
    after: Value | None
    kind: EditKind = EditKind.VALUE


class Changes:
    """Collects edits in the order of the first one of each value or key."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str | None], RegistryEdit] = {}

    def value(self, path: str, name: str, before: Value | None, after: Value | None) -> None:
        place = (upcase(path), upcase(name))
        known = self._values.get(place)
        first = known.before if known else before
        if first == after:
            self._values.pop(place, None)
        else:
            self._values[place] = RegistryEdit(path, name, first, after)

    def key(self, path: str, kind: EditKind) -> None:
        """A key that is created again after its deletion, or deleted again after its creation, is no change."""
        place = (upcase(path), None)
        if self._values.pop(place, None) is None:
            self._values[place] = RegistryEdit(path, "", None, None, kind)

    def all(self) -> tuple[RegistryEdit, ...]:
        return tuple(self._values.values())
