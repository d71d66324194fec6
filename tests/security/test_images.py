"""Images that reach for other files: refused by the real program, and harmless to tools that open them all the same."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.sources.foreign import ForeignSource
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.run import Sandbox, run
from hyper2kvmd.model.disks import LocalFile, SourceFormat
from hyper2kvmd.stages.convert import prove_same
from tests.support.converting import run_convert
from tests.support.disks import sh
from tests.support.host import MIB, USER, as_service
from tests.support.service import PROGRAMS
from tests.support.vmdk_images import SECTOR, descriptor, hosted

SECRET = b"the host's own secret "
SECTORS = 2048
Maker = Callable[[Path, Path], Path]


def vmdk(*lines: str, parent: tuple[str, str] | None = None) -> Maker:
    """A descriptor; `SECRET` in it is the path of the file that it must not reach."""

    def make(folder: Path, secret: Path) -> Path:
        text = descriptor("monolithicFlat", *(line.replace("SECRET", str(secret)) for line in lines))
        if parent is not None:
            hint = parent[1].replace("SECRET", str(secret))
            text = descriptor("monolithicSparse", *lines, parent=(parent[0], hint))
        path = folder / "disk.vmdk"
        path.write_bytes(text)
        return path

    return make


def linked_extent(folder: Path, secret: Path) -> Path:
    (folder / "flat.vmdk").symlink_to(secret)
    return vmdk(f'RW {SECTORS} FLAT "flat.vmdk" 0')(folder, secret)


def linked_source(folder: Path, secret: Path) -> Path:
    (folder / "disk.raw").symlink_to(secret)
    return folder / "disk.raw"


def header_with_flat_descriptor(folder: Path, secret: Path) -> Path:
    data = bytearray(hosted({0: b"x" * 65536}, SECTORS).data)
    at = data.index(b"RW ")
    line = f'RW {SECTORS} FLAT "{secret}" 0\n'.encode()
    data[at : at + len(line)] = line
    (folder / "disk.vmdk").write_bytes(data)
    return folder / "disk.vmdk"


def header_of_nothing(folder: Path, secret: Path) -> Path:
    """To QEMU a header without a capacity is but the wrapping of a descriptor, which may name any file."""
    path = poked(lambda *_: header_with_flat_descriptor(folder, secret), 12, bytes(8))(folder, secret)
    text = descriptor("monolithicFlat", f'RW {SECTORS} FLAT "{secret}" 0')
    return poked(lambda *_: path, SECTOR, text.ljust(20 * SECTOR, b"\0"))(folder, secret)


def fifo_extent(folder: Path, secret: Path) -> Path:
    os.mkfifo(folder / "flat.vmdk")
    return vmdk(f'RW {SECTORS} FLAT "flat.vmdk" 0')(folder, secret)


def device_extent(folder: Path, secret: Path) -> Path:
    os.mknod(folder / "flat.vmdk", 0o20666, os.makedev(1, 5))
    return vmdk(f'RW {SECTORS} FLAT "flat.vmdk" 0')(folder, secret)


def qcow2(*options: str) -> Maker:
    def make(folder: Path, secret: Path) -> Path:
        path = folder / "disk.qcow2"
        sh("qemu-img", "create", "-q", "-f", "qcow2", *(o.replace("SECRET", str(secret)) for o in options), path, "1M")
        return path

    return make


def poked(make: Maker, at: int, data: bytes) -> Maker:
    """What qemu-img would not write itself."""

    def made(folder: Path, secret: Path) -> Path:
        path = make(folder, secret)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)
        return path

    return made


def named_backing(name: str) -> Maker:
    """A QCOW2 whose header names any backing file, such as qemu-img itself would check first."""

    def make(folder: Path, secret: Path) -> Path:
        path = qcow2()(folder, secret)
        text = name.replace("SECRET", str(secret)).encode()
        with path.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack(">QI", 512, len(text)))
            file.seek(512)
            file.write(text)
        return path

    return make


def guest_wrote_a_header(folder: Path, secret: Path) -> Path:
    """A raw disk that begins as a QCOW2 with a backing file, as a guest with root can make it."""
    path = qcow2("-b", "SECRET", "-F", "raw")(folder, secret)
    return path.rename(folder / "disk.raw")


def bomb(folder: Path, secret: Path) -> Path:
    """Every grain of 8 MiB is the same few KiB of deflate: more than any deflate of so small a file could hold."""
    path, grain, count = folder / "disk.vmdk", 16384, 1100
    image = hosted({0: bytes(grain * SECTOR)}, grain * count, grain=grain, packed=True, marked=False)
    data = bytearray(image.data)
    (first,) = struct.unpack_from("<I", data, image.tables)
    struct.pack_into(f"<{count}I", data, image.tables, *[first] * count)
    data[8] &= ~2  # no second set of tables
    path.write_bytes(data)
    return path


def huge_directory(folder: Path, secret: Path) -> Path:
    """A sparse file of a few KiB whose header describes 62 TiB in the smallest grains and tables."""
    path = folder / "disk.vmdk"
    data = bytearray(hosted({}, 64 * 8, grain=8, per_table=64).data)
    struct.pack_into("<Q", data, 12, (62 << 40) // 512)
    path.write_bytes(data)
    os.truncate(path, 4 << 30)
    return path


HOSTILE: dict[str, tuple[Maker, str]] = {
    "absolute extent": (vmdk(f'RW {SECTORS} FLAT "SECRET" 0'), "source-unsafe"),
    "extent above": (vmdk(f'RW {SECTORS} FLAT "../secret" 0'), "source-unsafe"),
    "extent below": (vmdk(f'RW {SECTORS} FLAT "sub/../../secret" 0'), "source-unsafe"),
    "extent json:": (
        vmdk(f'RW {SECTORS} FLAT "json:{{"driver":"raw"}}" 0', f"RW {SECTORS} ZERO"),
        "source-not-vmdk",
    ),
    "extent json: as QEMU's own": (vmdk(f"RW {SECTORS} FLAT \"json:{{'filename':'SECRET'}}\" 0"), "source-unsafe"),
    "extent nbd:": (vmdk(f'RW {SECTORS} FLAT "nbd:127.0.0.1:10809" 0'), "source-missing"),
    "extent fat:": (vmdk(f'RW {SECTORS} FLAT "fat:rw:/etc" 0'), "source-unsafe"),
    "extent is a link": (linked_extent, "source-unsafe"),
    "extent is a FIFO": (fifo_extent, "source-unsafe"),
    "extent is a device": (device_extent, "source-unsafe"),
    "device mapping": (vmdk(f'RW {SECTORS} VMFSRDM "SECRET"'), "source-unsupported"),
    "parent": (vmdk('RW 2048 SPARSE "s.vmdk"', parent=("12345678", "SECRET")), "source-parent-missing"),
    "header with a flat descriptor": (header_with_flat_descriptor, "source-unsafe"),
    "header of nothing": (header_of_nothing, "source-not-vmdk"),
    "source is a link": (linked_source, "source-unsafe"),
    "backing file": (qcow2("-b", "SECRET", "-F", "raw"), "source-has-parent"),
    "backing json:": (named_backing('json:{"driver":"file","filename":"SECRET"}'), "source-has-parent"),
    "backing nbd:": (named_backing("nbd:unix:/run/x.sock"), "source-has-parent"),
    "data file": (qcow2("-o", "data_file=SECRET,data_file_raw=on"), "source-has-parent"),
    "data file by name alone": (
        poked(qcow2("-o", "data_file=SECRET,data_file_raw=on"), 72, bytes(8)),
        "source-has-parent",
    ),
    "header in a raw disk": (guest_wrote_a_header, "source-format-differs"),
    "inflates beyond deflate": (bomb, "source-corrupt"),
    "directory without end": (huge_directory, "source-corrupt"),
}


@pytest.fixture
def secret(service_folder: Path) -> Path:
    """A file of the service's own, which it may read and must not give away."""
    path = service_folder / "secret"
    path.write_bytes((SECRET * (MIB // len(SECRET) + 1))[:MIB])
    return path


def made(name: str, service_folder: Path, secret: Path) -> Path:
    folder = service_folder / "export"
    folder.mkdir()
    (folder / "sub").mkdir()
    keep = secret.read_bytes()
    path = HOSTILE[name][0](folder, secret)
    secret.write_bytes(keep)  # qemu-img empties a data file that it is told to use
    for each in (secret, folder, *folder.iterdir()):
        shutil.chown(each, USER, USER) if not each.is_symlink() else None
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_by_name_before_a_tool_runs(name: str, service_folder: Path, secret: Path) -> None:
    path = made(name, service_folder, secret)
    (service_folder / "job.yaml").write_text(f"vmdk: '{path}'\nvm_name: evil\n")
    limited = ("prlimit", f"--as={2 << 30}", "--cpu=20", "--")
    argv = as_service(*limited, PROGRAMS / "h2kvmctl", "plan", service_folder / "job.yaml", "--json")
    argv += ["--conversion-dir", str(service_folder / "work"), "--output-dir", str(service_folder / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/")
    said = done.stdout + done.stderr
    assert done.returncode in (1, 3), said
    assert f'"{HOSTILE[name][1]}"' in said
    assert SECRET.decode() not in said and "Traceback" not in said


CONFINED: dict[str, SourceFormat] = {
    "absolute extent": "vmdk",
    "header of nothing": "vmdk",
    "backing file": "qcow2",
    "backing json:": "qcow2",
    "data file": "qcow2",
}


def converted(source: SourceFile, fmt: SourceFormat, target: Path) -> None:
    """By qemu-img as we start it."""
    qemu_img.convert(
        source,
        fmt,
        target,
        "raw",
        virtual_size=MIB,
        compress=False,
        reserve=False,
        threads=1,
        bytes_per_second=None,
        on_fraction=lambda _: None,
    )


@pytest.mark.parametrize("name", CONFINED)
def test_a_tool_that_opened_it_would_not_reach_the_secret(name: str, service_folder: Path, secret: Path) -> None:
    """The second lock, with the first one taken away: qemu-img as we start it, on the image itself."""
    path = made(name, service_folder, secret)
    work = service_folder / "work"
    work.mkdir()
    file, code = open_file(path), ""
    try:
        converted(file, CONFINED[name], work / "out.raw")
    except MigrationFailed as failure:
        code = failure.code
    os.close(file.fd)
    assert code == ("" if name.startswith("backing") else "tool-failed")  # a backing file is not looked for at all
    assert not any(SECRET in file.read_bytes() for file in work.iterdir())


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhdx"])
def test_a_disk_swapped_behind_our_back_is_not_what_a_tool_opens(fmt: str, tmp_path: Path) -> None:
    """Whoever owns the folder may let the name lead to another one's disk, between our look at it and QEMU's."""
    theirs, swapped = tmp_path / "theirs", tmp_path / "swapped"
    for folder, text in ((theirs, b"their own "), (swapped, SECRET)):
        folder.mkdir()
        (tmp_path / "raw").write_bytes((text * MIB)[:MIB])
        sh("qemu-img", "convert", "-f", "raw", "-O", fmt, tmp_path / "raw", folder / f"disk.{fmt}")
    file = theirs / f"disk.{fmt}"
    with open_disk(LocalFile(path=file), tmp_path) as source:
        theirs.rename(tmp_path / "away")
        theirs.symlink_to(swapped)
        run, *_ = source.runs(0, MIB)
        assert bytes(source.load(run)).startswith(b"their own ")
        if isinstance(source, ForeignSource):
            converted(source.file, source.format, tmp_path / "out.raw")
            assert (tmp_path / "out.raw").read_bytes().startswith(b"their own ")


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_swapped_behind_our_back_is_not_what_qemu_compares(subformat: str, tmp_path: Path) -> None:
    """Neither the named file nor an extent that it names is opened by name again."""
    theirs, swapped, work = tmp_path / "theirs", tmp_path / "swapped", tmp_path / "work"
    work.mkdir()
    for folder, text in ((theirs, b"their own "), (swapped, SECRET)):
        folder.mkdir()
        (tmp_path / "raw").write_bytes((text * MIB)[:MIB])
        option = f"subformat={subformat}"
        sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", option, tmp_path / "raw", folder / "disk.vmdk")
    plan, image = run_convert(theirs / "disk.vmdk", work, out_format="raw")
    with Sources(work) as sources:
        opened = sources.planned(plan.disks)
        theirs.rename(tmp_path / "away")
        theirs.symlink_to(swapped)
        evidence = prove_same(opened, plan, image, work)
    assert any("the source read by QEMU" in line for line in evidence)


@pytest.mark.parametrize(
    "name",
    ['a"}, "driver": "raw", "x": {"y": "b.qcow2', r"a\u0062.qcow2"],
)
def test_a_name_is_a_name(name: str, tmp_path: Path) -> None:
    """To QEMU as well: no option, no protocol, no other file."""
    path = tmp_path / name
    sh("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "plain", "3M")
    (tmp_path / "plain").rename(path)
    assert qemu_img.virtual_size(path, "qcow2") == 3 * MIB


def test_a_confined_tool_has_no_socket_no_other_file_and_no_new_privileges(tmp_path: Path) -> None:
    script = (
        "import os, socket\n"
        "def tried(work):\n"
        "    try: work(); return 'done'\n"
        "    except OSError as error: return 'no'\n"
        "families = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET\n"
        "kinds = [(a, k) for a in families for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)]\n"
        "print([tried(lambda: socket.socket(a, k)) for a, k in kinds], tried(socket.socketpair))\n"
        "print(*map(tried, (lambda: open('/etc/passwd'), lambda: os.listdir('/'), lambda: open('/dev/null', 'w'))))\n"
        "import ctypes; libc = ctypes.CDLL(None)\n"
        "print(libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0))\n"
    )
    done = run(["/usr/bin/python3", "-ISc", script], sandbox=Sandbox(), check=False)
    sockets, files, flags = done.stdout.splitlines()
    assert "done" not in sockets, done
    assert files == "no no done"
    assert flags == "1 2"


def test_a_confined_tool_writes_one_file_and_no_further_than_told(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    (tmp_path / "neighbour").touch()
    script = f"""
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def tried(work):
    try: work(); return 'done'
    except OSError as error: return 'no'
image = os.open({str(image)!r}, os.O_RDWR)
print(tried(lambda: os.pwrite(image, b'x', {MIB} - 1)), tried(lambda: os.pwrite(image, b'x', {MIB})))
for name in 'neighbour', 'new':
    print(tried(lambda: open(os.path.join({str(tmp_path)!r}, name), 'w')))
"""
    sandbox = Sandbox(write=(image,), file_size=MIB)
    assert run(["/usr/bin/python3", "-ISc", script], sandbox=sandbox).stdout.split() == ["done", "no", "no", "no"]


def test_a_confined_tool_that_never_ends_is_ended() -> None:
    sandbox = Sandbox(cpu=1)
    with pytest.raises(MigrationFailed) as caught:
        run(["/usr/bin/python3", "-ISc", "while True: pass"], sandbox=sandbox, stall_seconds=60)
    assert (caught.value.code, caught.value.kind) == ("tool-cpu-limit", Kind.PERMANENT)
    assert "CPU-time limit" in caught.value.message
