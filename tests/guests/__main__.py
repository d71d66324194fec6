"""Build a guest and print the path of its disk: `python -m tests.guests NAME`."""

from __future__ import annotations

import argparse
import subprocess

from tests.guests.build import build
from tests.guests.catalogue import GUESTS
from tests.guests.guest import Subformat, disk, vmdk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=GUESTS)
    parser.add_argument("--subformat", choices=Subformat.__args__, help="print a VMDK instead of the raw disk")  # type: ignore[attr-defined]
    parser.add_argument("--build", action="store_true", help="build now, as root, in this mount namespace")
    arguments = parser.parse_args()
    guest = GUESTS[arguments.name]
    if arguments.build:
        build(guest)
        return
    try:
        print(vmdk(guest, arguments.subformat) if arguments.subformat else disk(guest))
    except subprocess.CalledProcessError as error:  # the builder has said why
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
