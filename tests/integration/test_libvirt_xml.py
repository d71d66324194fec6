"""A machine from the XML of its libvirt domain, by the whole one-shot migration."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.support.ctl import ctl
from tests.support.disks import sh
from tests.support.sources import content

NOBODY = 65534
MAC = "52:54:00:01:02:03"


def test_the_same_machine_comes_out(tmp_path: Path) -> None:
    first, second = content(1, 1 << 20), content(2, 2 << 20)
    (tmp_path / "data.raw").write_bytes(first)
    (tmp_path / "system.raw").write_bytes(second)
    (tmp_path / "shop.xml").write_text(f"""<domain type="kvm"><name>shop</name><memory unit="MiB">768</memory>
        <vcpu>3</vcpu><devices>
        <disk type="file"><source file="{tmp_path}/data.raw"/><target dev="vda" bus="virtio"/></disk>
        <disk type="file"><source file="{tmp_path}/system.raw"/><target dev="vdb"/><boot order="1"/></disk>
        <interface type="network"><mac address="{MAC}"/><source network="default"/></interface>
        </devices></domain>""")
    config = tmp_path / "new.yaml"
    config.write_text(
        f"command: libvirt-xml\nlibvirt_xml: {tmp_path}/shop.xml\nguest: none\nout_format: raw\n"
        f"output_dir: {tmp_path}/out\nmanifest_filename: manifest.json\n"
    )
    done = ctl("--config", config, "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert (out / "new.raw").read_bytes() == second
    assert (out / "new-disk2.raw").read_bytes() == first
    made = ET.parse(out / "new.xml").getroot()
    assert (made.findtext("memory"), made.findtext("vcpu")) == ("768", "3")
    macs = [one.get("address") for one in made.iterfind("devices/interface/mac")]
    assert macs == [MAC]
    assert "manifest_filename has no effect here" in json.dumps(json.loads((out / "new.report.json").read_text()))


def test_the_owner_of_the_xml_must_be_able_to_read_the_disks(tmp_path: Path) -> None:
    disk, xml = tmp_path / "secret.raw", tmp_path / "shop.xml"
    disk.write_bytes(content(1, 1 << 20))
    disk.chmod(0o600)
    xml.write_text(f"<domain><name>s</name><devices><disk><source file='{disk}'/></disk></devices></domain>")
    os.chown(xml, NOBODY, NOBODY)
    config = tmp_path / "new.yaml"
    config.write_text(f"libvirt_xml: {xml}\noutput_dir: {tmp_path}/out\n")
    done = ctl("--config", config, "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "[named-file-not-readable]" in done.stderr


def test_the_guest_of_a_raw_disk_does_not_choose_how_it_is_read(tmp_path: Path) -> None:
    """The name shows no format, and the guest can write any header."""
    disk, xml = tmp_path / "shop", tmp_path / "shop.xml"
    sh("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")
    source = f"<driver name='qemu' type='raw'/><source file='{disk}'/>"
    xml.write_text(f"<domain><name>s</name><devices><disk type='file'>{source}</disk></devices></domain>")
    config = tmp_path / "new.yaml"
    config.write_text(f"libvirt_xml: {xml}\nguest: none\noutput_dir: {tmp_path}/out\n")
    done = ctl("--config", config, "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode != 0
    assert "is raw for its machine, but has the content of qcow2" in done.stderr
    assert "[source-format-differs]" in done.stderr
    assert not (tmp_path / "out").exists()
