"""Our side of a measurement: what the convert stage calls, in a process that has loaded it, as a worker has."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hyper2kvmd.disk import copy, qemu_img, vmdk
from hyper2kvmd.disk.compare import first_difference
from hyper2kvmd.disk.conversion import convert_vmdk
from hyper2kvmd.disk.qcow2_reader import open_image
from hyper2kvmd.model import FileIdentity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["convert", "compare"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--source-format", default="vmdk", choices=["vmdk", "raw", "vhdx", "vdi", "qcow2"])
    asked = parser.parse_args()
    files: tuple[FileIdentity, ...] = ()
    if asked.source_format == "vmdk":  # as `plan` did
        with vmdk.open_source(asked.source) as source:
            files = source.files
    print("ready", flush=True)
    sys.stdin.readline()
    if asked.verb == "compare":
        compare(asked.source, asked.target, asked.threads)
    elif asked.source_format == "vmdk":
        limits = copy.Limits(threads=asked.threads)
        convert_vmdk(asked.source, files, asked.target, "qcow2", compress=asked.compress, limits=limits)
    else:
        qemu_img.convert(
            asked.source,
            asked.source_format,
            (asked.source,),
            asked.target,
            "qcow2",
            compress=asked.compress,
            preallocate=False,
            on_percent=lambda _percent: None,
        )


def compare(source_path: Path, image_path: Path, threads: int) -> None:
    with vmdk.open_source(source_path) as source, open_image(image_path, "qcow2") as image:
        found = first_difference(source, image, threads=threads)
    if found is not None:
        raise SystemExit(f"{source_path} and {image_path} differ at offset {found}")


if __name__ == "__main__":
    main()
