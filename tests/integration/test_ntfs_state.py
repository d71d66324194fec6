"""The state of NTFS volumes, read by our own code, and what of it refuses a repair."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.volumes import check_windows
from hyper2kvmd.model.disks import Layout, Segment, Volume
from hyper2kvmd.volumes.mapping import linear
from hyper2kvmd.volumes.ntfs.records import NtfsRecords
from hyper2kvmd.volumes.ntfs.state import holds_loader, holds_registry, log_state, require_shut_down
from tests.support.disks import sh
from tests.support.host import MIB
from tests.support.ntfs import changed, disk_of, log_page, make_ntfs, mounted, opened, set_dirty, write_log

REGISTRY = "Windows/System32/config/SYSTEM"
SIZE = 32 * MIB


def with_files(path: Path, *files: str) -> Path:
    make_ntfs(path, SIZE)
    with changed(path) as volume:
        for file in files:
            folders = file.split("/")[:-1]
            for depth in range(len(folders)):
                folder = "/".join(folders[: depth + 1])
                if folder.split("/")[-1] not in volume.names("/".join(folders[:depth])):
                    volume.mkdir(folder)
            volume.write(file, file.encode())
    return path


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_files(tmp_path_factory.mktemp("volumes") / "c.img", REGISTRY)


@pytest.fixture
def volume(windows: Path, tmp_path: Path) -> Path:
    """A volume of Windows that was shut down."""
    return Path(shutil.copy(windows, tmp_path))


def refusal(path: Path) -> str:
    """The code of the refusal, or nothing."""
    try:
        with disk_of(path) as disk:
            require_shut_down("partition 2", disk)
    except MigrationFailed as failure:
        return failure.code
    return ""


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["bootmgr"], True),
        (["NTLDR"], True),
        ([REGISTRY], True),
        (["WINDOWS/system32/config/system"], True),
        (["photos/bootmgr", "Windows/notes.txt"], False),
    ],
)
def test_windows_is_told_from_a_data_disk(tmp_path: Path, files: list[str], found: bool) -> None:
    with disk_of(with_files(tmp_path / "c.img", *files)) as disk:
        assert (holds_loader(disk) or holds_registry(disk)) is found
        assert holds_registry(disk) is ("config" in files[0])


@pytest.mark.parametrize("options", [["--cluster-size", "512"], ["--cluster-size", "65536"], ["--sector-size", "4096"]])
def test_many_files_in_every_geometry_are_found(tmp_path: Path, options: list[str]) -> None:
    path = make_ntfs(tmp_path / "c.img", 64 * MIB, *options)
    names = [f"a file with a long name {number}.sys" for number in range(3000)]
    with changed(path) as volume:
        volume.mkdir("drivers")
        for name in names:
            volume.write(f"drivers/{name}", name.encode())
    with disk_of(path) as disk:
        records = NtfsRecords(disk)
        assert {name for name, _ in records._names(records.find("drivers") or 0)} == {name.upper() for name in names}
        for name in names[::500]:
            number = records.find(f"DRIVERS/{name}")
            assert number is not None and records.head(number, 100) == name.encode()


def test_a_scattered_mft_is_read(tmp_path: Path) -> None:
    """It grows into holes, when files have filled the volume and every other one was removed."""
    path = make_ntfs(tmp_path / "c.img", 6 * MIB, "--cluster-size", "1024")
    with mounted(path, tmp_path / "mnt", writable=True) as top:
        count = 0
        with contextlib.suppress(OSError):
            while True:
                (top / f"f{count}").write_bytes(bytes(1000))
                count += 1
        for number in range(0, count - 1, 2):
            (top / f"f{number}").unlink()
        more = count // 2 + 200
        for number in range(more):
            (top / f"g{number}").write_bytes(b"small")
    with disk_of(path) as disk:
        records = NtfsRecords(disk)
        assert len(records._mft.extents) > 20
        last = records.find(f"g{more - 1}")
        assert last is not None and records.head(last, 100) == b"small"


def test_a_volume_that_was_shut_down_is_accepted(volume: Path) -> None:
    assert refusal(volume) == ""


@pytest.mark.parametrize("mark", [b"HIBR", b"hibr", b"RSTR", b"rstr", b"WAKE", b"wake"])
def test_a_hibernated_windows_is_refused(volume: Path, mark: bytes) -> None:
    with changed(volume) as session:
        session.write("Hiberfil.sys", mark + bytes(8192))
    assert refusal(volume) == "guest-hibernated"


@pytest.mark.parametrize("mark", [b"RSTR", b"WAKE"])
def test_a_windows_without_hibernation_is_accepted(volume: Path, mark: bytes) -> None:
    """`powercfg /h off` removes the file. A shutdown alone leaves it, so that is no remedy by itself."""
    with changed(volume) as session:
        session.write("hiberfil.sys", mark + bytes(8192))
    with pytest.raises(MigrationFailed) as failure, disk_of(volume) as disk:
        require_shut_down("partition 2", disk)
    hint = failure.value.hint or ""
    assert 0 < hint.index("`powercfg /h off`") < hint.index("`shutdown /s /t 0`") < hint.index("export it again")
    with changed(volume) as session:
        session.unlink("hiberfil.sys")
    assert refusal(volume) == ""


def test_an_empty_hibernation_file_is_none(volume: Path) -> None:
    with changed(volume) as session:
        session.write("hiberfil.sys", bytes(8192))
    assert refusal(volume) == ""


def test_a_dirty_volume_is_refused(volume: Path) -> None:
    set_dirty(volume)
    assert refusal(volume) == "windows-unclean"
    assert "0x0001" in sh("ntfsinfo", "-f", "-m", volume)


@pytest.mark.parametrize(
    ("pages", "state"),
    [
        ([log_page(1, closed=True)], "clean"),
        ([log_page(1, closed=False)], "unfinished"),
        ([log_page(1, closed=False, clients=0xFFFF)], "clean"),
        ([log_page(1, closed=True, version=2)], "fast startup"),
        ([log_page(1, closed=True), log_page(2, closed=False)], "unfinished"),
        ([log_page(3, closed=True), log_page(2, closed=False)], "clean"),
        ([log_page(1, closed=False), log_page(2, closed=True, version=2)], "fast startup"),
        ([bytes(4096)], "unfinished"),
        ([b"RSTR" + bytes(4092)], "unfinished"),
    ],
)
def test_the_newer_restart_page_decides(volume: Path, pages: list[bytes], state: str) -> None:
    write_log(volume, pages)
    with disk_of(volume) as disk:
        assert log_state(NtfsRecords(disk)) == state
    refused = {"clean": "", "unfinished": "windows-unclean", "fast startup": "guest-hibernated"}
    assert refusal(volume) == refused[state]


def test_the_library_opens_a_volume_with_a_closed_log(volume: Path) -> None:
    write_log(volume, [log_page(1, closed=True)])
    with opened(volume) as session:
        assert session.names("") and not refusal(volume)


@pytest.mark.parametrize("page", [log_page(1, closed=False), log_page(1, closed=True, version=2)])
def test_the_library_refuses_an_open_log_as_well(volume: Path, page: bytes) -> None:
    write_log(volume, [page])
    with pytest.raises(MigrationFailed) as failure, opened(volume):
        pass
    assert failure.value.code == "ntfs-damaged" and refusal(volume)


def partition(number: int, content: str = "ntfs", kind: str = "07") -> Volume:
    place = linear(Segment(offset=0, length=SIZE))
    return Volume(
        kind="partition", name=f"partition {number}", number=number, stretches=place, content=content, parttype=kind
    )


def outcome(volumes: list[Volume], path: Path) -> tuple[str, list[str]]:
    """`Windows`, `none` or the code of the refusal, and the codes of concerns."""
    with disk_of(path) as disk:
        try:
            found, concerns = check_windows(Layout(tables=("dos",), volumes=tuple(volumes)), lambda _: disk)
        except MigrationFailed as failure:
            return failure.code, []
    return "Windows" if found else "none", [concern.code for concern in concerns]


LDM, SPACES = "af9b60a0-1431-4f62-bc68-3311714a69ad", "e75caf8f-f680-4cee-afa3-b001e56efc2d"
HIDDEN = [
    (partition(2, "BitLocker"), "windows-bitlocker"),
    (partition(2, "unknown", "42"), "windows-dynamic-disk"),
    (partition(2, "unknown", LDM), "windows-dynamic-disk"),
    (partition(2, "unknown", SPACES), "windows-storage-spaces"),
]


@pytest.mark.parametrize(("hidden", "code"), HIDDEN)
def test_windows_out_of_reach_is_refused_by_name(volume: Path, tmp_path: Path, hidden: Volume, code: str) -> None:
    data = make_ntfs(tmp_path / "d.img", SIZE)
    assert outcome([partition(1), hidden], data) == (code, [])
    assert outcome([hidden], data) == (code, [])
    assert outcome([partition(1, "ext4"), hidden], data) == ("none", [])
    assert outcome([partition(1), hidden], volume) == ("Windows", ["windows-volume-unread"])


def test_windows_on_a_dynamic_disk_is_refused(volume: Path) -> None:
    assert outcome([partition(1, kind="42")], volume) == ("windows-dynamic-disk", [])


def test_only_the_volume_of_windows_has_to_be_clean(volume: Path, tmp_path: Path) -> None:
    assert outcome([partition(1)], volume) == ("Windows", [])
    data = make_ntfs(tmp_path / "d.img", SIZE)
    set_dirty(data)
    assert outcome([partition(1)], data) == ("none", [])
    set_dirty(volume)
    assert outcome([partition(1)], volume) == ("windows-unclean", [])


def test_a_windows_in_another_folder_is_named(volume: Path, tmp_path: Path) -> None:
    """Only if there is no other system: it may be a copy."""
    old = with_files(tmp_path / "d.img", "photos/System32/config/notes.txt", "WinNT/System32/config/SYSTEM", "bootmgr")
    assert outcome([partition(1)], old) == ("windows-folder-unsupported", [])
    assert outcome([partition(1), partition(2, "ext4")], old) == ("none", [])
    with disk_of(old) as disk, pytest.raises(MigrationFailed, match=r"has a Windows in the folder \\WINNT: only"):
        check_windows(Layout(tables=("dos",), volumes=(partition(1),)), lambda _: disk)
    with disk_of(volume) as good, disk_of(old) as copy:
        layout = Layout(tables=("dos",), volumes=(partition(1), partition(2)))
        assert check_windows(layout, lambda one: good if one.number == 1 else copy) == (True, ())


def test_a_damaged_volume_of_data_stays_as_it_is(volume: Path, tmp_path: Path) -> None:
    """Next to Linux, or next to a Windows on another volume."""
    harmed = tmp_path / "d.img"
    data = bytearray(volume.read_bytes())
    data[11:13] = bytes(2)
    harmed.write_bytes(data)
    assert outcome([partition(1)], harmed) == ("ntfs-damaged", [])
    assert outcome([partition(1), partition(2, "ext4")], harmed) == ("none", [])
    with disk_of(volume) as good, disk_of(harmed) as bad:
        layout = Layout(tables=("dos",), volumes=(partition(1), partition(2)))
        found, concerns = check_windows(layout, lambda one: good if one.number == 1 else bad)
    assert found and [concern.code for concern in concerns] == ["windows-volume-unread"]
    assert "damaged" in concerns[0].message


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:3] + b"EXFAT   " + data[11:],
        lambda data: data[:11] + bytes(2) + data[13:],
        lambda data: data[:48] + b"\xff" * 8 + data[56:],
        lambda data: data[:64] + b"\x7f" + data[65:],
        lambda data: data[:1000],
    ],
)
def test_a_damaged_volume_is_refused(volume: Path, harm: Callable[[bytes], bytes]) -> None:
    volume.write_bytes(harm(volume.read_bytes()))
    assert refusal(volume) == "ntfs-damaged"
