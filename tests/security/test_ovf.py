"""OVF descriptors of strangers: refused by the real program, soon and in little memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import MIB, as_service
from tests.support.hostile_ovf import HOSTILE
from tests.support.ovf_texts import FILE, envelope
from tests.support.own_host import FOLDER_PREFIX
from tests.support.service import PROGRAMS
from tests.support.vmdk_images import hosted

MALLORY, VICTIM = "nobody", "games"


def planned(folder: Path, text: bytes, size: int | None = None) -> subprocess.CompletedProcess[str]:
    """`h2kvmctl plan` for the descriptor, by the service user. It must not reach the disk in the folder above."""
    inner = folder / "export"
    inner.mkdir()
    (folder / "secret.vmdk").write_bytes(b"the host's own secret")
    (inner / "link.vmdk").symlink_to(folder / "secret.vmdk")
    (inner / "web01.ovf").write_bytes(text)
    os.truncate(inner / "web01.ovf", len(text) if size is None else size)
    (folder / "job.yaml").write_text(f"ovf: '{inner / 'web01.ovf'}'\nvm_name: evil\n")
    limited = ("prlimit", f"--as={1 << 30}", "--cpu=20", "--")
    argv = as_service(*limited, PROGRAMS / "h2kvmctl", "plan", folder / "job.yaml", "--json")
    argv += ["--conversion-dir", str(folder / "work"), "--output-dir", str(folder / "out")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/", check=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_descriptor_is_refused_soon_in_little_memory(name: str, service_folder: Path) -> None:
    text, code = HOSTILE[name]
    done = planned(service_folder, text)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 3), said[:2000]
    assert f'"{code}"' in said, said[:2000]
    assert "Traceback" not in said and "secret" not in said.replace("secret.vmdk", "")
    assert len(said) < 10_000 and all(line.isprintable() for line in said.splitlines())


def test_a_file_without_end_is_not_read_to_its_end(service_folder: Path) -> None:
    done = planned(service_folder, b"<a>", 1 << 40)
    assert '"ovf-too-complex"' in done.stdout, done.stderr[:2000]


@pytest.fixture
def theirs(service_user: object) -> Iterator[Path]:
    """A folder of the attacker's, with a hard link `disk.vmdk` to a file of the victim's, whose folder is closed."""
    above = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    above.chmod(0o755)
    for name, owner, mode in (("home", VICTIM, 0o700), ("theirs", MALLORY, 0o755)):
        (above / name).mkdir(mode)
        shutil.chown(above / name, owner)
    secret = hosted({3: b"S" * 65536}, MIB // 512).write(above / "home/disk.vmdk")
    shutil.chown(secret, VICTIM)
    secret.chmod(0o600)
    os.link(secret, above / "theirs/disk.vmdk")
    yield above / "theirs"
    shutil.rmtree(above)


@pytest.mark.parametrize("escaped", [False, True])
def test_root_does_not_publish_a_disk_that_its_ovf_may_not_name(theirs: Path, escaped: bool) -> None:
    ovf = theirs / "web01.ovf"
    ovf.write_bytes(envelope(files=[{**FILE, "href": "disk%2Evmdk" if escaped else "disk.vmdk"}]))
    shutil.chown(ovf, MALLORY)
    job = theirs.parent / "job.yaml"
    job.write_text(f"ovf: '{ovf}'\nvm_name: evil\nguest: none\n")
    argv = [str(PROGRAMS / "h2kvmctl"), "--config", str(job), "--conversion-dir", str(theirs.parent / "work")]
    argv += ["--output-dir", str(theirs.parent / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/", check=False)
    assert done.returncode == 3 and "[named-file-not-readable]" in done.stderr, done.stderr
    assert not list(theirs.parent.glob("out/*"))
