"""Texts made to burn time and memory, or to mean something else than they say: told so at once, by the real program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.host import as_service
from tests.support.hostile_yaml import HOSTILE
from tests.support.service import PROGRAMS


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_soon_in_little_memory_on_plain_lines(name: str, service_folder: Path) -> None:
    text, code = HOSTILE[name]
    data = text if isinstance(text, bytes) else text.encode()
    file = service_folder / "job.yaml"
    file.write_bytes(data.replace(b"PLACE", bytes(service_folder)))
    limited = ("prlimit", f"--as={1 << 30}", "--cpu=10", "--")
    argv = as_service(*limited, PROGRAMS / "h2kvmctl", "check", file)
    plain = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/")
    assert plain.returncode == 2, plain
    assert all(line.isprintable() for line in (plain.stdout + plain.stderr).splitlines())
    assert len(plain.stderr) < 200_000
    answer = subprocess.run([*argv, "--json"], capture_output=True, text=True, timeout=60, cwd="/")
    assert code in {problem["code"] for problem in json.loads(answer.stdout)[0]["problems"]}, answer.stdout
    assert not (service_folder / "ran").exists()
