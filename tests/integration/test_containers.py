"""Containers read without privilege: LUKS that cryptsetup made in plain files, md superblocks that mdadm confirms."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.disk.key_files import read_keys
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes import luks
from hyper2kvmd.volumes.budget import Budget
from hyper2kvmd.volumes.layout import read_layout
from tests.support.converting import convert_planned, order_for, planned, prove
from tests.support.disks import FileReader, empty_disk, loop, sh
from tests.support.patched import PatchedReader

MIB = 1 << 20
UUID = "6d3b4a0e-1111-4222-8333-123456789abc"
CHEAP = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


def layout_of(disks: list[Path], *keys: bytes) -> Layout:
    readers = [FileReader(disk) for disk in disks]
    try:
        return read_layout(readers, keys)
    finally:
        for reader in readers:
            reader.close()


def only(layout: Layout, kind: str) -> Volume:
    (found,) = (volume for volume in layout.volumes if volume.kind == kind)
    return found


# ---------------------------------------------------------------- LUKS


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("correct horse")
    return path


def encrypt(disk: Path, key: Path, *options: str) -> Path:
    """Have cryptsetup encrypt what a file holds, in place: its last 32 MiB make room for the header."""
    sh("cryptsetup", "-q", "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", *options,
       "--key-file", key, disk)  # fmt: skip
    return disk


KINDS = {
    "pbkdf2": CHEAP,
    "argon2i": ("--pbkdf", "argon2i", "--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4"),
    "argon2id": ("--pbkdf", "argon2id", "--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4"),
    "sha512": (*CHEAP, "--hash", "sha512"),
    "256 bits": (*CHEAP, "--key-size", "256"),
    "4096": (*CHEAP, "--sector-size", "4096"),
    "CBC": (*CHEAP, "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_system_that_cryptsetup_encrypted_is_read(tmp_path: Path, key: Path, kind: str) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 64)
    sh("mkfs.ext4", "-q", "-F", "-b", "4096", "-U", UUID, disk, "20M")
    encrypt(disk, key, *KINDS[kind])
    for keys in ((b"wrong", b"correct horse"), (b"correct horse\n",)):
        inside = only(layout_of([disk], *keys), "luks")
        assert (inside.content, inside.uuid, inside.obstacle) == ("ext4", UUID, None)
    told = json.loads(sh("cryptsetup", "luksDump", "--dump-json-metadata", disk))["segments"]["0"]
    (stretch,) = inside.stretches
    assert stretch.crypt is not None
    assert stretch.crypt.container == sh("cryptsetup", "luksUUID", disk).strip()
    assert (stretch.crypt.cipher, stretch.crypt.sector) == (told["encryption"], told["sector_size"])
    assert (stretch.legs[0].offset, stretch.length) == (int(told["offset"]), 64 * MIB - int(told["offset"]))


@pytest.mark.parametrize("options", [(), ("--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"), ("--hash", "sha1")])
def test_luks1_is_opened(tmp_path: Path, key: Path, options: tuple[str, ...]) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 16)
    sh("cryptsetup", "-q", "luksFormat", "--type", "luks1", *options, *CHEAP[2:], "--key-file", key, disk)
    volume_key = tmp_path / "volume-key"
    sh("cryptsetup", "luksDump", "--dump-volume-key", "--volume-key-file", volume_key, "-q", "--key-file", key, disk)
    reader = FileReader(disk)
    opened = luks.unlock(reader, [b"wrong", b"correct horse"], Budget())
    assert opened.key == volume_key.read_bytes()
    assert opened.key.hex() not in repr(opened)
    assert opened.offset + opened.length == 16 * MIB
    reader.close()


def test_logical_volumes_in_a_container_are_found(tmp_path: Path, key: Path) -> None:
    disk = empty_disk(tmp_path / "disk.raw", 128)
    name = f"h2kluks{tmp_path.name.replace('_', '')}"[-40:]
    with loop(disk, length=64 * MIB) as device:
        options = ["--devices", device, "-q", "--driverloaded", "n"]
        sh("pvcreate", *options, "-y", device)
        sh("vgcreate", *options, name, device)
        sh("lvcreate", *options, "-an", "-Zn", "-Wn", "-y", "-n", "root", "-l", "4", name)
    fs = empty_disk(tmp_path / "fs.raw", 16)
    sh("mkfs.ext4", "-q", "-U", UUID, fs)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(fs.read_bytes())
    encrypt(disk, key, *CHEAP)
    root = only(layout_of([disk], b"correct horse"), "lv")
    assert (root.name, root.content, root.uuid) == (f"{name}/root", "ext4", UUID)
    (stretch,) = root.stretches
    assert stretch.crypt is not None and stretch.crypt.iv == MIB // 512
    assert stretch.legs[0].offset == 16 * MIB + MIB


@pytest.fixture
def container(tmp_path: Path, key: Path) -> Path:
    disk = empty_disk(tmp_path / "disk.raw", 20)
    sh("cryptsetup", "-q", "luksFormat", "--type", "luks2", *CHEAP, "--key-file", key, disk)
    return disk


def rewrite(disk: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change a LUKS2 header's JSON as a hostile guest could: both copies, with right checksums."""
    with disk.open("r+b") as file:
        for at in (0, 16384):
            file.seek(at)
            head = bytearray(file.read(16384))
            told = json.loads(head[4096:].partition(b"\0")[0])
            change(told)
            head[4096:] = json.dumps(told).encode().ljust(16384 - 4096, b"\0")
            head[448:512] = bytes(64)
            head[448:480] = hashlib.sha256(head).digest()
            file.seek(at)
            file.write(head)


def kdf(**changes: object) -> Callable[[dict[str, object]], object]:
    return lambda told: told["keyslots"]["0"]["kdf"].update(changes)  # type: ignore[index]


def segment(**changes: object) -> Callable[[dict[str, object]], object]:
    return lambda told: told["segments"]["0"].update(changes)  # type: ignore[index]


ARGON2 = {"type": "argon2id", "time": 1, "memory": 1024, "cpus": 1}
REAL_ONE = "unrealistic key derivation"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (kdf(iterations=1_000_000_000), REAL_ONE),
        (kdf(iterations=0), REAL_ONE),
        (kdf(**{**ARGON2, "memory": 5 << 20}), REAL_ONE),
        (kdf(**{**ARGON2, "time": 1_000_000}), REAL_ONE),
        (kdf(**{**ARGON2, "cpus": 1_000_000}), REAL_ONE),
        (kdf(**{**ARGON2, "memory": 1}), REAL_ONE),
        (kdf(**ARGON2, salt=base64.b64encode(b"salt").decode()), REAL_ONE),
        (kdf(salt="?"), "damaged"),
        (kdf(type="scrypt"), "damaged"),
        (kdf(hash="whirlpool"), "its hash is whirlpool"),
        (segment(encryption="serpent-xts-plain64"), "its cipher is serpent"),
        (segment(offset="-512"), "damaged"),
        (segment(offset=str(1 << 40)), "damaged"),
        (segment(offset="4096"), "damaged"),
        (segment(size=str(1 << 40)), "damaged"),
        (segment(sector_size=100), "damaged"),
        (segment(integrity={"type": "hmac(sha256)"}), "integrity"),
        (segment(type="hw-opal"), "hardware"),
        (lambda told: told["config"].update(requirements={"mandatory": ["online-reencrypt-v2"]}), "online-reencrypt"),
        (lambda told: told.update(keyslots={}), "no key slot of a supported kind"),
        (lambda told: told.update(digests={}), "damaged"),
    ],
)
def test_a_header_that_asks_too_much_stays_closed(
    container: Path, change: Callable[[dict[str, object]], object], word: str
) -> None:
    assert only(layout_of([container], b"correct horse"), "luks").obstacle is None
    rewrite(container, change)
    inside = only(layout_of([container], b"correct horse"), "luks")
    assert inside.stretches == () and word in (inside.obstacle or "")


def test_keys_that_do_not_open(container: Path) -> None:
    assert (
        only(layout_of([container], b"wrong"), "luks").obstacle
        == "it is encrypted, and none of the given keys opens it"
    )
    assert only(layout_of([container]), "luks").obstacle == "it is encrypted, and no key was given"


def test_a_damaged_first_header_is_read_from_the_second(container: Path) -> None:
    with container.open("r+b") as file:
        file.seek(4096)
        file.write(b"{")
        file.write(bytes(100))
    assert only(layout_of([container], b"correct horse"), "luks").obstacle is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patches=st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_damaged_headers_never_lead_outside_the_disk(patches: list[tuple[int, bytes]], container: Path) -> None:
    reader = PatchedReader(container, patches)
    for volume in read_layout([reader], [b"correct horse"]).volumes:
        for leg in volume.segments:
            assert leg.offset + leg.length <= reader.size
    reader.close()


def test_a_migration_reads_what_its_key_files_open(container: Path, key: Path, tmp_path: Path) -> None:
    """In plan, and again when image and source are shown to be the same."""
    disk = container.rename(tmp_path / "disk.img")
    migration = Migration(vmdk=(disk,), vm_name="web01", luks_keyfile=(key,))
    plan = planned(disk, keys=read_keys(migration.luks_keyfile))
    assert only(plan.layout, "luks").obstacle is None
    (tmp_path / "work").mkdir()
    image = convert_planned(plan, order_for(migration, tmp_path / "work"))
    assert any(f"{len(plan.layout.volumes)} volumes read back" in line for line in image.evidence)
    with pytest.raises(MigrationFailed, match="not the source's"):
        prove(plan, image, tmp_path / "work")


@pytest.mark.parametrize("size", [0, (8 << 20) + 1])
def test_a_file_of_no_keys_size_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "key").write_bytes(bytes(size))
    with pytest.raises(MigrationFailed) as caught:
        read_keys((tmp_path / "key",))
    assert caught.value.code == "key-unusable"


# ---------------------------------------------------------------- md

ARRAY = uuid.UUID("d5a1b5b0-1111-4222-8333-0123456789ab")
SECTORS = {"1.0": 32 * 2048 - 16, "1.1": 0, "1.2": 8}
MEMBER = 32 * MIB


def superblock(version: str, role: int, **changes: object) -> bytes:
    """A superblock of metadata 1.x, of a RAID 1 with 16 MiB of data, as md writes it."""
    data = 0 if version == "1.0" else 2048
    told: dict[str, object] = {
        "level": 1, "devices": 2, "events": 17, "resync": (1 << 64) - 1, "features": 0, "roles": (0, 1), "size": 32768,
        "place": SECTORS[version], **changes,
    }  # fmt: skip
    block = bytearray(256 + 4)
    struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, told["features"], 0)
    block[16:32] = ARRAY.bytes
    block[32:64] = b"guest:boot".ljust(32, b"\0")
    struct.pack_into("<QiIQII", block, 64, 1, told["level"], 0, told["size"], 0, told["devices"])
    struct.pack_into("<QQQ", block, 128, data, told["size"], told["place"])
    struct.pack_into("<I", block, 160, role)
    block[168:184] = uuid.uuid4().bytes
    struct.pack_into("<QQQII", block, 192, 1, told["events"], told["resync"], 0, 2)
    struct.pack_into("<2H", block, 256, *told["roles"])  # type: ignore[misc]
    total = sum(struct.unpack("<65I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(block)


def old_superblock(role: int, **changes: int) -> bytes:
    """One of metadata 0.90."""
    words = [0] * 1024
    told = {"clean": 1, "events": 17, **changes}
    words[0:12] = [0xA92B4EFC, 0, 90, 0, 0, 0x11111111, 1, 1, (MEMBER - 65536) // 1024, 2, 2, 0]
    words[13:16] = [0x22222222, 0x33333333, 0x44444444]
    words[32:41] = [1, told["clean"], 2, 2, 0, 0, 0, told["events"], 0]
    for number in range(2):
        words[128 + number * 32 : 133 + number * 32] = [number, 8, number * 16, number, 6]
    words[992:997] = [role, 8, role * 16, role, 6]
    words[38] = (sum(words) & 0xFFFFFFFF) + (sum(words) >> 32) & 0xFFFFFFFF
    return struct.pack("<1024I", *words)


def members(folder: Path, version: str, *blocks: bytes) -> list[Path]:
    """A disk for each superblock, with a file system where the array's data begins."""
    fs = empty_disk(folder / "fs.raw", 16)
    sh("mkfs.ext4", "-q", "-U", UUID, fs)
    disks = []
    for number, block in enumerate(blocks):
        disk = empty_disk(folder / f"member{number}.raw", MEMBER // MIB)
        with disk.open("r+b") as file:
            file.seek(0 if version in ("0.90", "1.0") else MIB)
            file.write(fs.read_bytes())
            file.seek(MEMBER - 65536 if version == "0.90" else SECTORS[version] * 512)
            file.write(block)
        disks.append(disk)
    return disks


@pytest.mark.parametrize(
    ("version", "code"), [("0.90", "resize-hides-data"), ("1.0", "resize-hides-data"), ("1.2", "")]
)
def test_a_disk_whose_superblock_is_at_its_end_does_not_grow(tmp_path: Path, version: str, code: str) -> None:
    old = version == "0.90"
    disks = members(tmp_path, version, *(old_superblock(n) if old else superblock(version, n) for n in (0, 1)))
    asked = Migration(vmdk=tuple(disks), vm_name="web01", resize=("+1G", "+1G"))
    (tmp_path / "work").mkdir()
    failed = ""
    try:
        convert_planned(planned(*disks), order_for(asked, tmp_path / "work"))
    except MigrationFailed as failure:
        failed = failure.code
    assert failed == code


def obstacle(disks: list[Path]) -> str | None:
    array = only(layout_of(disks), "md")
    assert (array.obstacle is None) == (array.stretches != ())
    return array.obstacle


@pytest.mark.parametrize("version", ["0.90", "1.0", "1.1", "1.2"])
def test_a_whole_and_clean_mirror_is_mapped(tmp_path: Path, version: str) -> None:
    old = version == "0.90"
    disks = members(tmp_path, version, *(old_superblock(n) if old else superblock(version, n) for n in (0, 1)))
    for disk in disks:
        told = sh("mdadm", "--examine", disk)
        assert "raid1" in told and "correct" in told and "clean" in told, told
    layout = layout_of(list(reversed(disks)))
    array = only(layout, "md")
    assert (array.content, array.uuid, array.obstacle) == ("ext4", UUID, None)
    assert array.array == ("0" if old else "boot")
    (stretch,) = array.stretches
    start, length = (0, MEMBER - 65536) if old else (0 if version == "1.0" else MIB, 16 * MIB)
    assert [(leg.disk, leg.offset, leg.length) for leg in stretch.legs] == [(1, start, length), (0, start, length)]
    assert stretch.kind == "mirror"
    assert {volume.content for volume in layout.volumes if volume.kind == "disk"} == {"linux_raid_member"}
    told = sh("mdadm", "--examine", "--export", disks[0])
    assert f"MD_UUID={(layout.volumes[0].uuid or '').replace('-', '')}" in told.replace(":", "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"level": 5}, "RAID 5"),
        ({"level": 10}, "RAID 10"),
        ({"level": 0}, "RAID 0"),
        ({"level": 77}, "level 77"),
        ({"devices": 3}, "degraded: 2 of its 3"),
        ({"events": 18}, "out of date"),
        ({"resync": 0}, "not stopped cleanly"),
        ({"features": 0x2}, "rebuilt"),
        ({"features": 0x4}, "reshaped"),
        ({"features": 0x8}, "bad blocks"),
        ({"features": 0x400}, "newer than supported"),
        ({"roles": (0, 0xFFFF)}, "degraded: 1 of its 2"),
        ({"roles": (0, 0xFFFE)}, "degraded: 1 of its 2"),
        ({"roles": (0, 0)}, "degraded: 1 of its 2"),
        ({"size": 1 << 40}, "out of date"),
    ],
)
def test_what_is_not_whole_and_clean_is_refused(tmp_path: Path, changes: dict[str, object], word: str) -> None:
    shared = changes if changes.keys() & {"level", "devices"} else {}
    disks = members(tmp_path, "1.2", superblock("1.2", 0, **shared), superblock("1.2", 1, **changes))
    assert word in (obstacle(disks) or "")


def test_what_is_one_of_a_pair_is_refused(tmp_path: Path) -> None:
    assert "degraded: 1 of its 2" in (obstacle(members(tmp_path, "1.2", superblock("1.2", 0))) or "")


def test_a_mirror_said_to_be_larger_than_its_members_is_refused(tmp_path: Path) -> None:
    disks = members(tmp_path, "1.2", *(superblock("1.2", number, size=1 << 40) for number in (0, 1)))
    assert "extends beyond the volume" in (obstacle(disks) or "")


def test_a_wrong_checksum_is_seen(tmp_path: Path) -> None:
    broken = bytearray(superblock("1.2", 1))
    broken[200] ^= 1
    assert "damaged" in (obstacle(members(tmp_path, "1.2", superblock("1.2", 0), bytes(broken))) or "")


def test_an_old_mirror_that_was_not_stopped_is_refused(tmp_path: Path) -> None:
    disks = members(tmp_path, "0.90", old_superblock(0), old_superblock(1, clean=0))
    assert "not stopped cleanly" in (obstacle(disks) or "")


def test_a_superblock_that_is_meant_for_another_place_is_none(tmp_path: Path) -> None:
    disks = members(tmp_path, "1.2", superblock("1.2", 0, place=16))
    assert "damaged" in (obstacle(disks) or "")


def test_the_table_on_a_mirrored_disk_is_the_mirrors(tmp_path: Path) -> None:
    """Writing to a partition of one leg alone would tear the mirror."""
    disks = members(tmp_path, "1.0", *(superblock("1.0", number) for number in (0, 1)))
    for disk in disks:
        with disk.open("r+b") as file:
            file.write(bytes(16 * MIB))
        sh("sfdisk", "-q", "--wipe", "never", disk, stdin="label: dos\n2048,10M,83\n")
    assert layout_of(disks).tables == ("none", "none")
    assert "contains a partition table" in (obstacle(disks) or "")
