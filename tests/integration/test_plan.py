"""What `h2kvmctl plan` finds before anything is converted: what the host lacks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.ctl import ctl
from tests.support.disks import empty_disk
from tests.support.host import make_disk

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


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.rsplit(" ", 1)[-1] for line in done.stderr.splitlines()]


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


@pytest.mark.skipif(Path("/sys/module/nbd").exists(), reason="FUSE is not needed")
def test_both_programs_of_the_transport_are_named(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.raw", ("ext4",)).disks[0].path
    hidden = without("nbdfuse", "fusermount3")
    assert lines_of(plan(asked(tmp_path, disk), hidden=hidden)) == ["[tool-missing]", "[tool-missing]"]
