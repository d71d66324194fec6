"""A guest in an OVA: the same image as from its VMDK, although the VMDK is never unpacked."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.guests import debian12
from tests.guests.migration import changed_what_it_must, migrated
from tests.support.disks import sh
from tests.support.ova import Disk, as_tar, envelope, manifest


def test_a_guest_in_an_ova(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    recipe = debian12.Recipe()
    bare = Path(shutil.copy(debian12.vmdk(recipe, "streamOptimized"), service_folder / "web01.vmdk"))
    size = int(sh("qemu-img", "info", bare).partition("virtual size: ")[2].partition("(")[2].split()[0])
    files = {"web01.ovf": envelope(Disk(size, "web01-disk1.vmdk")), "web01-disk1.vmdk": bare.read_bytes()}
    ova = service_folder / "web01.ova"
    before = as_tar({**files, "web01.mf": manifest(files)})
    ova.write_bytes(before)

    report = migrated([ova], "packed", ova=ova, verify="content")

    assert ova.read_bytes() == before
    assert report["plan"]["machine"]["name"] == "web01"
    assert report["plan"]["disks"][0]["files"][0]["window"]["member"] == "web01-disk1.vmdk"
    evidence = report["verdict"]["evidence"]
    assert f"the SHA256 of {ova}/web01-disk1.vmdk is that of web01.mf" in evidence
    assert any("spread over the disk read the same, the source read by QEMU" in line for line in evidence), evidence
    same = f"all {size} bytes read the same from source and image"
    assert same in evidence
    changed_what_it_must(report, recipe.guest)
    expected = migrated([bare], "bare", verify="content")
    assert same in expected["verdict"]["evidence"]
    assert report["guest"]["changes"] == expected["guest"]["changes"]
    assert report["plan"]["layout"] == expected["plan"]["layout"]
