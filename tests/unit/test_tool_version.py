"""The versions of programs, as doctor and the page of the host show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.host.tool_version import tool_version


@pytest.mark.parametrize(("mode", "version"), [(0o755, "1.2.3"), (0o4755, None)])
def test_a_setuid_program_is_not_started_for_its_version(tmp_path: Path, mode: int, version: str | None) -> None:
    program, mark = tmp_path / "tool", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {mark}\necho tool 1.2.3\n")
    program.chmod(mode)
    assert tool_version(str(program)) == version
    assert mark.exists() == (version is not None)
