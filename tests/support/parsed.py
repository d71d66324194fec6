"""What `spec` makes of a YAML with one machine."""

from __future__ import annotations

from collections.abc import Sequence

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.spec import Parsed


def only_migration(parsed: Sequence[Parsed]) -> Migration:
    (one,) = parsed
    return one.migration
