"""`hyper2kvmd` with another worker program: `small_daemon.py CONFIG WORKER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hyper2kvmd import config
from hyper2kvmd.daemon import service, storage
from hyper2kvmd.errors import Failure

HANG_SECONDS = "SMALL_DAEMON_HANG_SECONDS"
"""The variable with the time after which a file system hangs."""


def main() -> None:
    storage.HANG_SECONDS = float(os.environ.get(HANG_SECONDS, storage.HANG_SECONDS))
    path = Path(sys.argv[1])
    try:
        service.serve(config.load(path), path, worker=(sys.executable, "-I", sys.argv[2]))
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
