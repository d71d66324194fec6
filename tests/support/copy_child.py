"""One copy in a process of its own, to be killed: `python -m tests.support.copy_child SOURCE IMAGE KIND RATE`.

SOURCE is a VMDK or a raw file, RATE in bytes per second, 0 for no bound. Prints the bytes read so far, line by line,
a hundred times a second; near its end it waits for whoever is late to kill it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.disk.blocks import Counted
from hyper2kvmd.disk.engine import copy as engine
from hyper2kvmd.disk.engine.copy import Amounts, CopyLimits, copy
from tests.support.sources import RawSource, make_target
from tests.support.vmdk_images import vmdk_source

THREADS = 2
NEARLY = 0.95


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Counted]:
    if path.suffix == ".vmdk":
        with vmdk_source(path) as source:
            yield source
    else:
        with contextlib.closing(RawSource(path)) as raw:
            yield raw


def main(source: str, image: str, kind: str, rate: str) -> None:
    engine.PROGRESS_PERIOD = 0.01

    def say(amounts: Amounts) -> None:
        print(amounts.read, flush=True)
        if amounts.read > amounts.total * NEARLY:
            signal.pause()

    with (
        opened(Path(source)) as disk,
        contextlib.closing(make_target(kind, Path(image), disk.virtual_size)) as target,
    ):
        limits = CopyLimits(threads=THREADS, bytes_per_second=int(rate) or None)
        copy(disk, target, identity="one", limits=limits, on_progress=say)


if __name__ == "__main__":
    main(*sys.argv[1:])
