"""The documentation: its site is built without a warning, and the blocks that are marked for it run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guests import debian12
from tests.support.disks import sh
from tests.support.doc_blocks import REPOSITORY, blocks, pages
from tests.support.host import USER, as_service

DOCS = REPOSITORY / "docs"
RUN_HERE = [page for page in pages() if any(block.kind == "here" for block in blocks(page))]
PROGRAMS = {"h2kvmctl": "hyper2kvmd.cli.ctl", "hyper2kvmd": "hyper2kvmd.cli.daemon"}
SUDO = """#!/bin/sh
case "$*" in install*/dev/stdin*) cat >written ;; *) exec /usr/bin/sudo "$@" ;; esac
"""
"""Writes what a person would install: the sandbox has no right to."""
NEEDS_A_GUEST = REPOSITORY / "docs/tutorial/first-migration.md"
PATIENCE = 900


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    argv = [sys.executable, "-B", "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run(
        [*argv, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    built = {
        str(path.relative_to(tmp_path / "site").with_suffix(".md")) for path in (tmp_path / "site").rglob("*.html")
    }
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} <= built
    assert (tmp_path / "site" / "external-links.txt").read_text() == ""


@pytest.fixture
def sandbox(service_folder: Path) -> Path:
    """A folder with the programs of this checkout first in the path, and what the blocks need of the sources."""
    programs = service_folder / "bin"
    programs.mkdir()
    for name, module in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -B -m {module} "$@"\n')
        program.chmod(0o755)
    (programs / "sudo").write_text(SUDO)
    (programs / "sudo").chmod(0o755)
    shutil.copytree(REPOSITORY / "sudoers.d", service_folder / "sudoers.d")
    return service_folder


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_its_blocks_run(page: Path, sandbox: Path, installed_helper: tuple[str, ...]) -> None:
    if page == NEEDS_A_GUEST:
        (sandbox / "exports").mkdir()
        shutil.copy(debian12.vmdk(), sandbox / "exports" / "web01.vmdk")
    lines = ["set -euo pipefail"]
    for block in blocks(page):
        if block.kind == "file":
            (sandbox / block.name).write_text(block.text)
        elif block.kind == "here":
            lines.append(block.text)
    sh("chown", "-R", f"{USER}:{USER}", sandbox)
    path = f"{sandbox}/bin:{os.environ['PATH']}"
    environment = ("env", f"PATH={path}", f"HOME={sandbox}", "USER=alice", "LC_ALL=C.UTF-8")
    argv = as_service(*environment, "bash", "-c", "\n".join(lines))
    done = subprocess.run(argv, capture_output=True, text=True, cwd=sandbox, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if page == NEEDS_A_GUEST:
        assert (sandbox / "images" / "web01.qcow2").exists()
        assert "/etc/fstab" in (sandbox / "images" / "web01.report.md").read_text()
    if "sudoers.d" in lines[-1]:
        written = sandbox / "written"
        sh("visudo", "--check", "--strict", f"--file={written}")
        granted = [text for text in written.read_text().splitlines() if "NOPASSWD" in text]
        assert granted == ['alice ALL=(root:root) NOPASSWD: /usr/libexec/hyper2kvm/helper ""']


def test_the_way_without_sudo_is_what_the_packaged_text_says() -> None:
    """hardened.conf describes it too, beside itself."""
    header = (REPOSITORY / "packaging/hyper2kvmd.service.d/hardened.conf").read_text().split("[Unit]")[0]
    theirs = re.findall(r"^#   (\S.*)$", header, re.MULTILINE)
    ours = (DOCS / "howto" / "install.md").read_text().split("## Without sudo")[1].split("## A workstation")[0]
    assert theirs and [line for line in theirs if line not in ours.splitlines()] == []
