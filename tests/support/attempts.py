"""One job, tried again and again as the daemon does it, by a worker in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyper2kvmd.errors import Failure
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.orders import Order, SpaceNeeded
from hyper2kvmd.model.results import FIELDS
from hyper2kvmd.progress import Context, Event, StageFinished, StageStarted
from hyper2kvmd.worker import migrate

MIB = 1 << 20


class Attempts:
    """What was finished is handed to the next attempt."""

    def __init__(self, root: Path, **keys: Any) -> None:
        self.source, self.conversions, self.out = root / "web01.raw", root / "conversions", root / "out"
        self.source.write_bytes(os.urandom(MIB).ljust(4 * MIB, b"\0"))
        self.folder = self.conversions / "web01.7"
        self.result = self.out / "web01.raw"
        migration = Migration(vmdk=(self.source,), vm_name="web01", out_format="raw", **keys)
        self.order = Order(
            job_id="7", migration=migration, conversion_dir=self.conversions, output_dir=self.out, helper=("none",)
        )
        self.kept = True
        self.admitted: list[SpaceNeeded] = []

    def run(self, after: Callable[[Stage], object] = lambda _stage: None) -> tuple[list[Stage], str]:
        """The stages that were started, and the code of the failure. `after` is called when a stage is finished."""
        started: list[Stage] = []

        def emit(event: Event) -> None:
            if isinstance(event, StageStarted):
                started.append(event.stage)
            elif isinstance(event, StageFinished):
                finished = self.order.finished.with_changes(**{FIELDS[type(event.product)]: event.product})
                self.order = self.order.with_changes(finished=finished)
                after(event.stage)

        try:
            migrate(self.order, Context(emit, self.admitted.append), keep_on_failure=self.kept)
        except Failure as failure:
            return started, failure.code
        return started, ""

    def fail_to_publish(self) -> None:
        """Somebody's file appears under the name of the result, once the image is verified."""

        def appear(stage: Stage) -> None:
            if stage is Stage.VERIFY:
                self.out.mkdir()
                self.result.write_text("somebody's")

        assert self.run(appear) == (list(Stage)[:-1], "output-exists")
        self.result.unlink()
