"""Every command that is started is logged as a line that a shell reads as the same words."""

from __future__ import annotations

import logging
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyper2kvmd.host import run

WORDS = st.binary().filter(lambda word: b"\0" not in word).map(os.fsdecode)


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_a_shell_reads_the_same_words(words: list[str]) -> None:
    line = run.shell_line(words)
    assert line.isprintable()
    script = f"printf '%s\\0' {line}"
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert said.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_a_tool_is_logged_without_what_confines_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="hyper2kvmd.host.run")
    run.run(["printf", "%s\n", "/exports/web 01.vmdk"], sandbox=run.Sandbox())
    process = run.start(["/bin/true", "a\nb"], stderr=subprocess.STDOUT)
    run.stop(process)
    assert [record.getMessage() for record in caplog.records] == [
        "printf $'%s\\x0a' '/exports/web 01.vmdk'",
        "/bin/true $'a\\x0ab'",
    ]
