"""Elements of ASN.1 in DER: one element at a time, never deeper than the caller asks.

Source: ITU-T X.690, sections 8.1 and 10.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

INTEGER, OCTETS, OID, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x30, 0x31
MOST_ELEMENTS = 50_000
"""Of one element: a catalogue lists each file of a driver package."""


class NotDer(ValueError):
    """The bytes are not an element of the expected form."""


@dataclass(frozen=True)
class DerElement:
    tag: int
    content: bytes
    whole: bytes
    """With tag and length."""

    def children(self) -> list[DerElement]:
        found = []
        for child in _elements(self.content):
            found.append(child)
            if len(found) > MOST_ELEMENTS:
                raise NotDer("too many elements")
        return found

    def child(self, index: int, tag: int) -> DerElement:
        """Raises NotDer unless it is there and has that tag."""
        found = self.children()
        if index >= len(found):
            raise NotDer("an element is missing")
        return found[index].expect(tag)

    def expect(self, tag: int) -> DerElement:
        if self.tag != tag:
            raise NotDer(f"an element has the tag {self.tag:#x} instead of {tag:#x}")
        return self

    @property
    def oid(self) -> str:
        """Dotted numbers."""
        data = self.expect(OID).content
        if not data or len(data) > 64:
            raise NotDer("an object identifier has no valid length")
        numbers = []
        number = 0
        for byte in data:
            number = number << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(number)
                number = 0
        if not numbers:
            raise NotDer("an object identifier is cut off")
        top = min(numbers[0] // 40, 2)
        return ".".join(map(str, [top, numbers[0] - 40 * top, *numbers[1:]]))


def parse(data: bytes) -> DerElement:
    """The element at the start of `data`; what follows it is ignored. Raises NotDer."""
    return next(_elements(data, first_only=True))


def _elements(data: bytes, *, first_only: bool = False) -> Iterator[DerElement]:
    at = 0
    while at < len(data) or first_only:
        if at + 2 > len(data):
            raise NotDer("an element is cut off")
        tag, size = data[at], data[at + 1]
        start = at + 2
        if tag & 0x1F == 0x1F:
            raise NotDer("an element has a tag of several bytes")
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4 or start + count > len(data):
                raise NotDer("an element has no valid length")
            size = int.from_bytes(data[start : start + count], "big")
            start += count
        end = start + size
        if end > len(data):
            raise NotDer("an element is longer than its container")
        yield DerElement(tag, data[start:end], data[at:end])
        at = end
