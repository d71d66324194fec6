"""One conversion in a process of its own, to be killed: `python -m tests.support.convert_child SOURCE FOLDER RATE`.

Prints the bytes read so far, line by line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hyper2kvmd.disk.engine.copy import CopyLimits
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.model.disks import LocalFile


def main(source: str, folder: str, rate: str) -> None:
    with open_disk(LocalFile(path=Path(source)), Path(folder)) as disk:
        disk.copy_into(
            NewImage(Path(folder) / "disk1.qcow2", "qcow2", disk.data_bytes),
            CopyLimits(threads=2, bytes_per_second=int(rate)),
            lambda amounts: print(amounts.read, flush=True),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
