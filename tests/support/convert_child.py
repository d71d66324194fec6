"""One conversion in a process of its own, to be killed: `python -m tests.support.convert_child SOURCE FOLDER RATE`.

Prints the bytes read so far, line by line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hyper2kvmd.disk.engine.copy import Limits
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.conversion import convert
from hyper2kvmd.stages.plan import read_sources


def main(source: str, folder: str, rate: str) -> None:
    disks, _ = read_sources((Path(source),), Path(folder))
    convert(
        disks[0],
        NewImage(Path(folder) / "disk1.qcow2", "qcow2", disks[0].data_bytes),
        limits=Limits(threads=2, bytes_per_second=int(rate)),
        on_progress=lambda amounts: print(amounts.read, flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
