"""One migration, from plan to register; read this second, after model/.

`migrate` runs in a worker process of the daemon and in `h2kvmctl --config`, and never touches the database. The worker
process is this module: it reads an `Order` as one JSON line from stdin, and writes events as JSON lines to stdout.
Stages are imported when they run: a worker is there at once, and an attempt that continues needs few of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from hyper2kvmd import units
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import (
    Failure,
    Interrupted,
    Kind,
    MigrationFailed,
    TryLater,
)
from hyper2kvmd.host import run, space
from hyper2kvmd.host.destination import nearest_output, output_of
from hyper2kvmd.host.hooks import HookInput, Moment, run_hook
from hyper2kvmd.host.leftovers import remove_drafts_of
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import name_of
from hyper2kvmd.host.stage_record import StageRecord
from hyper2kvmd.host.workspace import as_before, discard_images, working_folder
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Stage, leaves_no_image
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.orders import Order, SpaceNeeded
from hyper2kvmd.model.results import RECORD_LIMIT, Artifact, Finished, Product, Registration, Verdict, recorded
from hyper2kvmd.progress import (
    MAX_LINE,
    MAX_TRACEBACK,
    AwaitingRecord,
    AwaitingSpace,
    CommandStarted,
    Context,
    Ended,
    Event,
    StageFinished,
    StageStarted,
    problem,
    problems,
)
from hyper2kvmd.stages.bench import Bench, with_real_directories

if TYPE_CHECKING:  # imported by the stages that need it
    from hyper2kvmd.disk.qemu.overlays import Overlays

Made = TypeVar("Made", bound=Product)
EMITTING = threading.Lock()
BY_HAND = "The new machine is complete: correct the cause, then run the program by hand"


def migrate(order: Order, ctx: Context, *, keep_on_failure: bool = False) -> Finished:
    """Run every stage that `order.finished` lacks, and return all products.

    With `dry_run` it ends after the plan. The working folder is removed, except with `keep_on_failure` when this
    raises: the job can be retried then.
    """
    if order.migration.dry_run:
        return Finished(plan=plan_only(order, ctx))
    order = with_real_directories(order)
    with (
        working_folder(
            order.conversion_dir,
            order.migration.vm_name,
            order.job_id,
            purpose=order.purpose,
            keep_on_failure=keep_on_failure,
        ) as folder,
        Sources(folder, Mandate.of(order), ctx.admit) as sources,
    ):
        bench = Bench(order, folder, ctx, sources)
        line = _Line(bench, StageRecord(folder))
        with line.dropped_if_in_doubt():
            finished = _all_stages(bench, line)
        ctx.await_record()
    return finished


def _all_stages(bench: Bench, line: _Line) -> Finished:
    order, ctx, done = bench.order, bench.ctx, line.done
    planned = line.run(Stage.PLAN, done.plan, lambda: _plan_for_run(bench))
    if done.artifact is None:  # published images need no space
        if order.attempt > 1:
            _remove_drafts(order)
        ctx.admit(_space_needed(planned))
    if done.image is None:
        bench.discard_changes()
        _run_hooks(bench, "before")
    image = line.run(Stage.CONVERT, done.image, lambda: _convert(bench, planned))
    bench.sources.close()
    guest = line.run(Stage.REPAIR, done.guest, lambda: _repair(bench, planned, image))
    from hyper2kvmd.hardware import decide_hardware
    from hyper2kvmd.machine_overview import overview

    hardware = decide_hardware(order.migration, planned, guest)
    if done.artifact is None:  # the plan on record of a published machine has no disks
        ctx.machine_decided(overview(order.migration, planned, hardware, guest).lines())
    verdict = line.run(Stage.VERIFY, done.verdict, lambda: _verify(bench, hardware, image, guest))
    artifact = line.run(Stage.PUBLISH, done.artifact, lambda: _publish(bench, planned, hardware, image, guest, verdict))
    discard_images(bench.folder)  # a copy elsewhere is the image now
    registration = line.run(Stage.REGISTER, done.registration, lambda: _register(bench, hardware, guest, artifact))
    _run_hooks(bench, "after", artifact)
    return Finished(
        plan=planned, image=image, guest=guest, verdict=verdict, artifact=artifact, registration=registration
    )


def _remove_drafts(order: Order) -> None:
    """Those of a killed attempt take the space that this one asks for. `publish` judges the directory."""
    with contextlib.suppress(Failure, OSError), output_of(order) as directory:
        remove_drafts_of(order, directory)


def _convert(bench: Bench, planned: Plan) -> Image:
    from hyper2kvmd.stages.convert import convert

    return convert(bench, planned)


def _repair(bench: Bench, planned: Plan, image: Image) -> Guest:
    from hyper2kvmd.stages.repair import repair

    return repair(bench, planned, image)


def _verify(bench: Bench, hardware: Hardware, image: Image, guest: Guest) -> Verdict:
    from hyper2kvmd.stages.verify import verify

    return verify(bench, hardware, image, guest)


def _publish(bench: Bench, planned: Plan, hardware: Hardware, image: Image, guest: Guest, verdict: Verdict) -> Artifact:
    from hyper2kvmd.stages.publish import publish

    return publish(bench, planned, hardware, image, guest, verdict)


def _register(bench: Bench, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
    from hyper2kvmd.stages.register import register

    return register(bench, hardware, guest, artifact)


class _Line:
    """The stages of one attempt, which continues from the results of earlier ones."""

    def __init__(self, bench: Bench, record: StageRecord) -> None:
        self._bench, self._record = bench, record
        self._known = record.read()
        self.done = _valid_products(bench, self._known.finished)
        if self.done != self._known.finished:
            record.start(self.done, self._known.seconds)

    def run(self, stage: Stage, earlier: Made | None, work: Callable[[], Made]) -> Made:
        """The product of the stage: the `earlier` one, or that of `work`, durable before it is announced."""
        if earlier is None:
            return _stage(self._bench.ctx, stage, work, self._record)
        if stage not in self._bench.order.finished.products():
            self._bench.ctx.emit(StageStarted(stage=stage))
            seconds = self._known.seconds.get(stage, 0.0)
            self._bench.ctx.emit(StageFinished(stage=stage, seconds=seconds, product=earlier))
        return earlier

    @contextmanager
    def dropped_if_in_doubt(self) -> Iterator[None]:
        """After an error with which the images cannot be used, the next attempt starts over."""
        try:
            yield
        except Failure as failure:
            if leaves_no_image(failure.kind, failure.code):
                self._record.drop()
            raise


def _run_hooks(bench: Bench, moment: Moment, artifact: Artifact | None = None) -> None:
    """Raises as `run_hook` does, unless the machine is made already: then it is a warning."""
    order, migration = bench.order, bench.migration
    told = HookInput(
        moment=moment,
        job_id=order.job_id,
        attempt=order.attempt,
        vm_name=migration.vm_name,
        submitter=order.submitter,
        sources=migration.sources,
        target=migration.target,
        images=tuple(disk.path for disk in artifact.disks) if artifact else (),
        report=artifact.report_json if artifact else None,
    )
    for name in migration.hooks.before if moment == "before" else migration.hooks.after:
        with bench.ctx.step(f"Running the hook {name}"):
            try:
                run_hook(name, order.bounds.hooks, told)
            except MigrationFailed as failure:
                if artifact is None:
                    raise
                bench.ctx.note(Concern(code="hook-without-success", message=failure.message, hint=BY_HAND))


def plan_only(order: Order, ctx: Context) -> Plan:
    """Run the plan stage, inspect the guest on the source, and do nothing else: no output directory is created."""
    order = with_real_directories(order)
    with (
        as_before(order.conversion_dir),
        working_folder(order.conversion_dir, order.migration.vm_name, order.job_id) as folder,
        Sources(folder, Mandate.of(order), ctx.admit) as sources,
    ):
        bench = Bench(order, folder, ctx, sources)
        return _stage(ctx, Stage.PLAN, lambda: _plan_with_guest(bench))


def _plan_for_run(bench: Bench) -> Plan:
    from hyper2kvmd.stages.plan import plan
    from hyper2kvmd.stages.repair import rehearse

    planned = plan(bench)
    rehearse(bench, planned)
    return planned


def _plan_with_guest(bench: Bench) -> Plan:
    from hyper2kvmd.stages.plan import plan
    from hyper2kvmd.stages.repair import preview

    planned = plan(bench)
    return planned.with_changes(guest=preview(bench, planned))


def _space_needed(planned: Plan) -> SpaceNeeded:
    return SpaceNeeded(
        conversion_bytes=planned.needed_bytes + planned.unpacked_bytes, publish_bytes=planned.publish_bytes
    )


def admit_here(order: Order) -> Callable[[SpaceNeeded], None]:
    """Admission for a run without a daemon: the space must be free now. Raises TryLater (`space-short`)."""

    def admit(needed: SpaceNeeded) -> None:
        space.require_growth(order.working_folder, needed.conversion_bytes, order.space_reserve)
        if needed.publish_bytes:
            with nearest_output(with_real_directories(order)) as nearest:
                space.require(name_of(nearest.handle), needed.publish_bytes, order.space_reserve)

    return admit


def _stage(ctx: Context, stage: Stage, work: Callable[[], Made], record: StageRecord | None = None) -> Made:
    ctx.emit(StageStarted(stage=stage))
    started = time.monotonic()
    product = work()
    _require_recordable(stage, product)
    ctx.seconds[stage] = time.monotonic() - started
    if record is not None:
        record.add(stage, product, ctx.seconds[stage])
    ctx.emit(StageFinished(stage=stage, seconds=ctx.seconds[stage], product=product))
    return product


def _require_recordable(stage: Stage, product: Product) -> None:
    size = len(recorded(product).encode(errors="replace"))
    if size > RECORD_LIMIT:
        raise MigrationFailed(
            "source-too-complex",
            f"the result of {stage.value} has {size} bytes of details, more than {RECORD_LIMIT}",
            hint="Migrate fewer disks in one job, or reduce the number of extents, partitions and logical volumes",
        )


def _valid_products(bench: Bench, recorded_here: Finished) -> Finished:
    """Earlier products, if their images are in the folder and the source is unchanged; published ones need neither.

    Those in the folder's own record count if they are more than the daemon's: it may have died before it had them.
    """
    finished = max(bench.order.finished, recorded_here, key=lambda one: len(one.products()))
    if finished.verdict is not None and finished.artifact is None:
        finished = finished.with_changes(artifact=bench.target.placed())
    if finished.artifact is not None and bench.target.holds(finished.artifact):
        return finished
    planned, image = finished.plan, finished.image
    if planned is None or image is None or not image.disks:  # none: see `Finished.without_content`
        return Finished()
    if not all(disk.path.parent == bench.folder and disk.path.exists() for disk in image.disks):
        return Finished()
    from hyper2kvmd.disk.sources.location import is_as_before

    if not all(is_as_before(disk, bench.mandate) for disk in planned.disks):
        return Finished()
    if finished.guest is None and _is_unclean(bench.overlays(image)):
        discard_images(bench.folder)
        return Finished(plan=planned)
    return finished.with_changes(artifact=None, registration=None)


def _is_unclean(overlays: Overlays) -> bool:
    """Whether the images have some changes of a repair, or all of one that cannot be described."""
    return overlays.unclean or (overlays.note is not None and Guest.read_back(overlays.note) is None)


def main() -> int:
    """The worker process. Exit status 0 when its last event was written, whatever the outcome."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run.log.setLevel(logging.DEBUG)
    run.log.addHandler(_Commands())
    try:
        _emit(_run())
    except BrokenPipeError:  # the daemon is gone: the next one continues from what lies in the folder
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    return 0


class _Commands(logging.Handler):
    """Turns log messages of `host.run` into events: the daemon has the log, and knows the job."""

    def emit(self, record: logging.LogRecord) -> None:
        _emit(CommandStarted(line=record.getMessage()[:MAX_LINE]))


def _run() -> Ended:
    folders: tuple[Path, ...] = ()
    try:
        order = Order.model_validate_json(sys.stdin.readline())
        folders = (order.conversion_dir,)
        if order.limits.io_priority == "idle":
            import psutil

            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)  # all threads and tools started from here inherit it
        ctx = Context(_emit, lambda needed: _ask_for_space(order, needed), _await_record)
        product = migrate(order, ctx, keep_on_failure=True)
    except TryLater as failure:
        return Ended(outcome="deferred", problems=(problem(failure),))
    except Interrupted as failure:
        return Ended(outcome="interrupted", problems=(problem(failure),))
    except Failure as failure:
        return Ended(outcome="failed", problems=problems(failure))
    except Exception as error:  # the boundary of the process: any other exception is reported as a failure
        return failed_unexpectedly(error, folders)
    return Ended(outcome="succeeded", product=product)


def failed_unexpectedly(error: Exception, folders: Sequence[Path] = ()) -> Ended:
    """The last event of a worker after an unexpected exception, with its traceback unless the host is at fault."""
    failure = internal_error(error, folders)
    trace = "" if isinstance(error, OSError) else "".join(traceback.format_exception(error))
    trace = trace.encode(errors="backslashreplace").decode()[-MAX_TRACEBACK:]
    return Ended(outcome="failed", problems=(problem(failure),), traceback=trace)


def internal_error(error: Exception, folders: Sequence[Path] = ()) -> MigrationFailed:
    """An unexpected exception as a failure: a bug to report, or a system error to correct.

    An error without a file name that lacks space is that of the first of `folders` that is full.
    """
    if isinstance(error, OSError) and error.strerror:
        fact = f"{error.filename or 'the system'}: {error.strerror}"
        if error.errno in space.FULL:
            full = None if error.filename else next(filter(space.is_full, folders), None)
            return space.disk_full(full) if full else space.no_space(fact)
        hint = "Correct the reported error, then retry"
        return MigrationFailed("system-error", fact, hint=hint, kind=Kind.OPERATOR)
    return MigrationFailed(
        "internal-error",
        f"the migration stopped because of an unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}",
        hint="Report this bug in hyper2kvmd with the traceback from the journal",
        kind=Kind.OPERATOR,
    )


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler: raise Interrupted. Further signals are ignored during the cleanup."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Interrupted(
        "interrupted", "the migration was stopped by a signal", hint="Start it again when the host is ready"
    )


def _ask_for_space(order: Order, needed: SpaceNeeded) -> None:
    with nearest_output(with_real_directories(order)) as nearest:
        found = space.file_system_of_open(nearest.handle)
    _emit(
        AwaitingSpace(
            needed_bytes=needed.conversion_bytes, publish_bytes=needed.publish_bytes, publish_file_system=found
        )
    )
    if sys.stdin.readline().strip() != "go":
        raise TryLater(
            "space-short",
            f"{order.conversion_dir} has no space for the {units.size(needed.conversion_bytes)} of this job beside the"
            " other jobs",
            hint="Free space there, or wait for the running jobs",
        )


def _await_record() -> None:
    _emit(AwaitingRecord())
    if sys.stdin.readline().strip() != "recorded":
        raise TryLater(
            "daemon-unreachable",
            "the daemon has gone before it had the results of this job on record",
            hint="Start the daemon: the job continues there",
        )


def _emit(event: Event) -> None:
    with EMITTING:  # threads that read a disk also start QEMU, which is an event
        sys.stdout.write(recorded(event) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
