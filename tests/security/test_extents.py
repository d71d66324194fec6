"""Small files made to cost much: descriptors with lines without end, and paths without end."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.disk.faults import LARGEST_NUMBER_OF_EXTENTS
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host import mandate, way
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import READ, Person, lineage
from hyper2kvmd.host.way import way_to
from hyper2kvmd.model.disks import LocalFile
from tests.support.own_host import FOLDER_PREFIX
from tests.support.submitters import NOBODY, VICTIM
from tests.support.vmdk_images import descriptor, vmdk_source

ZERO = "RW 1 ZERO"


def write(path: Path, *extents: str, cid: str = "fffffffe", parent: tuple[str, str] | None = None) -> Path:
    path.write_bytes(descriptor("monolithicFlat", *extents, cid=cid, parent=parent))
    return path


def refused(path: Path) -> str:
    with pytest.raises(MigrationFailed) as caught, vmdk_source(path):
        pass
    return caught.value.code


def test_extents_without_end(tmp_path: Path) -> None:
    """104,000 fit into a descriptor, and cost half a kilobyte each; a machine may have hundreds of descriptors."""
    with vmdk_source(write(tmp_path / "largest.vmdk", *[ZERO] * LARGEST_NUMBER_OF_EXTENTS)) as source:
        assert source.virtual_size == 512 * LARGEST_NUMBER_OF_EXTENTS
    too_large = write(tmp_path / "too-large.vmdk", *[ZERO] * (LARGEST_NUMBER_OF_EXTENTS + 1))
    assert refused(too_large) == "source-too-complex"


def test_extents_without_end_in_a_chain(tmp_path: Path) -> None:
    lines = [ZERO] * (LARGEST_NUMBER_OF_EXTENTS // 2 + 1)
    write(tmp_path / "base.vmdk", *lines, cid="00000001")
    top = write(tmp_path / "top.vmdk", *lines, cid="00000002", parent=("00000001", "base.vmdk"))
    assert refused(top) == "source-too-complex"


def test_extents_with_bytes_in_common(tmp_path: Path) -> None:
    """A small fragmented file, named by many lines, would be looked through for each of them."""
    (tmp_path / "flat").write_bytes(b"\1" * 4096)
    with vmdk_source(write(tmp_path / "apart.vmdk", 'RW 4 FLAT "flat" 4', 'RW 4 FLAT "flat" 0')) as source:
        assert source.virtual_size == 4096
    assert refused(write(tmp_path / "common.vmdk", 'RW 4 FLAT "flat" 0', 'RW 4 FLAT "flat" 3')) == "source-corrupt"


def test_a_file_that_is_named_again_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same person and the same naming file: each look goes through all directories above it."""
    lookups = 0

    def counted(handle: int) -> Iterator[int]:
        nonlocal lookups
        lookups += 1
        return lineage(handle)

    monkeypatch.setattr(mandate, "lineage", counted)
    (tmp_path / "flat").write_bytes(b"\1" * 512 * 50)
    disk = write(tmp_path / "disk.vmdk", *(f'RW 1 FLAT "flat" {number}' for number in range(50)))
    tmp_path.chmod(0o755)
    with vmdk_source(disk, Mandate(Person.of(0))):
        assert lookups == 2, "once for the descriptor, once for its extent"


def test_a_disk_of_another_name_is_refused_before_others_are_opened(tmp_path: Path) -> None:
    """Each disk that is open costs memory."""
    first, second = tmp_path / "first.raw", tmp_path / "second.raw"
    first.write_bytes(bytes(4096))
    second.hardlink_to(first)
    with Sources(tmp_path) as sources, pytest.raises(MigrationFailed) as caught:
        sources.open([LocalFile(path=path) for path in (first, second, tmp_path / "missing.raw")])
    assert caught.value.code == "source-repeated"


def test_a_path_without_end(tmp_path: Path) -> None:
    """Links multiply the directories of a path; each costs a look at its permissions, with the service's time."""
    assert way.MAX_STEPS < 1024
    (tmp_path / "a").mkdir()
    longer = tmp_path.joinpath(*["a", ".."] * way.MAX_STEPS)
    with pytest.raises(OSError, match="too long") as caught, way_to(longer, None):
        pass
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.fixture
def shared() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_names_in_a_folder_that_may_be_searched_and_not_listed(shared: Path) -> None:
    (shared / "secret-project.vmx").touch()
    theirs = Mandate(Person.of(NOBODY))
    assert theirs.names_in(shared, 10) == ("secret-project.vmx",)
    shared.chmod(0o711)
    assert theirs.names_in(shared, 10) == ()
    assert Mandate().names_in(shared, 10) == ("secret-project.vmx",)


def test_names_in_a_folder_that_takes_the_place_of_another(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens between the look at the permissions and the list."""
    theirs, closed = shared / "theirs", shared / "closed"
    for folder, name in ((theirs, "web01.vmx"), (closed, "secret-project.vmx")):
        folder.mkdir()
        (folder / name).touch()
    shutil.chown(theirs, VICTIM)
    closed.chmod(0o700)
    judge = Person.may

    def exchanged(person: Person, wanted: int, target: int | Path) -> bool:
        granted = judge(person, wanted, target)
        if wanted == READ:
            theirs.rename(shared / "kept")
            theirs.symlink_to(closed)
        return granted

    monkeypatch.setattr(Person, "may", exchanged)
    assert Mandate(Person.of(NOBODY)).names_in(theirs, 10) == ("web01.vmx",)


def test_a_folder_of_many_files(shared: Path) -> None:
    for number in range(20):
        (shared / f"{number}.vmx").touch()
    assert len(Mandate(Person.of(NOBODY)).names_in(shared, 5)) == 5
