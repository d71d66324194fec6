"""The base of all model types."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo


class Frozen(BaseModel):
    """An alias is the field's name outside of Python, in YAML and JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        defer_build=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    @classmethod
    def fields_by_key(cls) -> dict[str, FieldInfo]:
        """The fields by their names in YAML and JSON."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    def with_changes(self, **changes: object) -> Self:
        """A copy with other values. Raises pydantic.ValidationError for an invalid name or value."""
        return self.model_validate({**dict(self), **changes})

    @classmethod
    def read_back(cls, text: str | bytes) -> Self | None:
        """The object of a JSON text; None if another version wrote it, with other fields."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None
