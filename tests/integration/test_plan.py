"""What `h2kvmctl plan` finds before anything is converted: what the host lacks, and the guest with its repairs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.guests import debian12
from tests.guests.altered import altered
from tests.guests.debian12 import Recipe
from tests.support.authenticode import vendor
from tests.support.ctl import ctl
from tests.support.disks import empty_disk, sh
from tests.support.foreign_disks import make, poke
from tests.support.host import make_disk
from tests.support.journals import copied_in_use
from tests.support.lvm import IDS, group, lv, physical_volume
from tests.support.virtio_win import tree

FIRMWARE, PROGRAMS = Path("/usr/share/qemu/firmware"), Path("/usr/bin")
NOTHING_HIDDEN: Mapping[Path, Path] = MappingProxyType({})


def without(*names: str) -> dict[Path, Path]:
    """Mounts that hide programs, as if they were not installed."""
    return {PROGRAMS / name: Path("/dev/null") for name in names}


def without_firmware(folder: Path) -> dict[Path, Path]:
    """A mount that hides the descriptions of UEFI firmware."""
    (folder / "empty").mkdir()
    return {FIRMWARE: folder / "empty"}


def asked(folder: Path, vmdk: Path, **keys: object) -> Path:
    path = folder / "web01.yaml"
    path.write_text(json.dumps({"vmdk": vmdk, **keys}, default=str))
    return path


def plan(file: Path, *words: str, hidden: Mapping[Path, Path] = NOTHING_HIDDEN) -> subprocess.CompletedProcess[str]:
    folder = file.parent
    places = ("--output-dir", folder / "out", "--conversion-dir", folder / "work")
    return ctl("plan", file, *places, *words, cwd=folder, mounts=hidden)


def planned(file: Path, hidden: Mapping[Path, Path] = NOTHING_HIDDEN) -> Any:
    done = plan(file, "--json", hidden=hidden)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)["plan"]


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.rsplit(" ", 1)[-1] for line in done.stderr.splitlines()]


def test_a_volume_with_a_part_on_a_disk_that_is_not_given(tmp_path: Path) -> None:
    """The second disk of a machine whose LVM spans two."""
    text = group(lv("root", 'type = "striped" stripe_count = 1 stripes = ["pv0", 0]'), physical=2)
    (tmp_path / "disk.raw").write_bytes(physical_volume(1, text))
    done = plan(asked(tmp_path, tmp_path / "disk.raw"), "--json")
    assert done.returncode == 1
    for code in ("volume-incomplete", "guest-root-missing"):
        line = next(line for line in done.stderr.splitlines() if f"[{code}]" in line)
        assert f"the physical volume {IDS[0]}" in line and "list them in vmdk:" in line


def test_all_that_is_missing_is_reported_at_once(tmp_path: Path) -> None:
    file = asked(tmp_path, empty_disk(tmp_path / "disk.raw", 16), verify="boot", uefi=True, libvirt_import=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/web01.qcow2").touch()
    hidden = without("qemu-system-x86_64", "virsh") | without_firmware(tmp_path)
    done, as_json = plan(file, hidden=hidden), plan(file, "--json", hidden=hidden)
    assert lines_of(done) == ["[tool-missing]", "[tool-missing]", "[output-exists]", "[firmware-missing]"]
    assert "Install the package qemu-system-x86." in done.stderr
    assert "Install the package libvirt-clients." in done.stderr
    assert "Install the package ovmf or edk2-ovmf." in done.stderr
    answer = json.loads(as_json.stdout)
    assert answer["error"]["code"] == "several-problems"
    assert answer["error"]["exit_code"] == done.returncode == 1
    assert [one["code"] for one in answer["problems"]] == [
        "tool-missing",
        "tool-missing",
        "output-exists",
        "firmware-missing",
    ]
    assert not (tmp_path / "work").exists()


def test_an_unreadable_source_does_not_hide_what_the_host_lacks(tmp_path: Path) -> None:
    done = plan(asked(tmp_path, tmp_path / "gone.vmdk"), hidden=without("qemu-img"))
    assert lines_of(done) == ["[tool-missing]", "[source-missing]"]


def test_one_missing_thing_keeps_its_own_code_and_exit_status(tmp_path: Path) -> None:
    file = asked(tmp_path, empty_disk(tmp_path / "disk.raw", 16), verify="boot")
    done = plan(file, hidden=without("qemu-system-x86_64"))
    assert (done.returncode, lines_of(done)) == (78, ["[tool-missing]"])


def test_what_only_other_migrations_need_may_be_missing(tmp_path: Path) -> None:
    file = asked(tmp_path, empty_disk(tmp_path / "disk.raw", 16), uefi=True)
    hidden = without("qemu-system-x86_64", "virsh", "nbdfuse") | without_firmware(tmp_path)
    assert planned(file, hidden)["guest"]["family"] == "none"


def test_secure_boot_needs_its_firmware_for_the_boot_proof(tmp_path: Path) -> None:
    """Hidden are the descriptions of firmware with enrolled keys: without Secure Boot, they are not needed."""
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"targets": [], "interface-types": [], "features": [], "mapping": {}}))
    hidden = {path: empty for path in FIRMWARE.glob("*.json") if "enrolled-keys" in path.read_text()}
    keys = {"verify": "boot", "uefi": True, "guest": "none"}
    disk = empty_disk(tmp_path / "disk.raw", 16)
    assert planned(asked(tmp_path, disk, **keys), hidden)["firmware"] == "uefi"
    done = plan(asked(tmp_path, disk, secure_boot=True, **keys), hidden=hidden)
    assert lines_of(done) == ["[firmware-missing]"]
    assert "no UEFI firmware with Secure Boot" in done.stderr
    assert [one["code"] for one in planned(asked(tmp_path, disk, secure_boot=True, **keys))["concerns"]] == [
        "secure-boot-keys-lost"
    ]


def test_secure_boot_without_uefi_is_refused(tmp_path: Path) -> None:
    done = plan(asked(tmp_path, empty_disk(tmp_path / "disk.raw", 16), secure_boot=True))
    assert (done.returncode, lines_of(done)) == (1, ["[secure-boot-impossible]"])


@pytest.mark.skipif(Path("/sys/module/nbd").exists(), reason="FUSE is not needed")
def test_both_programs_of_the_transport_are_named(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.raw", ("ext4",)).disks[0].path
    hidden = without("nbdfuse", "fusermount3")
    assert lines_of(plan(asked(tmp_path, disk), hidden=hidden)) == ["[tool-missing]", "[tool-missing]"]
    raw = plan(asked(tmp_path, disk, out_format="raw"), hidden=hidden)
    assert raw.returncode == 0
    assert "can only be inspected after the conversion: 2 problems" in raw.stdout


def test_a_program_that_only_this_guests_initramfs_needs_is_named(tmp_path: Path) -> None:
    def pack_with_zstd(root: Path) -> None:
        (initrd,) = root.glob("boot/initrd.img-*")
        sh("sh", "-c", f"gzip -dc {initrd} | zstd -q -1 >{tmp_path}/initrd")
        initrd.write_bytes((tmp_path / "initrd").read_bytes())

    file = asked(tmp_path, altered(Recipe(), tmp_path, pack_with_zstd).disks[0].path)
    assert planned(file)["guest"]["changes"]
    done = plan(file, hidden=without("zstd"))
    assert (done.returncode, lines_of(done)) == (78, ["[tool-missing]"])
    assert "the program zstd is not installed" in done.stderr


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(lvm=True)], ids=lambda recipe: recipe.guest.name)
def test_the_expected_repairs_are_those_that_are_made(recipe: Recipe, tmp_path: Path) -> None:
    source = debian12.vmdk(recipe) if not recipe.lvm else debian12.vmdk(recipe, "twoGbMaxExtentSparse")
    file = asked(tmp_path, source)
    expected = planned(file)["guest"]
    assert not (tmp_path / "out").exists()
    done = ctl("--config", file, "--output-dir", tmp_path / "out", "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/web01.report.json").read_text())
    assert expected["changes"]
    assert expected == report["guest"]


def test_people_see_the_guest_and_its_repairs(tmp_path: Path) -> None:
    shown = plan(asked(tmp_path, debian12.vmdk(Recipe()))).stdout
    assert "guest        Debian GNU/Linux 12 (bookworm)" in shown
    assert "1     yes   virtio  3.0 GiB  web01.qcow2" in shown.splitlines()
    table = shown[shown.index("expected repair") :].splitlines()
    assert {line.split()[0] for line in table[1:-1]} >= {"fstab", "grub-cfg", "initramfs"}
    assert "Repairing" not in shown and "Writing" not in shown


def test_a_dirty_journal_is_replayed_on_an_overlay_only(tmp_path: Path) -> None:
    running = make_disk(tmp_path / "running.raw", ("xfs",))

    def write(root: Path) -> Path:
        (root / "usr").mkdir()
        (root / "etc/os-release").write_text("ID=debian\nPRETTY_NAME='Debian in use'\n")
        return root / "etc/os-release"

    disk = copied_in_use(running, tmp_path / "disk.raw", write).disks[0].path
    before = disk.read_bytes()
    done = plan(asked(tmp_path, disk, regen_initramfs=False, fstab_mode="noop"))
    assert disk.read_bytes() == before
    assert "its journal will be replayed" in done.stdout, done.stdout + done.stderr


def test_a_disk_that_qemu_reads_as_another_is_planned_without_its_guest(tmp_path: Path) -> None:
    path = make(tmp_path, "vhd")
    table = int.from_bytes(path.read_bytes()[512 + 16 : 512 + 24], "big")
    first = int.from_bytes(path.read_bytes()[table : table + 4], "big")
    poke(path, first * 512, bytes(512))
    done = plan(asked(tmp_path, path))
    assert done.returncode == 0, done.stderr
    assert f"can only be inspected after the conversion: QEMU cannot read {path} as its hypervisor does" in done.stdout
    assert "expected repair" not in done.stdout


def test_a_disk_that_grows_needs_its_new_size(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "web01.raw", 64)
    reserved = {"guest": "none", "out_format": "raw", "sparse": "never"}
    before = planned(asked(tmp_path, disk, **reserved))
    after = planned(asked(tmp_path, disk, resize="+1G", **reserved))
    assert after["needed_bytes"] - before["needed_bytes"] == 1 << 30
    assert [concern["code"] for concern in after["concerns"]] == ["disk-grown"]


def test_a_disk_does_not_shrink(tmp_path: Path) -> None:
    done = plan(asked(tmp_path, empty_disk(tmp_path / "web01.raw", 64), guest="none", resize="63M"))
    assert done.returncode == 1
    assert lines_of(done)[-1] == "[resize-invalid]"


def test_drivers_for_windows_are_looked_at_before_the_conversion(tmp_path: Path) -> None:
    disk = empty_disk(tmp_path / "web01.raw", 64)
    drivers = tree(tmp_path / "virtio-win", vendor())
    found = planned(asked(tmp_path, disk, guest="none", virtio_win=drivers))
    codes = [one["code"] for one in found["concerns"]]
    assert "driver-signature-limited" not in codes, "it is said of Windows guests only"
    unsigned = tree(tmp_path / "unsigned", None)
    for path, code in (
        (unsigned, "driver-not-signed"),
        (disk, "virtio-win-unreadable"),
        ("/gone", "virtio-win-unreadable"),
    ):
        done = plan(asked(tmp_path, disk, guest="none", virtio_win=path))
        assert lines_of(done)[-1] == f"[{code}]", done.stderr
    assert not (tmp_path / "work").exists() and not (tmp_path / "out").exists()
