"""The properties of an OVF descriptor that other values refer to as `${name}`, with their defaults.

Source: DMTF DSP0243 1.1, section 9.5.1: the name is class.key.instance, where class and instance are optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.machines.ovf.sections import sections

REFERENCE = re.compile(r"\$\{([^${}]{1,200})\}")


def properties_of(*owners: Element, configuration: str | None) -> Mapping[str, str]:
    """Values by full name: of the systems or collections in `owners`, the outermost first; inner ones win."""
    return dict(
        pair
        for owner in owners
        for section in sections(owner, "ProductSection")
        for pair in _of(section, configuration)
    )


def resolved(text: str, properties: Mapping[str, str]) -> str:
    """The value behind a reference; any other text, and a reference to nothing, as it is."""
    reference = REFERENCE.fullmatch(text.strip())
    return properties.get(reference[1].strip(), text) if reference else text


def _of(section: Element, configuration: str | None) -> Iterator[tuple[str, str]]:
    prefix, suffix = section.get("class"), section.get("instance")
    for one in section.all("Property"):
        key, value = one.get("key"), _value(one, configuration)
        only_for = (one.get("configuration") or "").split()
        if key and value is not None and (not only_for or configuration in only_for):
            yield ".".join(part for part in (prefix, key, suffix) if part), value


def _value(element: Element, configuration: str | None) -> str | None:
    """The value for the configuration, else the default."""
    for one in element.all("Value"):
        if configuration is not None and one.get("configuration") == configuration:
            return one.get("value")
    return element.get("value")
