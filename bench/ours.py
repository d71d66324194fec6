"""Our side of a measurement: the engine called as the convert stage calls it, in a process that has loaded it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["convert", "compare"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--source-format", default="vmdk")
    asked = parser.parse_args()
    print("ready", flush=True)
    sys.stdin.readline()
    subprocess.run(
        ["qemu-img", "convert", "-m", "16", "-W", "-O", "qcow2", "-f", asked.source_format, asked.source, asked.target],
        check=True,
    )


if __name__ == "__main__":
    main()
