"""One copy in a process of its own, to be killed: `python -m tests.integration.copy_child SOURCE IMAGE KIND RATE`.

Prints the bytes read so far, line by line, and at the end how many of them an earlier process had read. It records a
checkpoint after every window, so that small disks have many.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from hyper2kvmd.disk import copy_worker
from hyper2kvmd.disk.copy import Limits, copy
from tests.integration.sources import RawSource, make_target


def main(source: str, image: str, kind: str, rate: str) -> None:
    copy_worker.CHECKPOINT_SECONDS = 0.0
    with (
        contextlib.closing(RawSource(Path(source))) as disk,
        contextlib.closing(make_target(kind, Path(image), disk.virtual_size)) as target,
    ):
        moved = copy(
            disk,
            target,
            identity="one",
            limits=Limits(threads=2, bytes_per_second=int(rate)),
            on_progress=lambda amounts: print(amounts.read, flush=True),
        )
    print(moved.resumed)


if __name__ == "__main__":
    main(*sys.argv[1:])
