"""Runs our own code in a child process that is killed before one of its lines."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Line = tuple[str, int]
"""A file and a line in it."""


def lines_of(work: Callable[[], object], files: Collection[Path]) -> tuple[Line, ...]:
    """The different lines of these files that `work` runs, in the order in which they first run."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        seen: dict[Line, None] = {}
        _run_and_exit(work, files, lambda line: seen.setdefault(line), lambda: os.write(write, _text(seen)))
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    assert os.waitpid(child, 0)[1] == 0
    pairs = (line.rpartition(":") for line in text.splitlines())
    return tuple((file, int(number)) for file, _, number in pairs)


def line_of(function: Callable[..., object]) -> Line:
    """The first line of the body of a function whose signature and docstring have one line each."""
    code = inspect.unwrap(function).__code__
    return code.co_filename, code.co_firstlineno + 2


def killed_before(line: Line, work: Callable[[], object], *, time: int = 1) -> bool:
    """Whether `work` came to the line for that time, and so was killed."""
    child = os.fork()
    if child == 0:
        left = [None] * time

        def kill(now: Line) -> None:
            if now == line:
                left.pop()
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        _run_and_exit(work, [Path(line[0])], kill)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _text(lines: Iterable[Line]) -> bytes:
    return "\n".join(f"{file}:{number}" for file, number in lines).encode()


def _run_and_exit(
    work: Callable[[], object],
    files: Collection[Path],
    seen: Callable[[Line], object],
    at_the_end: Callable[[], object] = lambda: None,
) -> NoReturn:
    """In a child process, which must never return to its test."""
    names = {str(path) for path in files}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in names:
            return None
        if event == "line":
            seen((frame.f_code.co_filename, frame.f_lineno))
        return trace

    try:
        sys.settrace(trace)
        work()
        sys.settrace(None)
        at_the_end()
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)
