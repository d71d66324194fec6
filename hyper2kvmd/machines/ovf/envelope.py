"""Reads the text of an OVF descriptor: the systems in it, and one of them as a machine."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from hyper2kvmd.machines.ovf.described import Described


def systems(text: bytes, *, name: str) -> tuple[str, ...]:
    """The identifiers of its systems, also of those in nested collections. `name` is the descriptor's, for messages."""
    raise NotImplementedError


def read_envelope(
    text: bytes,
    *,
    name: str,
    configuration: str | None = None,
    system: str | None = None,
    overridden: AbstractSet[str] = frozenset(),
) -> Described:
    """The machine. `name` is the descriptor's, for messages; `system` chooses one of several machines.

    `overridden` are the keys of the migration that replace a fact (`memory`, `vcpus`, `uefi`): that fact may be unclear.
    """
    raise NotImplementedError
