"""`make release`: what it writes, and what keeps it from writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RELEASE = Path(__file__).parents[2] / "packaging" / "release.py"
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0] - 2026-01-01\n\n- First.\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "hyper2kvmd").mkdir()
    (tmp_path / "hyper2kvmd" / "__init__.py").write_text('"""A program."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("config", "user.name", "Somebody"),
        ("config", "user.email", "somebody@localhost"),
        ("add", "."),
        ("commit", "--quiet", "--message", "first"),
        ("tag", "v0.1.0"),
    ):
        git(tmp_path, *words)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def release(folder: Path, action: str, version: str) -> str:
    """What it complains of."""
    argv = [sys.executable, str(RELEASE), action, version]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(done.stderr), done
    return done.stderr


def test_a_release_is_a_version_a_section_and_a_tag(checkout: Path) -> None:
    assert release(checkout, "check", "0.2.0") == ""
    assert git(checkout, "status", "--porcelain") == ""
    assert release(checkout, "tag", "0.2.0") == ""
    assert '__version__ = "0.2.0"' in (checkout / "hyper2kvmd" / "__init__.py").read_text()
    sections = [line for line in (checkout / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert [line.split(" - ")[0] for line in sections] == ["## [Unreleased]", "## [0.2.0]", "## [0.1.0]"]
    assert git(checkout, "tag", "--points-at", "HEAD").split() == ["v0.2.0"]
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize("version", ["0.2", "v0.2.0", "0.2.0rc1", ""])
def test_what_is_no_version(checkout: Path, version: str) -> None:
    assert "no version" in release(checkout, "tag", version)


def test_all_that_stands_in_the_way_is_said_at_once(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- First.\n")
    git(checkout, "checkout", "--quiet", "-b", "idea")
    said = release(checkout, "tag", "0.1.0")
    assert [word for word in ("not newer", "Unreleased", "not committed", "branch idea") if word not in said] == []
    assert git(checkout, "tag").split() == ["v0.1.0"]
