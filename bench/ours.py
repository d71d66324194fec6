"""Our side of a measurement: what the convert stage calls, in a process that has loaded it, as a worker has."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.engine.compare import first_difference
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.model.disks import LocalFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["convert", "compare"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compress", action="store_true")
    asked = parser.parse_args()
    with open_disk(LocalFile(path=asked.source), asked.target.parent) as source:  # as `plan` did
        data_bytes = source.data_bytes
        print("ready", flush=True)
        sys.stdin.readline()
        if asked.verb == "compare":
            compare(source, asked.target, asked.threads)
        else:
            image = NewImage(asked.target, "qcow2", data_bytes, compress=asked.compress)
            source.copy_into(image, copy.CopyLimits(threads=asked.threads), lambda _amounts: None)


def compare(source: DiskSource, image_path: Path, threads: int) -> None:
    with open_image(image_path, "qcow2") as image:
        found = first_difference(source, image, threads=threads)
    if found is not None:
        raise SystemExit(f"the source and {image_path} differ at offset {found}")


if __name__ == "__main__":
    main()
