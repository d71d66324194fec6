"""Unified kernel images: a kernel, its initrd and its command line in one EFI program.

Looks for unstable names on the command line and for an initrd without virtio, as the repairs of separate files do, and
rewrites the program with repaired ones. This invalidates a signature: it is removed, and the family reports it.
Sources: the Boot Loader Specification (type 2 entries), systemd-stub(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hyper2kvmd.errors import MigrationFailed, sentences
from hyper2kvmd.guest.linux import pe
from hyper2kvmd.guest.linux.fixes import initramfs
from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    always,
    stabilized,
    unresolved,
)
from hyper2kvmd.guest.linux.inspect import UNIFIED_LIMIT, Kernel, Unified


def apply(case: Case) -> list[str]:
    """Raises MigrationFailed if none of the images would find its root."""
    warnings: list[str] = []
    failures: list[MigrationFailed] = []
    images = case.system.unified
    for image in reversed(images):  # the newest one first, as long as there is room
        try:
            warnings += _mend(case, image)
        except MigrationFailed as failure:
            failures.append(failure)
            warnings.append(f"{image.path} will not find its disk: {sentences(failure.message, failure.hint)}")
    if images and len(failures) == len(images):
        raise failures[0]
    return warnings


def _mend(case: Case, image: Unified) -> list[str]:
    path = image.path
    program = pe.parse(case.tree.read_bytes(path, UNIFIED_LIMIT))
    if program is None:
        raise pe.not_understood()
    contents: dict[str, bytes] = {}
    facts: list[str] = []
    warnings: list[str] = []
    command_line = program.content(".cmdline")
    if command_line is not None and not case.migration.no_grub:
        rewritten = stabilized(case, command_line.decode(errors="surrogateescape"))
        warnings += unresolved(path, rewritten)
        if rewritten.summary:
            contents[".cmdline"] = rewritten.text.encode(errors="surrogateescape")
            facts.append(rewritten.summary)
    packed = program.content(".initrd")
    if packed is not None and case.migration.regen_initramfs:
        with _as_file(packed) as file:
            more = initramfs.addition(case, _kernel(case, image), file, path)
        warnings += more.warnings
        if more.data:
            contents[".initrd"] = packed[: more.place] + more.data + packed[more.place :]
            facts.append(more.facts)
    if contents:
        case.tree.write_bytes(path, pe.with_sections(program, contents), fix=FIX.name, summary="; ".join(facts))
    return warnings


def _kernel(case: Case, image: Unified) -> Kernel:
    """The kernel whose modules belong to the image."""
    kernel = next((kernel for kernel in case.system.kernels if kernel.version == image.version), None)
    if kernel is None:
        raise MigrationFailed(
            "unified-kernel-orphaned",
            f"{image.path} contains kernel {image.version or '(unknown version)'}, whose modules are not in the guest",
            hint="Remove it in the guest, or install that kernel's modules, then convert again",
        )
    return kernel


@contextmanager
def _as_file(data: bytes) -> Iterator[BinaryIO]:
    with os.fdopen(os.memfd_create("initrd", os.MFD_CLOEXEC), "w+b") as file:
        file.write(data)
        file.seek(0)
        yield file


FIX = Fix("unified-kernel", required=True, wanted=always, apply=apply)
