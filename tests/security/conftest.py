"""Fixtures of the host and of the whole service, for attacks on both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.daemon import incoming
from hyper2kvmd.model.disks import Image
from tests.integration.daemon.conftest import house as house
from tests.support.host import USER, give, make_disk
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
from tests.support.named_files import folder as folder
from tests.support.own_host import FOLDER_PREFIX
from tests.support.own_host import own_host as own_host


@pytest.fixture
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that looks the same in two scans is taken, however soon they follow each other."""
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)


@pytest.fixture(scope="module")
def disk(installed_helper: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """One image for the whole module: nothing here may change it."""
    folder = Path(f"/var/tmp/{FOLDER_PREFIX}helper-{os.getpid()}")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, USER, USER)
    image = give(make_disk(folder / "disk.raw", ("ext4",)))
    yield image
    shutil.rmtree(folder)
