"""The base of all model types."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def with_changes(self, **changes: object) -> Self:
        """A copy with other values. Raises pydantic.ValidationError for an invalid name or value."""
        return self.model_validate({**dict(self), **changes})
