"""Audits the dependencies: what is installed is what is locked, unchanged, and nothing of it is known to be vulnerable.

The last of these needs the network. Where the service cannot be asked, that is said in capitals, and is no failure:
`make audit` must do on a host without the network. `python -m tests.audit` ends with 1 when something is wrong.

Source: OSV, the API's documentation, "POST /v1/querybatch".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
ADVISORIES = "https://api.osv.dev/v1/querybatch"
SECONDS = 20
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *;[^\\]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)
UNPINNED = {"hyper2kvmd", "pip", "setuptools"}
"""Ourselves, and what an environment begins with."""


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Name and version of all that the text of a lock file pins with hashes. Raises ValueError for another line."""
    found = {plain(name): version for name, version, _ in PIN.findall(lock)}
    begun = re.findall(r"^([A-Za-z0-9._-]+)", lock, re.MULTILINE)
    if loose := {plain(name) for name in begun} - found.keys():
        raise ValueError(f"not pinned by version and hash: {', '.join(sorted(loose))}")
    return found


def differing(locked: Mapping[str, str], installed: Mapping[str, str]) -> Iterator[str]:
    for name, version in sorted(installed.items()):
        if name not in UNPINNED and locked.get(name) != version:
            yield f"{name} {version} is installed, {locked.get(name, 'nothing')} is locked"


def changed(package: Distribution) -> Iterator[str]:
    """Files of an installed package that are not as its wheel had them."""
    for file in package.files or ():
        if file.hash is None or file.hash.mode != "sha256":
            continue
        path = Path(str(file.locate()))
        digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            yield f"{path} is not as {package.name} {package.version} has it"


def vulnerable(locked: Mapping[str, str], service: str) -> Iterator[str]:
    """Raises OSError or ValueError when the service gives no answer."""
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": locked[name]} for name in sorted(locked)]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(service, body, {"Content-Type": "application/json"})  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        results = json.load(answer)["results"]
    for name, result in zip(sorted(locked), results, strict=True):
        for one in result.get("vulns", ()):
            yield f"{name} {locked[name]} has a known vulnerability: {one['id']}"


def main(service: str = ADVISORIES) -> int:
    locked = pins((CHECKOUT / "requirements-dev.lock").read_text())
    packages = list(distributions())
    wrong = list(differing(locked, pins((CHECKOUT / "requirements.lock").read_text())))
    wrong += differing(locked, {plain(one.name): one.version for one in packages})
    wrong += [fact for one in packages for fact in changed(one)]
    print(f"{len(locked)} packages locked, {len(packages)} installed and compared file by file")
    try:
        wrong += vulnerable(locked, service)
    except (OSError, ValueError, KeyError) as error:
        print(f"!!! AUDIT INCOMPLETE: KNOWN VULNERABILITIES WERE NOT LOOKED UP: {error}", file=sys.stderr)
    for fact in wrong:
        print(fact, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
