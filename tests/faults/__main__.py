"""`python -m tests.faults MODULE:FUNCTION KEY=VALUE ...`: one case again, in a box of its own; its folder is kept."""

from __future__ import annotations

import os
import sys

from tests.faults.box import KEEP, arguments_of, run


def main() -> None:
    os.environ.setdefault(KEEP, "1")
    run(sys.argv[1], **arguments_of(sys.argv[2:]))


if __name__ == "__main__":
    main()
