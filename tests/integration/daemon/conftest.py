from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Folders and a configuration; the test starts the daemon."""
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


@pytest.fixture
def small_disk(house: House) -> Iterator[House]:
    """A conversion directory on a file system of 64 MiB."""
    house.conversions.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "h2k-test", house.conversions], check=True)
    yield house
    house.close()
    subprocess.run(["umount", "-l", house.conversions], check=True)
