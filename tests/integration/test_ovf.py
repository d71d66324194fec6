"""A machine from its OVF descriptor, by the whole one-shot migration: `h2kvmctl --config`."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.ctl import ctl
from tests.support.disks import sh
from tests.support.ovf_texts import System, controller, cpu, disk, envelope, memory, nic, setting
from tests.support.vmdk import full

SIZES = {"data": 1 << 20, "root": 3 << 20}
"""Bytes of the two disks: the descriptor lists the second one first."""


def export(folder: Path, capacities: Mapping[str, int]) -> Path:
    """As vSphere exports a machine: the controllers in reverse, the disks as streamOptimized VMDKs, a manifest."""
    folder.mkdir()
    for name, size in SIZES.items():
        raw = folder / f"{name}.raw"
        raw.write_bytes(full(size))
        sh("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, folder / f"web$-{name}.vmdk")
        raw.unlink()
    items = (
        cpu("3"),
        memory("512", "MegaBytes"),
        controller("11", address="1"),
        controller("10", address="0"),
        disk("20", "ovf:/disk/data", parent="11"),
        disk("21", "/disk/root", parent="10"),
        nic("30", mac="00:50:56:AA:BB:01"),
    )
    text = envelope(
        System(items, id="web", settings=setting("firmware", "bios")),
        files=[{"id_": name, "href": f"web%24-{name}.vmdk"} for name in SIZES],
        disks=[{"diskId": name, "fileRef": name, "capacity": str(size)} for name, size in capacities.items()],
    )
    (folder / "web.ovf").write_bytes(text)
    sums = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    (folder / "web.mf").write_text("".join(f"SHA256({name})= {digest}\n" for name, digest in sums))
    return folder / "web.ovf"


def migrated(folder: Path, ovf: Path) -> tuple[Path, dict[str, Any]]:
    """The output directory, with the bytes of both disks as they were; and the report."""
    config, images = folder / "web01.yaml", folder / "images"
    config.write_text(f"ovf: {ovf}\nvm_name: web01\nguest: none\nout_format: raw\noutput_dir: {images}\n")
    done = ctl("--config", config, "--conversion-dir", folder / "work", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (images / "web01.raw").read_bytes() == full(SIZES["root"])
    assert (images / "web01-disk2.raw").read_bytes() == full(SIZES["data"])
    report: dict[str, Any] = json.loads((images / "web01.report.json").read_text())
    return images, report


def test_a_machine_with_two_disks(tmp_path: Path) -> None:
    images, report = migrated(tmp_path, export(tmp_path / "export", SIZES))
    domain = ET.parse(images / "web01.xml").getroot()
    assert (domain.findtext("vcpu"), domain.findtext("memory")) == ("3", "512")
    assert [mac.get("address") for mac in domain.iter("mac")] == ["00:50:56:aa:bb:01"]
    plan = report["plan"]
    assert [one["address"]["controller"] for one in plan["machine"]["disks"]] == [0, 1]
    assert plan["concerns"] == []


def test_the_size_of_a_disk_is_its_own(tmp_path: Path) -> None:
    _, report = migrated(tmp_path, export(tmp_path / "export", {**SIZES, "root": 1 << 20}))
    (concern,) = report["plan"]["concerns"]
    assert concern["code"] == "capacity-differs" and "says 1.0 MiB: 3.0 MiB are used" in concern["message"]
