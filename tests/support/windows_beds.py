"""Windows disks for tests: each kind is built once in a run, and every test gets its own copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.guests.windows.disk import WindowsDisk, windows_disk
from tests.guests.windows.driver_disc import cached_disc
from tests.guests.windows.machine import Windows
from tests.guests.windows.states import Make
from tests.support.disks import sh


class Beds:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[Windows, WindowsDisk] = {}

    def disk(self, path: Path, windows: Windows = Windows(), *states: Make) -> WindowsDisk:  # noqa: B008 - frozen
        """A raw disk, brought into `states` one after the other."""
        if windows not in self._built:
            self._built[windows] = windows_disk(self._folder / f"{len(self._built)}.raw", windows)
        sh("cp", "--sparse=always", "--reflink=auto", self._built[windows].path, path)
        disk = replace(self._built[windows], path=path)
        for state in states:
            state(disk)
        return disk

    def vmdk(self, folder: Path, windows: Windows = Windows(), *states: Make) -> Path:  # noqa: B008 - frozen
        """The disk as VMware exports it, alone in a new folder."""
        folder.mkdir()
        raw, vmdk = folder.with_name(f"{folder.name}.raw"), folder / "win.vmdk"
        self.disk(raw, windows, *states)
        sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk)
        raw.unlink()
        return vmdk


@pytest.fixture(scope="session")
def windows_beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beds]:
    folder = tmp_path_factory.mktemp("windows")
    yield Beds(folder)
    sh("rm", "-r", folder)


@pytest.fixture(scope="session")
def virtio_win() -> Path:
    """A disc of drivers."""
    return cached_disc()
