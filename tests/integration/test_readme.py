"""The README's installation, where the packages do not do it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.disks import sh

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLATION = (REPOSITORY / "README.md").read_text().split("## Install")[1].split("## Migrate")[0]


def test_a_workstation_gets_a_sudoers_file_for_its_user(tmp_path: Path) -> None:
    (line,) = re.findall(r"^    (sed .*) \| sudo install -m 0440 /dev/stdin (\S+)$", INSTALLATION, re.MULTILINE)
    assert line[1] == "/etc/sudoers.d/hyper2kvm"
    written = tmp_path / "hyper2kvm"
    written.write_text(sh("env", "USER=alice", "sh", "-euc", f"cd {REPOSITORY}; {line[0]}"))
    sh("visudo", "--check", "--strict", f"--file={written}")
    granted = [text for text in written.read_text().splitlines() if "NOPASSWD" in text]
    assert granted == ['alice ALL=(root:root) NOPASSWD: /usr/libexec/hyper2kvm/helper ""']


def test_the_way_without_sudo_is_what_the_packaged_text_says() -> None:
    """hardened.conf describes it too, beside itself."""
    header = (REPOSITORY / "packaging/hyper2kvmd.service.d/hardened.conf").read_text().split("[Unit]")[0]
    theirs = re.findall(r"^#   (\S.*)$", header, re.MULTILINE)
    ours = re.findall(r"^    (\S.*)$", INSTALLATION, re.MULTILINE)
    assert theirs and [line for line in theirs if line not in ours] == []
