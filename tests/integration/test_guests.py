"""The guests that the other tests rely on are what they claim to be: well under VMware's controller, and only there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.guests.debian12 import Recipe, Subformat, disk, vmdk


def qemu_img_info(path: Path) -> dict[str, object]:
    argv = ["qemu-img", "info", "--output=json", "-f", "vmdk", str(path)]
    info: dict[str, object] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return info


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(Recipe(), id="partitions"), pytest.param(Recipe(lvm=True), id="lvm", marks=pytest.mark.slow)],
)
def test_the_broken_guest_boots_from_vmwares_own_controller(tmp_path: Path, recipe: Recipe) -> None:
    overlay = tmp_path / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk(recipe)), str(overlay)]
    subprocess.run(create, check=True)
    argv = ["timeout", "300", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"]
    argv += ["-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-serial", "stdio"]
    argv += ["-drive", f"if=none,id=disk,format=qcow2,file={overlay}"]
    argv += ["-device", "pvscsi", "-device", "scsi-hd,drive=disk"]
    said = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"web01 login:" not in said and (data := os.read(process.stdout.fileno(), 65536)):
            said += data
        process.terminate()  # timeout passes it on; a kill would leave the emulator behind
    assert b"web01 login:" in said
    assert b"FAILED" not in said


@pytest.mark.parametrize("subformat", Subformat.__args__)  # type: ignore[attr-defined]
def test_each_vmdk_subformat_holds_the_same_disk(subformat: Subformat) -> None:
    path = vmdk(Recipe(), subformat)
    specific = qemu_img_info(path)["format-specific"]
    assert isinstance(specific, dict)
    assert specific["data"]["create-type"] == subformat
    compare = ["qemu-img", "compare", "-q", "-f", "vmdk", "-F", "raw", str(path), str(disk(Recipe()))]
    subprocess.run(compare, check=True)


def test_a_guest_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = disk(Recipe())
    before = first.stat()
    monkeypatch.setenv("PATH", "")  # nothing could be built now
    assert disk(Recipe()) == first
    assert first.stat() == before
