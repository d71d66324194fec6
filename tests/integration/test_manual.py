"""The manual pages where a package puts them, judged by the two programs that show them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "packaging" / "man"
PAGES = sorted(MANUAL.iterdir())
LINK = MANUAL / "hyper2kvm.1"
NOT_INSTALLED = ("referenced manual not found", "outdated mandoc.db")
"""What mandoc says of a host that has not all the pages; which of ours there are is a unit test's matter."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in PAGES:
        folder = tmp_path / f"man{path.suffix[1:]}"
        folder.mkdir(exist_ok=True)
        (folder / path.name).symlink_to(path)
    return tmp_path


def shown(tree: Path, path: Path) -> subprocess.CompletedProcess[str]:
    argv = ["man", "--warnings", path.suffix[1:], path.stem]
    environment = {**os.environ, "MANPATH": str(tree), "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.parametrize("path", [path for path in PAGES if path != LINK], ids=lambda path: path.name)
def test_mandoc_has_nothing_to_say(path: Path) -> None:
    argv = ["mandoc", "-T", "lint", "-W", "style", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    complaints = (done.stdout + done.stderr).splitlines()
    assert [line for line in complaints if not any(known in line for known in NOT_INSTALLED)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_man_shows_it_without_a_warning(tree: Path, path: Path) -> None:
    done = shown(tree, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout and "SEE ALSO" in done.stdout


def test_the_old_name_shows_the_same(tree: Path) -> None:
    assert shown(tree, LINK).stdout == shown(tree, MANUAL / "h2kvmctl.1").stdout
