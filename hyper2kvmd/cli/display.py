"""A running migration on a terminal (a progress bar) or anywhere else (plain lines)."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hyper2kvmd import progress
from hyper2kvmd.cli.output import printable
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.units import duration, size

PLAIN_STEP = 0.1
"""Share of a step between two of its plain lines."""


class Display:
    """Shows a worker's events while it is entered; `emit` fits `progress.Context`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._said = 0.0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            title, measure = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[measure]}")
            columns = (title, BarColumn(), measure, TimeRemainingColumn())
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def emit(self, event: progress.Event) -> None:
        match event:
            case progress.StageStarted():
                self._stage = event.stage.value
            case progress.StepStarted():
                self._step(event.title, event.total)
            case progress.Progress():
                self._advance(event.title, event.done, event.total)
            case progress.StageFinished():
                self._drop_bar()
                self._print(f"{event.stage.value}: done in {duration(event.seconds)}", style="green")
            case progress.Warned(level="warning"):
                self._print(f"warning: {event.message}", style="yellow")
            case progress.Warned():
                self._print(f"note: {event.message}")
            case progress.MachineDecided():
                self._drop_bar()
                for line in event.lines:
                    self._print(line)
            case progress.CommandStarted() | progress.HelperAnswered() | progress.AwaitingSpace() | progress.Ended():
                pass

    def _step(self, title: str, total: int | None) -> None:
        self._said = 0.0
        if self._bars is None:
            self._print(self._titled(title))
            return
        self._drop_bar()
        self._task = self._bars.add_task(printable(self._titled(title)), total=total, measure="")

    def _advance(self, title: str, done: int, total: int) -> None:
        if self._bars is not None:
            if self._task is not None:
                speed = self._bars.tasks[0].speed
                measure = f"{size(done)} of {size(total)}" + (f", {size(int(speed))}/s" if speed else "")
                self._bars.update(self._task, completed=done, total=total, measure=measure)
            return
        share = done / total if total else 1.0
        if share - self._said >= PLAIN_STEP or (done >= total and self._said < 1.0):
            self._said = share
            self._print(f"{self._titled(title)}: {share:.0%} ({size(done)} of {size(total)})")

    def _titled(self, title: str) -> str:
        return f"{self._stage}: {title}" if self._stage else title

    def _drop_bar(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(printable(text), style=style), soft_wrap=True)


class HeldWarnings:
    """Keeps the warnings of a plan until it is there: those that are shown with it are not shown twice."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._held: list[progress.Warned] = []

    def emit(self, event: progress.Event) -> None:
        if isinstance(event, progress.Warned):
            self._held.append(event)
        else:
            self._display.emit(event)

    def release(self, shown: Iterable[Concern] = ()) -> None:
        """Show all but these."""
        known = {progress.warning_text(str(concern)) for concern in shown}
        for event in self._held:
            if event.message not in known:
                self._display.emit(event)
        self._held.clear()
