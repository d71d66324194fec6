"""Initramfs files of several archives, as agents, boot tools and administrators leave them: the kernel decides."""

from __future__ import annotations

import io
import lzma
import os
import resource
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux import frames, initrd
from hyper2kvmd.host import run
from tests.support.broken_initrd import COMPRESSORS, BrokenGuest, pack, tool
from tests.support.guest_on_disk import put

KINDS = {
    **COMPRESSORS,
    "lzop": ["lzop", "-q"],
    "zstd with checksum, long": ["zstd", "-q", "-19", "--long=27", "--check"],
    "zstd in one segment": ["zstd", "-q", "--no-check", "--content-size"],
    "lz4 high": ["lz4", "-l", "-9", "-q"],
}
NOT_OF_THE_KERNEL = {"lz4 frame": ["lz4", "-q"], "lz4 frame, all sums": ["lz4", "-q", "-BX", "--content-size", "-B4"]}
ZEROS = {"none": 0, "a word": 4, "many": 700}


class Pieces(BrokenGuest):
    """A broken guest whose initrd is put together from archives."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.early = pack(folder / "early")
        put(folder / "extra", "etc/admin/note", "hello\n")
        self.extra = pack(folder / "extra")

    def main(self, kind: str) -> bytes:
        return tool(*{**KINDS, **NOT_OF_THE_KERNEL}[kind], data=pack(self.stage))

    def write(self, *pieces: bytes) -> None:
        self.original = b"".join(pieces)
        self.initrd.write_bytes(self.original)

    def inserted(self, place: int) -> bytes:
        """The archive that the repair has put before this byte of the original."""
        data, rest = self.initrd.read_bytes(), self.original[place:]
        assert data.startswith(self.original[:place])
        assert data.endswith(rest)
        added = data[place : len(data) - len(rest)]
        if added.startswith(frames.LZ4_LEGACY):
            return tool("lz4", "-dcq", data=added)
        return tool("gzip", "-dc", data=added.lstrip(b"\0"))


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def holds_virtio(archive: bytes) -> bool:
    return any(name.endswith("/virtio_blk.ko") for name in tool("cpio", "-t", "--quiet", data=archive).decode().split())


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_behind_the_main_archive(kind: str, zeros: str, tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    main = guest.early + guest.main(kind)
    guest.write(main, bytes(ZEROS[zeros]))
    found = guest.repair()
    assert found.warnings == ()
    assert holds_virtio(guest.inserted(len(main) if kind.startswith("lz4") else len(guest.original)))
    assert guest.repair().changes == ()


@pytest.mark.parametrize("second", ["none", "gzip", "xz", "zstd", "bzip2", "lz4", "lzop"])
@pytest.mark.parametrize("kind", KINDS)
def test_another_archive_behind_the_main_one(kind: str, second: str, tmp_path: Path) -> None:
    """What it overrides counts: here, a stale resume device."""
    guest = Pieces(tmp_path)
    put(tmp_path / "extra", "conf/conf.d/resume", "RESUME=/dev/sda5 # of the administrator\n")
    extra = tool(*KINDS[second], data=pack(tmp_path / "extra"))
    mark = bytes(4) if kind.startswith("lz4") else b""  # without it the kernel takes anything for another block
    main = aligned(guest.main(kind) + mark)
    guest.write(guest.early, main, extra)
    assert guest.repair().warnings == ()
    archive = guest.inserted(len(guest.original))
    assert holds_virtio(archive)
    tool("cpio", "-id", "--quiet", data=archive, cwd=put(tmp_path / "seen", "x", "").parent)
    assert "of the administrator" in (tmp_path / "seen/conf/conf.d/resume").read_text()


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_the_kernel_does_not_reach_after_lz4_is_said(kind: str, tmp_path: Path) -> None:
    """It takes the archive for a block of lz4, and boots without it. Ours has to be before that."""
    guest = Pieces(tmp_path)
    main = guest.early + guest.main("lz4")
    guest.write(main, tool(*KINDS[kind], data=guest.extra), bytes(700))
    (warning,) = guest.repair().warnings
    assert f"first {len(main)} bytes only" in warning
    assert holds_virtio(guest.inserted(len(main)))
    assert guest.repair().changes == ()


GARBAGE = {
    "text": b"signature of a backup tool\n",
    "random": bytes(range(1, 256)) * 5,
    "lz4 frame magic": frames.LZ4_FRAME + b"x" * 40,
    "a broken gzip": b"\x1f\x8b\x08\x00" + b"no deflate here" * 9,
    "a broken zstd": frames.ZSTD + b"\xff" * 60,
    "half a cpio header": b"070701" + b"0" * 30,
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("kind", ["none", "gzip", "xz", "zstd"])
def test_garbage_behind_the_archives_is_said_and_ours_is_before_it(kind: str, garbage: str, tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    main = guest.main(kind)
    if kind == "none":
        main = aligned(main.rstrip(b"\0") + b"\0")  # cpio adds zeros
    guest.write(guest.early, main, bytes(8), GARBAGE[garbage])
    (warning,) = guest.repair().warnings
    start = len(guest.original) - len(GARBAGE[garbage])
    assert f"byte {start}" in warning
    assert holds_virtio(guest.inserted(len(guest.early) + len(main)))
    assert guest.repair().changes == ()


def test_a_plain_archive_that_is_not_aligned_is_not_reached(tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    main = aligned(guest.main("gzip"))
    guest.write(main, b"\0", guest.extra)
    (warning,) = guest.repair().warnings
    assert f"byte {len(main) + 1}, not at a multiple of four" in warning
    assert holds_virtio(guest.inserted(len(main)))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_main_archive_that_cannot_be_read_is_not_taken_for_one_without_modules(garbage: str, tmp_path: Path) -> None:
    """Here the microcode is sound, and the guest boots from what follows."""
    guest = Pieces(tmp_path)
    guest.write(guest.early, GARBAGE[garbage])
    with pytest.raises(MigrationFailed) as caught:
        guest.repair()
    assert caught.value.code == "initrd-damaged"
    assert f"byte {len(guest.early)}" in caught.value.message
    assert guest.initrd.read_bytes() == guest.original


@pytest.mark.parametrize("cut", [1, 30, 2000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_main_archive_is_named(kind: str, cut: int, tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    put(guest.stage, "bin/busybox", os.urandom(300_000))
    whole = guest.main(kind)
    guest.write(guest.early, whole[: -cut - 600])
    with pytest.raises(MigrationFailed) as caught:
        guest.repair()
    assert caught.value.code == "initrd-damaged"
    assert f"archive at byte {len(guest.early)}" in caught.value.message


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "lzop", "bzip2"])  # lz4 as the kernel reads it has no checksum
def test_a_damaged_main_archive_is_named(kind: str, tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    put(guest.stage, "bin/busybox", os.urandom(300_000))
    data = bytearray(guest.main(kind))
    at = len(data) // 2
    data[at : at + 300] = os.urandom(300)
    guest.write(guest.early, bytes(data))
    with pytest.raises(MigrationFailed) as caught:
        guest.repair()
    assert caught.value.code == "initrd-damaged"
    assert f"{kind.removesuffix('op')}" in caught.value.message
    assert f"archive at byte {len(guest.early)}" in caught.value.message


@pytest.mark.parametrize("kind", NOT_OF_THE_KERNEL)
def test_archives_that_only_tools_unpack_are_read_all_the_same(kind: str, tmp_path: Path) -> None:
    guest = Pieces(tmp_path)
    guest.write(guest.early, guest.main(kind), bytes(4), guest.main("gzip"))
    assert guest.repair().warnings == ()
    assert holds_virtio(guest.inserted(len(guest.original)))


def test_messages_of_a_tool_are_not_data(tmp_path: Path) -> None:
    """A note on stderr in the middle of the archive shifted everything behind it."""
    data = tmp_path / "data"
    data.write_bytes(b"abc" * 100_000 + b"not for you")
    script = 'while read -r -N 10000 part; do printf %s "$part"; echo note >&2; done; exit 3'
    with data.open("rb") as file, run.filtered(["bash", "-c", script], file.fileno(), 3, 300_000) as tool_running:
        seen = b""
        while more := tool_running.read(65536):
            seen += more
        assert tool_running.complaint() == " / ".join(["note"] * 29)
    assert seen == (b"abc" * 100_000)[3:290_003]


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd", "lz4"])
def test_a_bomb_needs_no_memory(kind: str, tmp_path: Path) -> None:
    """Half a GiB of zeros in one file of the archive."""
    guest = Pieces(tmp_path)
    with put(guest.stage, "bomb", b"").open("wb") as file:
        file.truncate(512 << 20)
    names = tool("find", ".", "-print0", cwd=guest.stage)
    argv = f"cpio -o -H newc -0 --quiet | {' '.join(KINDS[kind])}"
    guest.write(tool("sh", "-c", argv, data=names, cwd=guest.stage))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guest.repair()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert holds_virtio(guest.inserted(len(guest.original)))


def test_names_without_end(tmp_path: Path) -> None:
    """Millions of names pack to nearly nothing."""
    one = io.BytesIO()
    name = b"x" * 4000
    for number in range(40_000):
        label = b"%08d" % number + name + b"\0"
        fields = (number, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(label), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields)
        one.write(header + label + bytes(-(len(header) + len(label)) % 4))
    path = tmp_path / "initrd"
    path.write_bytes(lzma.compress(one.getvalue(), check=lzma.CHECK_CRC32))
    with path.open("rb") as file, pytest.raises(MigrationFailed, match="names and settings of more than 64 MiB"):
        initrd.read(file, lambda _: True)
