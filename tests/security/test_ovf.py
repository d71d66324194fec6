"""OVF descriptors of strangers: refused by the real program, soon and in little memory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.host import as_service
from tests.support.hostile_ovf import HOSTILE
from tests.support.service import PROGRAMS


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
