"""`hyper2kvmd` with another worker program: `small_daemon.py CONFIG WORKER`."""

from __future__ import annotations

import sys
from pathlib import Path

from hyper2kvmd import config
from hyper2kvmd.daemon import service
from hyper2kvmd.errors import Failure


def main() -> None:
    path = Path(sys.argv[1])
    try:
        service.serve(config.load(path), path, worker=(sys.executable, "-I", sys.argv[2]))
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
