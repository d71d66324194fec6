"""Numbers with units in an OVF descriptor, in all forms that exporters write.

Source: DMTF DSP0243, section 9.1, and DSP0004, annex C (programmatic units); VMware's words from its first drafts.
"""

from __future__ import annotations

import re
from math import prod

WHOLE = re.compile(r"([0-9]{1,18})(?:\.0{1,6})?")
PROGRAMMATIC = re.compile(r"bytes?((?:\*[0-9]{1,13}(?:\^[0-9]{1,2})?){0,4})")
FACTOR = re.compile(r"\*([0-9]{1,13})(?:\^([0-9]{1,2}))?")
WORDS = re.compile(r"(?:(k|kilo|kibi|ki)|(m|mega|mebi|mi)|(g|giga|gibi|gi)|(t|tera|tebi|ti))(?:b|bytes?)")
"""Powers of 1024, as VMware and VirtualBox mean them."""
LARGEST = 1 << 80


def whole_number(text: str | None) -> int | None:
    """A number of at most 18 digits; None for anything else."""
    found = WHOLE.fullmatch(text.strip()) if text else None
    return int(found[1]) if found else None


def bytes_of_unit(unit: str) -> int | None:
    """How many bytes one of the unit is: 1048576 for `byte * 2^20`, `MegaBytes`, `MiB`. None: it is unknown."""
    packed = "".join(unit.split()).lower()
    programmatic = PROGRAMMATIC.fullmatch(packed)
    if programmatic:
        found: int = prod(int(base) ** int(power or 1) for base, power in FACTOR.findall(programmatic[1]))
        return found if 0 < found < LARGEST else None
    word = WORDS.fullmatch(packed)
    if word:
        return 1 << 10 * next(power for power, prefix in enumerate(word.groups(), start=1) if prefix)
    return 1 if packed == "b" else None
