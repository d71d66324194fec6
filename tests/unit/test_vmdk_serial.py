"""`ddb.uuid` of a VMDK's descriptor, from which VMware derives the serial number that a guest sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.vmdk.descriptor import parse_descriptor


@pytest.mark.parametrize(
    ("written", "serial"),
    [
        ("60 00 C2 99 9b 5b bb 78-e1 4f 73 e7 f0 b7 c4 a2", "6000c2999b5bbb78e14f73e7f0b7c4a2"),
        ("60 00 C2 99 9b 5b bb 78-e1 4f 73 e7 f0 b7 c4", None),
        ("none", None),
        ("", None),
    ],
)
def test_serial(written: str, serial: str | None) -> None:
    text = f'# Disk DescriptorFile\ncreateType="vmfs"\nRW 8 VMFS "a-flat.vmdk"\nddb.uuid = "{written}"\n'
    assert parse_descriptor(text.encode(), Path("a.vmdk")).serial == serial
