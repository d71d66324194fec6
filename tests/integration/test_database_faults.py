"""What is wrong with the file of the database is told apart from what is wrong with its file system."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from hyper2kvmd.errors import BrokenInstallation, TryLater
from hyper2kvmd.jobs.backups import Backups
from hyper2kvmd.jobs.examine import examine
from hyper2kvmd.jobs.schema import MIGRATIONS
from hyper2kvmd.jobs.store import Store
from tests.support.house import House
from tests.support.queue_verbs import add

SIZE = "16m"


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@contextmanager
def mounted(place: Path, *words: object) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    run("mount", *words, place)
    try:
        yield place
    finally:
        run("umount", "--lazy", place)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "state", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs") as place:
        yield place


def address(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.sqlite3"


def refusal_of(folder: Path) -> str:
    with pytest.raises((TryLater, BrokenInstallation)) as refusal:
        Store(address(folder)).close()
    return str(getattr(refusal.value, "code", ""))


def fill_queue(store: Store) -> str:
    """The code of the error that ends it."""
    try:
        for number in range(1000):
            add(store, f"vm{number}")
    except TryLater as failure:
        return failure.code
    return ""


def test_a_full_file_system_is_no_damage(memory: Path) -> None:
    store = Store(address(memory))
    ballast = memory / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    assert fill_queue(store) == "database-unavailable"
    ballast.unlink()
    add(store, "last")
    store.close()


def test_a_start_on_a_read_only_file_system_is_tried_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    with mounted(tmp_path / "database", "-t", "tmpfs", "tmpfs") as place:
        Store(address(place)).close()
        (place / "jobs.sqlite3.lock").touch()
        run("mount", "-o", "remount,ro", place)
        house.configure(database_url=address(place), backups={"keep": 0})
        try:
            house.start(ready=False)
            assert house.process is not None and house.process.wait(90) == 75, "systemd starts it again"
            run("mount", "-o", "remount,rw", place)
            house.start()
            house.stop()
        finally:
            house.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 in an image file, and where it is mounted."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    with mounted(tmp_path / "mounted", "-o", "loop", image) as place:
        yield image, place


def test_a_file_system_that_went_read_only_is_no_damage(disk: tuple[Path, Path]) -> None:
    """As the kernel does to a file system after an error."""
    _, folder = disk
    store = Store(address(folder))
    add(store, "a")
    run("mount", "-o", "remount,abort", folder)
    with pytest.raises(TryLater) as refusal:
        add(store, "b")
    assert refusal.value.code == "database-unavailable"
    assert [job.vm_name for job in store.list()] == ["a"]
    store.close()


def overwrite(image: Path, place: int, data: bytes) -> bytes:
    """Change the image below the mounted file system, whose cache does not notice; return what was there."""
    with image.open("r+b") as file:
        file.seek(place)
        before = file.read(len(data))
        file.seek(place)
        file.write(data)
    return before


def test_damage_of_the_page_cache_is_no_damage_of_the_file(disk: tuple[Path, Path]) -> None:
    image, folder = disk
    path = folder / "jobs.sqlite3"
    store = Store(address(folder))
    for number in range(30):
        add(store, f"vm{number}")
    store.close()
    run("sync", "-f", folder)
    page = image.read_bytes().index(path.read_bytes()[4096:8192])
    examine(path)  # drops what is cached
    good = overwrite(image, page, b"\xa5" * 4096)
    assert examine(path).damage, "the disk is damaged, so the cache is now as well"
    assert refusal_of(folder) == "database-corrupt"
    with path.open("rb") as reader:
        reader.seek(4096)
        assert reader.read(4096) != good
        overwrite(image, page, good)
        reader.seek(4096)
        assert reader.read(4096) != good, "only the cache is damaged now"
    assert refusal_of(folder) == "database-unavailable"
    store = Store(address(folder))
    assert len(store.list()) == 30
    store.close()


def test_damage_is_found_on_the_disk_behind_a_good_cache(disk: tuple[Path, Path]) -> None:
    image, folder = disk
    path = folder / "jobs.sqlite3"
    Store(address(folder)).close()
    run("sync", "-f", folder)
    assert not examine(path).damage
    page = image.read_bytes().index(path.read_bytes()[4096:8192])
    overwrite(image, page, b"\xa5" * 4096)
    assert examine(path, "integrity_check").damage


def test_a_backup_is_made_before_an_upgrade_or_there_is_none(tmp_path: Path) -> None:
    path, folder = tmp_path / "jobs.sqlite3", tmp_path / "backups"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with create_engine(address(tmp_path)).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0017")
    folder.write_text("in the way")
    backups = Backups.of(path, folder, keep=2)
    with pytest.raises(TryLater) as refusal:
        Store(address(tmp_path), lambda _path: backups.before_steps())
    assert refusal.value.code == "backup-failed"
    folder.unlink()
    Store(address(tmp_path), lambda _path: backups.before_steps()).close()
    (made,) = backups.found()
    assert made.kind == "before-upgrade" and not examine(made.path).damage
    Store(address(tmp_path), lambda _path: backups.before_steps()).close()
    assert backups.found() == [made]
