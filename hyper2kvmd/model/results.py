"""What the stages after the repair produce, and what a job has finished so far."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Source


class Verdict(Frozen):
    """Positive evidence that the image is good; an empty tuple never happens."""

    level: Literal["check", "content", "boot"]
    evidence: tuple[str, ...]
    boot_seconds: float | None = None
    console_tail: tuple[str, ...] = ()


class PublishedDisk(Frozen):
    """One image file in the output directory."""

    path: Path
    file_bytes: int
    """What it occupies."""
    sha256: str | None = None


class Artifact(Frozen):
    """What was put in the output directory."""

    disks: tuple[PublishedDisk, ...]
    format: Literal["qcow2", "raw"]
    report_json: Path
    report_markdown: Path


class Domain(Frozen):
    """The libvirt side: the XML beside the image, and whether libvirt has it."""

    name: str
    xml: Path
    macs: tuple[str, ...]
    defined: bool
    uri: str | None = None


class Finished(Frozen):
    """What earlier attempts of the job completed; a stage whose product is here does not run again."""

    source: Source | None = None
    image: Image | None = None
    guest: Guest | None = None
    verdict: Verdict | None = None
    artifact: Artifact | None = None
    domain: Domain | None = None
