"""A worker's events as lines, and as a bar on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from hyper2kvmd import progress
from hyper2kvmd.cli.display import Display
from hyper2kvmd.cli.output import printable
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.jobs import Stage

GIB = 1 << 30
IMAGE = Image(disks=(), format="raw", layout=Layout(tables=()))


def work(display: Display) -> None:
    context = progress.Context(display.emit, lambda _source: None)
    display.emit(progress.StageStarted(stage=Stage.CONVERT))
    display.emit(progress.StepStarted(title="Copying disk 1/1", total=GIB))
    for percent in range(101):
        display.emit(progress.Progress(title="Copying disk 1/1", done=GIB * percent // 100, total=GIB))
    context.warn("no swap\x1b[31m here")
    context.machine_decided(("name: web01", "network card 1: LAN\x1b[31m"))
    display.emit(progress.StageFinished(stage=Stage.CONVERT, seconds=1.25, product=IMAGE))


def rendered(*, terminal: bool) -> str:
    stream = io.StringIO()
    with Display(Console(file=stream, force_terminal=terminal, width=120)) as display:
        work(display)
    return stream.getvalue()


def test_plain_lines() -> None:
    lines = rendered(terminal=False).splitlines()
    assert lines[0] == "convert: Copying disk 1/1"
    assert len(lines) <= 16
    assert "convert: Copying disk 1/1: 100% (1.0 GiB of 1.0 GiB)" in lines
    assert lines[-3:] == ["name: web01", "network card 1: LAN\ufffd[31m", "convert: done in 1.2 s"]
    assert not any("\x1b" in line for line in lines)


def test_a_bar_on_a_terminal() -> None:
    text = rendered(terminal=True)
    assert "convert: Copying disk 1/1" in text
    assert "━" in text
    assert "convert: done in 1.2 s" in text
    assert "warning: no swap" in text
    assert "name: web01" in text
    assert "\x1b[31m here" not in text


def test_strangers_get_no_power_over_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202e") == "a\ufffd[2Jb\ufffdc\ufffd"
