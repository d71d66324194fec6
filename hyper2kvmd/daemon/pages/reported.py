"""What the page of a job shows of its report: the system, the repairs without their texts, the drivers, the proof."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Change, Guest
from hyper2kvmd.model.results import Verdict

REPAIRS_SHOWN = 50


class Reported(Frozen):
    system: str
    """Empty if it was not looked for or is unknown."""
    repairs: tuple[Change, ...]
    """Without their differences, which are content of the guest."""
    more: int
    """Repairs that are not shown."""
    drivers: tuple[str, ...]
    evidence: tuple[str, ...]


class _Parts(BaseModel):
    guest: Guest
    verdict: Verdict


def of_report(text: bytes) -> Reported | None:
    """None for a report of another version that this one cannot read."""
    try:
        parts = _Parts.model_validate_json(text)
    except ValidationError:
        return None
    changes, windows = parts.guest.changes, parts.guest.windows
    drivers = windows.drivers if windows is not None else ()
    return Reported(
        system=parts.guest.os_name,
        repairs=tuple(Change(fix=one.fix, path=one.path, summary=one.summary) for one in changes[:REPAIRS_SHOWN]),
        more=max(0, len(changes) - REPAIRS_SHOWN),
        drivers=tuple(f"{one.name} {one.version}, signed by {one.signer or 'nobody'}" for one in drivers),
        evidence=parts.verdict.evidence,
    )
