"""Log lines as the journal gets them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOSTILE = """
import logging
from hyper2kvmd.daemon import journal
journal.set_up("info")
logging.warning("%s rejected", "evil\\x1b[2J\\a.yaml\\n<0>forged\\u2028line\\udcff")
"""


def test_a_message_is_one_printable_line() -> None:
    command = [sys.executable, "-c", HOSTILE]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.endswith("WARNING evil\ufffd[2J\ufffd.yaml / <0>forged / line\ufffd rejected")
