"""Guests migrated by the command line, as the service user does it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.guests.guest import Guest, disks
from tests.support.disks import sh
from tests.support.host import USER, service_python

OLD_NAME = re.compile(r"^\+(?!\+\+).*(/dev/sd|by-path)", re.MULTILINE)
PATIENCE = 900
"""Seconds until a migration is called a failure."""


def exported(guest: Guest, folder: Path) -> list[Path]:
    """The guest's disks as VMware's tools would hand them over."""
    return [as_vmdk(raw, "raw", folder / raw.with_suffix(".vmdk").name) for raw in disks(guest)]


def as_vmdk(image: Path, image_format: str, target: Path) -> Path:
    sh("qemu-img", "convert", "-f", image_format, "-O", "vmdk", "-o", "subformat=monolithicSparse", image, target)
    return target


def migrated(sources: list[Path], name: str, **keys: object) -> Any:
    """The report of a one-shot run, and its images beside the sources; `keys` are the YAML's besides.

    With `vmx` or `ova`, which names the sources, they are not named themselves.
    """
    folder = sources[0].parent
    for source in sources:
        shutil.chown(source, USER, USER)
    config = folder / f"{name}.yaml"
    named = {} if keys.keys() & {"vmx", "ova"} else {"vmdk": sources}
    config.write_text(json.dumps({**named, "vm_name": name, "output_dir": folder, **keys}, default=str))
    argv = service_python("hyper2kvmd.cli.ctl", "--config", config, "--conversion-dir", folder / "conversions")
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((folder / f"{name}.report.json").read_text())
    print(name, {stage: round(seconds, 2) for stage, seconds in report["seconds"].items()}, report["verdict"])
    return report


def images(report: Any) -> list[Path]:
    return [Path(one["path"]) for one in report["published"]]


def changed_what_it_must(report: Any, guest: Guest) -> None:
    """Every file that is on the recipe's list, no other, and no name of the old hardware."""
    paths = {change["path"] for change in report["guest"]["changes"]}
    assert {path for path in paths if not any(fnmatchcase(path, name) for name in guest.mended)} == set()
    assert {name for name in guest.mended if not any(fnmatchcase(path, name) for path in paths)} == set()
    assert [change["path"] for change in report["guest"]["changes"] if OLD_NAME.search(change["diff"])] == []
    assert report["guest"]["warnings"] == []


def changed_nothing(report: Any) -> None:
    assert report["guest"]["changes"] == []
    assert report["guest"]["warnings"] == []
