"""A file given with the key of another kind: the message says what it is and which key to use."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration, SourceKey
from tests.support.archives import Entry, tar
from tests.support.ovf_texts import envelope
from tests.support.vmdk_images import descriptor, stream
from tests.support.vmx import ONE_DISK, QUIET, text

OVA = tar(Entry("web01.ovf", envelope()), Entry("web01-disk1.vmdk", b"disk"))
FILES: dict[str, tuple[SourceKey, bytes]] = {
    "web01.ova": ("ova", OVA),
    "web01.ova.gz": ("ova", gzip.compress(OVA)),
    "large.ova": ("ova", OVA + bytes(17 << 20)),
    "web01.ovf": ("ovf", envelope()),
    "web01.vmx": ("vmx", text({**QUIET, **ONE_DISK}).encode()),
    "edited.vmx": ("vmx", text({"displayName": "web01", **QUIET}).encode()),
    "web01.xml": ("libvirt_xml", b"<domain type='kvm'>\n  <name>web01</name>\n</domain>\n"),
    "commented.xml": ("libvirt_xml", b"<!--\nWARNING: ...\n-->\n\n<domain type='kvm'>\n</domain>\n"),
    "web01.vmdk": ("vmdk", descriptor("monolithicFlat", "RW 1 ZERO")),
    "stream.vmdk": ("vmdk", stream({}, 128)),
}


def failure_of(path: Path, key: SourceKey) -> Failure:
    asked = Migration.model_validate({key: path, "vm_name": "web01"})
    with pytest.raises(Failure) as refused:
        read(asked)
    return refused.value


def read(asked: Migration) -> None:
    with Sources(asked.sources[0].parent) as sources:
        sources.open([disk.at for disk in read_machine(asked, sources).disks])


@pytest.mark.parametrize("given", SOURCE_KEYS)
@pytest.mark.parametrize("name", FILES)
def test_the_key_to_use(given: SourceKey, name: str, tmp_path: Path) -> None:
    key, content = FILES[name]
    if key == given:
        return
    path = tmp_path / name
    path.write_bytes(content)
    failure = failure_of(path, given)
    assert str(path) in failure.message and f"Use {key}: instead of {given}:" in failure.hint


def test_a_suffix_is_no_evidence_against_the_content(tmp_path: Path) -> None:
    path = tmp_path / "web01.ova"
    path.write_bytes(b"\x00" * 1024)
    assert "neither a tar archive" in failure_of(path, "ova").message
