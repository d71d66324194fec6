"""What `make release VERSION=1.2.3` does to the checkout: `release.py check VERSION`, then, when all tests have passed,
`release.py tag VERSION`.

The version stands in hyper2kvmd/__init__.py alone. CHANGELOG.md says what is in it: its section "Unreleased" becomes
the version's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

VERSION = re.compile(r'(?m)^__version__ = "([^"]*)"$')
UNRELEASED = re.compile(r"(?ms)^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def problems(version: str, source: str, changelog: str) -> list[str]:
    """What stands in the way of a release, all at once."""
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return [f"{version!r} is no version: write it as 1.2.3"]
    last = VERSION.findall(source)[0]
    if f"v{last}" in git("tag").split() and _numbers(version) <= _numbers(last):
        found.append(f"{version} is not newer than the last release, {last}")
    section = UNRELEASED.search(changelog)
    if section is None or not section[1].strip():
        found.append('CHANGELOG.md has nothing below "Unreleased": say there what users get')
    if git("status", "--porcelain"):
        found.append("the checkout has changes that are not committed: commit or stash them")
    if (branch := git("rev-parse", "--abbrev-ref", "HEAD")) != "main":
        found.append(f"this is the branch {branch}: releases are made of main")
    return found


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def main(action: str, version: str) -> None:
    program, history = Path("hyper2kvmd/__init__.py"), Path("CHANGELOG.md")
    source, changelog = program.read_text(), history.read_text()
    if found := problems(version, source, changelog):
        raise SystemExit("\n".join(found))
    if action == "tag":
        program.write_text(VERSION.sub(f'__version__ = "{version}"', source))
        today = datetime.now(UTC).date().isoformat()
        history.write_text(changelog.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {today}\n", 1))
        git("commit", "--quiet", "--message", f"release {version}", "--", str(program), str(history))
        git("tag", "--annotate", "--message", f"hyper2kvmd {version}", f"v{version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
