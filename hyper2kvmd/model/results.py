"""The products of the stages, and those of a job so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import model_validator

from hyper2kvmd.model.disks import COMPACT, Image, Layout
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.machine import Machine, Plan


class Verdict(Frozen):
    """Positive evidence that the image is good; the tuple is never empty."""

    level: Literal["check", "content", "boot"]
    evidence: tuple[str, ...]
    boot_seconds: float | None = None
    console_tail: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was not as it should be in a guest that booted."""


class PublishedDisk(Frozen):
    """One image file in the output directory."""

    path: Path
    file_bytes: int
    """Bytes that it occupies."""
    virtual_size: int = 0
    """Bytes of the guest's disk; 0 in the record of an earlier version."""
    sha256: str | None = None
    inode: int | None = None
    mtime_ns: int | None = None
    """Both from the time of publishing; None in the record of an earlier version."""


class Artifact(Frozen):
    """The files in the output directory."""

    disks: tuple[PublishedDisk, ...]
    format: Literal["qcow2", "raw"]
    report_json: Path
    report_markdown: Path


class Registration(Frozen):
    """The machine at the target."""

    name: str
    """The target knows it by this name."""
    identity: str | None = None
    """The target's own identifier, such as libvirt's UUID; None in the record of an earlier version."""
    files: tuple[Path, ...] = ()
    """The files that `register` wrote: for libvirt, the domain XML."""
    macs: tuple[str, ...]
    defined: bool
    """Whether the target has the machine. If not, it can be defined from the files."""
    uri: str | None = None
    """The target's address, if the machine is defined there."""


RECORD_LIMIT = 1 << 20
"""Bytes of one stage's product on record."""

Product: TypeAlias = Plan | Image | Guest | Verdict | Artifact | Registration
PRODUCTS: Mapping[Stage, type[Product]] = {
    Stage.PLAN: Plan,
    Stage.CONVERT: Image,
    Stage.REPAIR: Guest,
    Stage.VERIFY: Verdict,
    Stage.PUBLISH: Artifact,
    Stage.REGISTER: Registration,
}
"""The product of each stage."""


class Finished(Frozen):
    """The products of the finished stages: all up to one stage, and none after it."""

    plan: Plan | None = None
    image: Image | None = None
    guest: Guest | None = None
    verdict: Verdict | None = None
    artifact: Artifact | None = None
    registration: Registration | None = None

    @model_validator(mode="after")
    def _without_a_gap(self) -> Self:
        there = [product is not None for _, product in self]
        if there != sorted(there, reverse=True):
            raise ValueError("a stage cannot be finished before the stages that lead to it")
        return self

    @staticmethod
    def of(products: Iterable[Product]) -> Finished:
        """These products, in any order. Raises pydantic.ValidationError if one is missing before another."""
        return Finished.model_validate({FIELDS[type(product)]: product for product in products})

    def products(self) -> Mapping[Stage, Product]:
        return {stage: product for stage, (_, product) in zip(PRODUCTS, self, strict=True) if product is not None}

    def without_content(self) -> Self:
        """For the stages after `publish`: without data about the bytes of disks and guest files."""
        nothing = Layout(tables=())
        plan = self.plan and self.plan.with_changes(disks=(), layout=nothing, concerns=())
        image = self.image and self.image.with_changes(disks=(), layout=nothing, evidence=())
        guest = self.guest and self.guest.with_changes(changes=(), warnings=(), fstab_before="", fstab_after="")
        return self.with_changes(plan=plan, image=image, guest=guest)

    def for_outcome(self) -> Self:
        """For a job that has succeeded: what its submitter is told, and the least of the rest."""
        less = self.without_content()
        plan = less.plan and less.plan.with_changes(
            machine=Machine(disks=()), concerns=self.plan.concerns if self.plan else ()
        )
        guest = self.guest and Guest(family=self.guest.family, concerns=self.guest.concerns)
        verdict = self.verdict and Verdict(level=self.verdict.level, evidence=self.verdict.evidence)
        return less.with_changes(plan=plan, guest=guest, verdict=verdict)


def recorded(value: Frozen) -> str:
    """The JSON of a product, or of a type with products, for the record and other processes."""
    return value.model_dump_json(context=dict(COMPACT))


FIELDS: Mapping[type[Product], str] = dict(zip(PRODUCTS.values(), Finished.model_fields, strict=True))
