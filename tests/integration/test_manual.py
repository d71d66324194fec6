"""The manual pages as a package gets them, judged by the two programs that show them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hyper2kvmd.cli import manual

NAMES = [f"{page.name}.{page.section}" for page in manual.pages()]
OLD_NAME = "hyper2kvm.1"
NOT_INSTALLED = ("referenced manual not found", "outdated mandoc.db")
"""What mandoc says of a host that has not all the pages; which of ours there are is a unit test's matter."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written, tree = tmp_path_factory.mktemp("written"), tmp_path_factory.mktemp("man")
    manual.write_man(written)
    for path in written.iterdir():
        folder = tree / f"man{path.suffix[1:]}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    return tree


def file(tree: Path, name: str) -> Path:
    return tree / f"man{name[-1]}" / name


def shown(tree: Path, name: str) -> subprocess.CompletedProcess[str]:
    argv = ["man", "--warnings", name[-1], name[:-2]]
    environment = {**os.environ, "MANPATH": str(tree), "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_these_are_all_pages(tree: Path) -> None:
    assert {path.name for path in tree.rglob("*.*")} == {*NAMES, OLD_NAME}


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_has_nothing_to_say(tree: Path, name: str) -> None:
    argv = ["mandoc", "-T", "lint", "-W", "style", str(file(tree, name))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    complaints = (done.stdout + done.stderr).splitlines()
    assert [line for line in complaints if not any(known in line for known in NOT_INSTALLED)] == []


@pytest.mark.parametrize("name", [*NAMES, OLD_NAME])
def test_man_shows_it_without_a_warning(tree: Path, name: str) -> None:
    done = shown(tree, name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout and "SEE ALSO" in done.stdout


def test_the_old_name_shows_the_same(tree: Path) -> None:
    assert shown(tree, OLD_NAME).stdout == shown(tree, "h2kvmctl.1").stdout
