"""Removes what a killed job has left in its output directory: a program of its own, which the daemon can kill.

The directory is the submitter's, who can make it hang. It runs as `python -I -m hyper2kvmd.host.tidying`, reads one
`Order` from stdin, and writes the hidden names that are gone as JSON to stdout.
"""

from __future__ import annotations

import json
import os
import sys

from hyper2kvmd.errors import Failure
from hyper2kvmd.host import run
from hyper2kvmd.host.destination import real_output_dir
from hyper2kvmd.host.leftovers import tidy_output_of
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import recorded

COMMAND = (sys.executable, "-I", "-m", "hyper2kvmd.host.tidying")
SECONDS = 30.0
"""For a directory that responds, a second is enough."""


def tidied(order: Order, *, dry_run: bool = False) -> tuple[str, ...]:
    """Run the program for a job that has ended; returns the hidden names that are gone, or would be.

    Raises MigrationFailed (`tool-failed`, `tool-stalled`).
    """
    with os.fdopen(os.memfd_create("order", os.MFD_CLOEXEC), "w+b") as given:
        given.write(recorded(order).encode())
        given.seek(0)
        command = [*COMMAND, *(["--dry-run"] if dry_run else [])]
        said = run.run(command, stdin=given.fileno(), stall_seconds=SECONDS, environment={"LC_ALL": "C.UTF-8"}).stdout
    return tuple(json.loads(said))


def main(arguments: list[str]) -> int:
    order = Order.model_validate_json(sys.stdin.read())
    names: tuple[str, ...] = ()
    try:
        order = order.with_changes(output_dir=real_output_dir(order))
        names = tidy_output_of(order, dry_run="--dry-run" in arguments)
    except FileNotFoundError:
        pass  # the directory is gone, and its files with it
    except (Failure, OSError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    json.dump(names, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
