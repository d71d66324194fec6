"""The configurations of an OVF descriptor, such as small and large, and the choice of one."""

from __future__ import annotations

from collections.abc import Iterable

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.machines.ovf.sections import sections

TRUE = ("true", "1")


def choose_configuration(envelope: Element, used: Iterable[str], wanted: str | None, name: str) -> str | None:
    """The configuration: `wanted`, else the default one, else the first; None if the descriptor has none.

    `used` are those that the system's items name. Raises MigrationFailed (`ovf-configuration-unclear`).
    """
    declared = [
        one for section in sections(envelope, "DeploymentOptionSection") for one in section.all("Configuration")
    ]
    names = [identifier for one in declared if (identifier := one.get("id"))]
    known = tuple(dict.fromkeys((*names, *used)))
    if wanted is not None and wanted not in known:
        if not known:
            raise faults.configuration_unclear(name, "has no configurations", "Remove the key `configuration`")
        fact = f"has no configuration {faults.shown(wanted)}, only {faults.listed(known)}"
        raise faults.configuration_unclear(name, fact, "Set `configuration` to one of these names, or remove the key")
    if wanted is not None or not known:
        return wanted
    defaults = [one.get("id") for one in declared if (one.get("default") or "").lower() in TRUE]
    if len(defaults) > 1 or not names:
        fact = f"has the configurations {faults.listed(known)}, and does not say which one is the default"
        raise faults.configuration_unclear(name, fact, "Set `configuration` to one of these names")
    return defaults[0] if defaults else names[0]
