"""One attempt of one job: runs a worker process from start to end, and records its events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.pace import Pace
from hyper2kvmd.daemon.stall import StallWatch, activity_of
from hyper2kvmd.daemon.tally import Tally
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import RunningJob
from hyper2kvmd.host.run import spawn_worker
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.jobs import Job, Problem, Stage
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Product, recorded
from hyper2kvmd.progress import (
    AwaitingRecord,
    AwaitingSpace,
    CommandStarted,
    Ended,
    Event,
    HelperAnswered,
    MachineDecided,
    Progress,
    StageFinished,
    StageStarted,
    StepStarted,
    Warned,
    read_event,
)
from hyper2kvmd.units import duration

log = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""Time for a worker to exit after its last event."""
CANCEL_SECONDS = 4.0
"""Time for a worker to clean up after SIGTERM. What it leaves then is closed by the kernel, or used by a retry."""
STOP_SECONDS = 40.0
"""The same when the daemon stops: enough to write everything to a guest's file systems and to unmount them."""
MEASURED_SECONDS = 1.0
"""A shorter conversion shows how long its preparation takes, and no rate."""
STALL_LOOK_SECONDS = 1.0
PERSIST_SECONDS = 1.0
"""Time between two writes of one job's progress to the database."""


@dataclass(frozen=True)
class Result:
    """How an attempt ended. `crashed`: without a valid last event."""

    outcome: Literal["succeeded", "failed", "interrupted", "deferred", "fenced"]
    problems: tuple[Problem, ...] = ()
    artifact: Artifact | None = None
    crashed: bool = False


class Attempt:
    def __init__(
        self,
        job: Job,
        order: Order,
        ledger: Ledger,
        metrics: Metrics,
        admit: Callable[[AwaitingSpace], Awaitable[bool]],
        stall: StallWatch,
    ) -> None:
        self.job = job
        self.cancelled = False
        self.stopped = False
        """The daemon ended it."""
        self._log = JobLog(log, job.id)
        self._order, self._ledger, self._metrics, self._admit = order, ledger, metrics, admit
        self._process: asyncio.subprocess.Process | None = None
        self._stage: Stage | None = None
        self._step = ""
        self._pace = Pace(None)
        self._tally = Tally(ledger)
        self._read = self._written = self._counted = 0
        self._data_bytes = 0
        self._persisted = 0.0
        self._killer: asyncio.Task[None] | None = None
        self._stall, self._stall_ended = stall, False

    def view(self) -> RunningJob:
        now, pace = time.monotonic(), self._pace
        return RunningJob(
            id=self.job.id,
            vm_name=self.job.vm_name,
            attempt=self.job.attempt,
            stage=self._stage,
            step=self._step,
            progress=pace.progress,
            started=self.job.started or datetime.now(UTC),
            cancelling=self.cancelled,
            submitter_uid=self.job.submitter_uid,
            bytes_done=None if pace.total is None else pace.done,
            bytes_total=pace.total,
            bytes_per_second=pace.bytes_per_second(now),
            eta_seconds=pace.eta_seconds(now),
        )

    def cancel(self) -> None:
        """Ask the worker to stop, and kill it if it does not."""
        if not self.cancelled:
            self.cancelled = True
            self._terminate(CANCEL_SECONDS)

    def stop(self) -> None:
        """Ask the worker to stop because the daemon does; the next attempt continues from the files that it leaves."""
        if not self.stopped:
            self.stopped = True
            self._terminate(STOP_SECONDS)

    async def run(self, argv: Sequence[str]) -> Result:
        """Start the worker and follow it; returns when its process is gone."""
        try:
            self._process = process = await spawn_worker(argv)
        except OSError as error:
            return Result("failed", (_problem("worker-not-started", f"no worker could be started: {error.strerror}"),))
        watching = asyncio.create_task(self._watch_stall(process))
        self._log.info("%s, attempt %d, worker %d", self.job.vm_name, self.job.attempt, process.pid)
        try:
            if self.cancelled or self.stopped:
                self._terminate(CANCEL_SECONDS if self.cancelled else STOP_SECONDS)
            await self._send(process, recorded(self._order))
            if self._order.finished.plan is not None:
                await self._compare_cards(self._order.finished.plan)
            result = await self._follow(process)
            return self._stalled_result() if self._stall_ended and result.outcome != "succeeded" else result
        finally:
            watching.cancel()
            _kill(process)
            await process.wait()
            if self._killer is not None:
                self._killer.cancel()
            await self._tally.record()

    async def _follow(self, process: asyncio.subprocess.Process) -> Result:
        assert process.stdout is not None  # noqa: S101 - narrows the type
        while True:
            try:
                line = await process.stdout.readline()
                if not line:
                    return await self._crashed(process)
                event = read_event(line)
            except (ValueError, ValidationError) as error:
                reason = " ".join(str(error).split())[:300]
                return _crash(f"the worker sent an invalid event: {reason}")
            if isinstance(event, Ended):
                if event.traceback:
                    self._log.error("%s", event.traceback)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), GRACE_SECONDS)
                return Result(event.outcome, event.problems, event.product.artifact)
            if not await self._take(event, process):
                self._log.warning("attempt %d is no longer the latest of the job", self.job.attempt)
                return Result("fenced")

    async def _take(self, event: Event, process: asyncio.subprocess.Process) -> bool:
        """Record one event; False when this attempt was fenced off."""
        job, ledger, store = self.job, self._ledger, self._ledger.store
        if isinstance(event, Progress):
            self._stall.move_bytes(event.done, event.written, time.monotonic())
        else:
            self._stall.move(time.monotonic())
        match event:
            case StageStarted(stage=stage):
                self._log.info("%s", stage.value)
                self._enter(stage)
                return await ledger.ensure(store.start_stage, job.id, job.attempt, stage)
            case StageFinished(stage=stage, seconds=seconds, product=product):
                self._log.info("%s finished in %.1f s", stage.value, seconds)
                self._metrics.stage_finished(stage, seconds, product, self._counted)
                await self._measure(seconds, product)
                await self._tally.record()
                if isinstance(product, Plan):
                    await self._compare_cards(product)
                return await ledger.ensure(store.finish_stage, job.id, job.attempt, stage, seconds, product)
            case StepStarted(title=title, total=total):
                self._log.debug("%s", title)
                self._step, self._pace = title, Pace(total)
                self._read = self._written = 0
            case Progress():
                return await self._advance(event)
            case Warned(message=message, level="information"):
                self._log.info("%s", message)
                return await ledger.ensure(store.record_note, job.id, job.attempt, message)
            case Warned(message=message):
                self._log.warning("%s", message)
                self._metrics.warned()
                return await ledger.ensure(store.record_warning, job.id, job.attempt, message)
            case MachineDecided(lines=lines):
                for line in lines:
                    self._log.info("%s", line)
                return await ledger.ensure(store.record_machine, job.id, job.attempt, lines)
            case CommandStarted(line=line):
                self._log.debug("%s", line)
            case HelperAnswered(verb=verb, outcome=outcome):
                self._metrics.helper_answered(verb, outcome)
            case AwaitingSpace():
                await self._send(process, "go" if await self._admit(event) else "wait")
            case AwaitingRecord():
                await self._send(process, "recorded")
        return True

    async def _watch_stall(self, process: asyncio.subprocess.Process) -> None:
        """Report and end a worker that moves nothing: it may wait for a dead server, which no error ends."""
        while True:
            await asyncio.sleep(STALL_LOOK_SECONDS)
            if self._stall.is_silent(time.monotonic()):
                self._stall.compare(await in_a_thread("activity", activity_of, process.pid), time.monotonic())
            if self._stall.end_due(time.monotonic()) and not self._stall_ended:
                self._stall_ended = True
                self._log.warning("%s", self._stalled_result().problems[0].message)
                self._terminate(CANCEL_SECONDS)
            if self._stall.report_due(time.monotonic()):
                concern = self._stalled()
                self._log.warning("%s", concern)
                self._metrics.warned()
                store = self._ledger.store
                await self._ledger.ensure(store.record_stall, self.job.id, self.job.attempt, str(concern))

    def _stalled(self) -> Concern:
        return Concern(
            code="job-stalled",
            message=f"{self._no_byte_for(self._stall.report_seconds)}, in {self._where()}",
            hint="Check the storage of the source and of the conversion directory. The job continues when they respond."
            f" To stop it, run `h2kvmctl cancel {self.job.id}`",
        )

    def _stalled_result(self) -> Result:
        fact = f"{self._no_byte_for(self._stall.end_seconds)}, in {self._where()}: its worker was ended"
        hint = "Check the storage of the source and of the conversion directory"
        return Result("failed", (Problem(code="job-without-progress", message=fact, hint=hint, kind="retry"),))

    def _no_byte_for(self, seconds: float) -> str:
        return f"{self.job.vm_name} has moved no byte for {duration(seconds)}"

    def _where(self) -> str:
        return f"{self._stage or 'its beginning'}{': ' + self._step if self._step else ''}"

    async def _measure(self, seconds: float, product: Product) -> None:
        """Keep the rate of a conversion that is no continuation of an earlier attempt's."""
        if isinstance(product, Plan):
            self._data_bytes = sum(disk.data_bytes for disk in product.disks)
        elif isinstance(product, Image) and self.job.attempt == 1 and seconds >= MEASURED_SECONDS and self._data_bytes:
            store = self._ledger.store
            await self._ledger.ensure(store.record_conversion, self.job.id, 1, self._data_bytes, seconds)

    async def _compare_cards(self, planned: Plan) -> None:
        """The worker knows the libvirt that it defines the machine in, and no other jobs."""
        macs = [nic.mac for nic in planned.machine.nics if nic.mac is not None]
        for concern in await self._ledger.ensure(self._ledger.store.record_macs, self.job.id, self.job.attempt, macs):
            self._log.warning("%s", concern)

    def _enter(self, stage: Stage) -> None:
        """A conversion that continues is logged with its first progress. A plan is always made anew."""
        continues = self._stage is None and self._order.finished.plan is not None
        if continues and stage not in (Stage.PLAN, Stage.CONVERT):
            self._log.info("%s continues at %s", self.job.vm_name, stage.value)
        self._stage, self._step, self._pace = stage, "", Pace(None)

    async def _advance(self, event: Progress) -> bool:
        if self._stage is Stage.CONVERT:
            await self._count(event)
        self._step = event.title
        self._pace.total = event.total
        self._pace.advance_to(event.done, time.monotonic())
        if time.monotonic() - self._persisted < PERSIST_SECONDS:
            return True
        self._persisted = time.monotonic()
        return await self._ledger.ensure(
            self._ledger.store.record_progress, self.job.id, self.job.attempt, self._pace.progress or 0.0
        )

    async def _count(self, event: Progress) -> None:
        """Count what this attempt has moved, not what it found done."""
        if event.resumed and not self._read:
            self._read = event.resumed
            part = 100 * event.resumed / event.total
            self._log.info("%s continues at convert, %.0f %%: %s", self.job.vm_name, part, event.title)
        read, written = max(0, event.done - self._read), max(0, event.written - self._written)
        self._read, self._written = event.done, event.written
        self._counted += written
        self._metrics.moved(read, written)
        await self._tally.add(read, written)

    async def _send(self, process: asyncio.subprocess.Process, line: str) -> None:
        assert process.stdin is not None  # noqa: S101 - narrows the type
        with contextlib.suppress(ConnectionError):  # the end of its stdout shows that a worker is gone
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()

    async def _crashed(self, process: asyncio.subprocess.Process) -> Result:
        try:
            code = await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            fact = "the worker closed its output and did not exit"
        else:
            fact = (
                f"the worker died of signal {-code} ({signal.strsignal(-code)})"
                if code < 0
                else f"the worker exited with status {code}"
            )
        return _crash(f"{fact}, {f'in {self._stage}' if self._stage else 'before its first stage'}")

    def _terminate(self, patience_seconds: float) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        if self._killer is not None:
            self._killer.cancel()
        self._killer = asyncio.create_task(self._kill_later(self._process, patience_seconds))

    async def _kill_later(self, process: asyncio.subprocess.Process, patience_seconds: float) -> None:
        await asyncio.sleep(patience_seconds)
        self._log.warning("the worker did not exit within %.0f s and is killed", patience_seconds)
        _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the worker and its tools, as long as they are certain to be this worker's.

    A tool can be frozen, and the worker then waits in the kernel until it is gone: an exporter serves the guest's
    mount. The helper of sudo is root's, and ends when its socket closes.
    """
    if process.returncode is None:
        import psutil

        tools: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            tools = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for tool in tools:
            with contextlib.suppress(psutil.Error):
                tool.kill()


def _crash(fact: str) -> Result:
    return Result("failed", (_problem("worker-crashed", fact),), crashed=True)


def _problem(code: str, message: str) -> Problem:
    return Problem(
        code=code,
        message=message,
        hint="Look for the job's number in the daemon's log",
        kind="retry",
    )
