"""A real qemu-storage-daemon, confined, serving real images."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from hyper2kvmd.disk.qemu.export import Exporter, as_file, export
from hyper2kvmd.disk.qemu.nbd import NbdReader, NbdWriter
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.model.disks import LocalFile, Segment
from tests.support.host import MIB, command


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """8 MiB that repeat nowhere, also as tmp_path/disk.raw."""
    data = random.Random(7).randbytes(8 * MIB)  # noqa: S311 - bytes to recognise, no secret
    (tmp_path / "disk.raw").write_bytes(data)
    return data


def converted(tmp_path: Path, fmt: str, *options: str) -> Path:
    path = tmp_path / f"disk.{fmt}"
    command("qemu-img", "convert", "-f", "raw", "-O", fmt, *options, tmp_path / "disk.raw", path)
    return path


def write(exporter: Exporter, name: str, offset: int, data: bytes) -> int:
    """One NBD write; the server's error number."""
    found = exporter.negotiate(name)
    with found.sock as sock:
        sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 7, offset, len(data)) + data)
        return int(struct.unpack(">IIQ", sock.recv(16, socket.MSG_WAITALL))[1])


def serve(image: Path, fmt: Literal["qcow2", "vmdk"], work: Callable[[Exporter], object] = repr) -> None:
    """`work` while `image` is served beside itself."""
    with export(image, fmt, image.parent, exports={"": None}, writable=fmt == "qcow2") as exporter:
        work(exporter)


@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_is_read_in_place(tmp_path: Path, content: bytes, subformat: str) -> None:
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "disk.vmdk"
    command(
        "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", tmp_path / "disk.raw", path
    )
    files = tuple(path.parent.iterdir())
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    with (
        open_disk(LocalFile(path=path), tmp_path) as source,
        export(path, "vmdk", tmp_path, exports={"": None}, writable=False, opened=source.files) as exporter,
    ):
        with NbdReader(exporter.socket, "") as reader:
            assert reader.size == len(content)
            assert reader.read(0, len(content)) == content
            assert reader.read(1_000_001, 33) == content[1_000_001:1_000_034]
        assert write(exporter, "", 0, bytes(512)) != 0
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before


def test_what_is_written_is_in_the_image(tmp_path: Path, content: bytes) -> None:
    path = converted(tmp_path, "qcow2")
    with (
        export(path, "qcow2", tmp_path, exports={"": None}, writable=True) as exporter,
        NbdWriter(exporter.socket, "") as writer,
    ):
        writer.write(1_000_001, b"odd place")
        writer.write(0, b"start")
        writer.write(len(content) - 3, b"end")
        writer.flush()
        assert writer.read(1_000_000, 11) == content[1_000_000:1_000_001] + b"odd place" + content[1_000_010:1_000_011]
        with pytest.raises(MigrationFailed) as caught:
            writer.write(len(content) - 3, b"over")
        assert caught.value.code == "disk-range"
    expected = bytearray(content)
    expected[:5], expected[1_000_001:1_000_010], expected[-3:] = b"start", b"odd place", b"end"
    command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, tmp_path / "after.raw")
    assert (tmp_path / "after.raw").read_bytes() == expected


def test_a_read_only_export_refuses_a_write(tmp_path: Path, content: bytes) -> None:
    path = converted(tmp_path, "qcow2")
    with export(path, "qcow2", tmp_path, exports={"": None}, writable=False) as exporter:
        with NbdWriter(exporter.socket, "") as writer, pytest.raises(MigrationFailed) as caught:
            writer.write(0, b"start")
        assert caught.value.code == "image-write-failed"


def test_an_extent_outside_is_out_of_reach(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "disk.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW {len(content) // 512} FLAT "{secret}" 0\n'
    )
    with pytest.raises(MigrationFailed) as caught:
        serve(path, "vmdk")
    if run.confinement_available():
        assert caught.value.code == "exporter-failed"
        assert "Permission denied" in caught.value.message


def test_ranges_are_exact_and_writable_together(tmp_path: Path, content: bytes) -> None:
    image = converted(tmp_path, "qcow2")
    ranges = {"one": Segment(offset=MIB, length=MIB), "two": Segment(offset=3 * MIB, length=512)}
    with export(image, "qcow2", tmp_path, exports={"": None, **ranges}, writable=True) as exporter:
        for name, segment in ranges.items():
            with NbdReader(exporter.socket, name) as reader:
                assert reader.size == segment.length
                end = segment.offset + segment.length
                assert reader.read(0, segment.length) == content[segment.offset : end]
        assert write(exporter, "one", 0, b"A" * 512) == 0
        assert write(exporter, "two", 0, b"B" * 512) == 0
        assert write(exporter, "two", 512, b"C" * 512) != 0
        with pytest.raises(MigrationFailed) as caught:
            exporter.negotiate("three")
        assert caught.value.code == "nbd-refused"
    command("qemu-img", "check", "-f", "qcow2", image)
    command("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, tmp_path / "after")
    expected = bytearray(content)
    expected[MIB : MIB + 512] = b"A" * 512
    expected[3 * MIB : 3 * MIB + 512] = b"B" * 512
    assert (tmp_path / "after").read_bytes() == expected
    assert not list(tmp_path.glob("export-*"))


def test_an_image_in_use_is_locked(tmp_path: Path, content: bytes) -> None:
    image = converted(tmp_path, "qcow2")
    with export(image, "qcow2", tmp_path, exports={"": None}, writable=True):
        with pytest.raises(MigrationFailed) as caught:
            serve(image, "qcow2")
        assert "lock" in caught.value.message
        other = subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True)
        assert other.returncode != 0


@pytest.mark.parametrize(("writable", "least", "most"), [(True, 1, 3), (False, 0, 1)])
def test_an_image_does_not_grow_for_ever(writable: bool, least: int, most: int, tmp_path: Path, content: bytes) -> None:
    image = converted(tmp_path, "qcow2")
    with export(image, "qcow2", tmp_path, exports={"": None}, writable=writable) as exporter:
        limit, _ = resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE)
    assert least * len(content) < limit < most * len(content)


def test_what_is_not_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk.qcow2").write_bytes(b"no image" * 1000)
    with pytest.raises(MigrationFailed) as caught:
        serve(tmp_path / "disk.qcow2", "qcow2")
    assert caught.value.code == "image-damaged"
    assert "disk.qcow2" in caught.value.message
    assert not list(tmp_path.glob("export-*"))


def test_paths_of_any_length_and_spelling(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / ("long" * 30) / 'a,b=c "d" é'
    folder.mkdir(parents=True)
    image = folder / "disk,read-only=on.qcow2"
    command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "disk.raw", image)
    with (
        export(image, "qcow2", folder, exports={"": None}, writable=True) as exporter,
        NbdReader(exporter.socket, "") as reader,
    ):
        assert reader.read(0, 512) == content[:512]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_exporter_that_dies_is_an_error(tmp_path: Path, content: bytes, number: int) -> None:
    image = converted(tmp_path, "qcow2")

    def end(exporter: Exporter) -> None:
        os.kill(exporter.process.pid, number)
        exporter.process.wait()

    with pytest.raises(MigrationFailed) as caught:
        serve(image, "qcow2", end)
    assert caught.value.code == "exporter-died"


def test_the_failure_of_the_block_is_the_one_that_is_seen(tmp_path: Path, content: bytes) -> None:
    image = converted(tmp_path, "qcow2")
    seen = []

    def fail(exporter: Exporter) -> None:
        seen.append(exporter.process)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(image, "qcow2", fail)
    assert seen[0].returncode == 0


def kill_fuse_server_under(image: Path) -> None:
    with export(image, "qcow2", image.parent, exports={"": None}, writable=True) as exporter, as_file(exporter) as file:
        (server,) = (int(pid) for pid in command("pgrep", "-f", f"nbdfuse.*{exporter.folder}").split())
        os.kill(server, signal.SIGKILL)
        os.fsync(file)
        for offset in range(0, 8 * MIB, 4096):
            os.pread(file, 512, offset)


def test_a_fuse_server_that_is_killed_is_no_fault_of_the_guest(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MigrationFailed) as caught:
        kill_fuse_server_under(converted(tmp_path, "qcow2"))
    assert (caught.value.code, caught.value.kind) == ("fuse-died", Kind.RETRY)


@pytest.mark.parametrize(("tool", "code"), [("qemu-storage-daemon", "exporter-died"), ("nbdfuse", "fuse-died")])
def test_tools_that_are_killed_while_they_start(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, tool: str, code: str
) -> None:
    image, start = converted(tmp_path, "qcow2"), run.start

    def start_and_kill(argv: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
        process = start(argv, **settings)
        if argv[0] == tool:
            process.kill()
        return process

    monkeypatch.setattr(run, "start", start_and_kill)
    with (
        pytest.raises(MigrationFailed) as caught,
        export(image, "qcow2", tmp_path, exports={"": None}, writable=True) as exporter,
        as_file(exporter),
    ):
        pass
    assert (caught.value.code, caught.value.kind) == (code, Kind.RETRY)


def test_a_tool_that_is_killed_says_so_and_may_be_tried_again() -> None:
    with pytest.raises(MigrationFailed) as caught:
        run.run(["sh", "-c", "kill -9 $$"], check=False)
    assert (caught.value.code, caught.value.kind) == ("tool-killed", Kind.RETRY)
