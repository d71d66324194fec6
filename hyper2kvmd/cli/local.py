"""The commands that migrate, plan or check without a daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from hyper2kvmd import errors, spec
from hyper2kvmd.cli import oneshot, plan_views, views
from hyper2kvmd.cli.display import Display, HeldWarnings
from hyper2kvmd.cli.options import FILE, FOLDER, Given
from hyper2kvmd.cli.output import Output, failed, json_option, located, problems_of
from hyper2kvmd.host import run
from hyper2kvmd.installed import CONFIGURATION
from hyper2kvmd.model.orders import Limits, Order
from hyper2kvmd.spec import Parsed
from hyper2kvmd.spec_queue import in_start_order, without_queue

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hyper2kvmd.model.concerns import Concern
    from hyper2kvmd.model.machine import Plan


@click.command(hidden=True)
@json_option
@click.pass_context
def local(context: click.Context) -> None:
    """Accepted for compatibility with hyper2kvm; it has no effect."""
    migrate(context, context.meta["given"])


def migrate(context: click.Context, asked: Given) -> None:
    output = context.ensure_object(Output)
    if not asked.files:
        raise click.UsageError("--config names no migration YAML")
    if asked.debug:
        logging.basicConfig(format="%(message)s")
        run.log.setLevel(logging.DEBUG)
    places = Places(asked.conversion_dir, asked.output_dir, Limits(threads=asked.threads or 0))
    machines = _without_queue(_load(output, asked.files))
    _each(output, machines, lambda machine: _migrate(output, machine, places, dry_run=asked.dry_run))


@dataclass(frozen=True)
class Places:
    """What the command line decides for all machines."""

    conversion_dir: Path | None
    output_dir: Path | None
    limits: Limits = oneshot.NO_LIMITS

    def order(self, machine: Parsed) -> Order:
        """Raises as `oneshot.conversion_directory` and `oneshot.helper` do."""
        conversion = oneshot.conversion_directory(machine.migration, self.conversion_dir).path
        output_dir = oneshot.output_directory(machine.migration, self.output_dir).path
        return oneshot.order(machine, conversion, output_dir, self.limits)


def _load(output: Output, files: Sequence[Path]) -> tuple[Parsed, ...]:
    """Relative paths are resolved from the current directory, as on any command line and as in hyper2kvm."""
    output.source = str(files[-1])
    return spec.load(files, base=Path.cwd(), home=_home())


def _without_queue(machines: Sequence[Parsed]) -> tuple[Parsed, ...]:
    """In the order of their `after`; the other keys for the queue are noted."""
    among = [machine.migration for machine in machines]
    ordered = [machines[number] for number in in_start_order(among)]
    notes = [without_queue(machine.migration, among) for machine in ordered]
    return tuple(
        machine if note is None else replace(machine, notes=(*machine.notes, note))
        for machine, note in zip(ordered, notes, strict=True)
    )


def _home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


Shown: TypeAlias = "BaseModel | dict[str, Any]"
"""The result of one machine for --json."""


def _each(output: Output, machines: Sequence[Parsed], work: Callable[[Parsed], Shown]) -> None:
    """Do the work for one machine after the other. A failure does not stop the others; the highest exit status counts.

    With --json the results of several machines are a list.
    """
    if len(machines) == 1:
        result = work(machines[0])
        if output.json:
            output.data(result)
        return
    results: list[Shown] = []
    exit_codes: list[int] = []
    for machine in machines:
        name = machine.migration.vm_name
        try:
            if not output.json:
                output.line(f"{name}:", style="bold")
            results.append({"vm_name": name, "result": work(machine)})
        except errors.Failure as failure:
            exit_codes.append(failure.exit_code)
            results.append({"vm_name": name, **failed(failure)})
            if not output.json:
                output.failure(failure)
    if output.json:
        output.data(results)
    elif exit_codes:
        output.line(f"{len(exit_codes)} of {len(machines)} machines failed", style="red")
    if exit_codes:
        raise click.exceptions.Exit(max(exit_codes))


def _migrate(output: Output, machine: Parsed, places: Places, *, dry_run: bool) -> Shown:
    order = places.order(machine)
    if dry_run or machine.migration.dry_run:
        return _plan(output, order, with_differences=True)
    with Display(output.events) as display:
        finished = oneshot.migrate(order, display.emit)
    if not output.json:
        views.finished(output, machine.migration, finished)
    return finished


def _plan(output: Output, order: Order, *, with_differences: bool = False) -> Shown:
    daemon = oneshot.daemon_directories(order.migration)
    with Display(output.events) as display:
        planned = oneshot.plan(order, display.emit) if output.json else _planned_on_screen(order, display)
    rate = oneshot.past_rate()
    if not output.json:
        plan_views.plan(output, order, planned, daemon, rate)
        if with_differences and planned.guest is not None:
            plan_views.differences(output, planned.guest)
    return {"plan": planned, "order": order, "daemon": daemon, "past_rate": rate}


def _planned_on_screen(order: Order, display: Display) -> Plan:
    held = HeldWarnings(display)
    shown: Sequence[Concern] = ()
    try:
        planned = oneshot.plan(order, held.emit)
        shown = plan_views.concerns_of(planned)
        return planned
    finally:
        held.release(shown)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--merge", is_flag=True, help="Check the files as one: keys of later files override those of earlier ones."
)
@click.option("--spool", is_flag=True, help="Judge the files as the daemon will when they are dropped into its spool.")
@click.option(
    "--config",
    "configuration",
    type=FILE,
    default=CONFIGURATION,
    show_default=True,
    help="The daemon's configuration, for --spool.",
)
@json_option
@click.pass_obj
def check(output: Output, files: tuple[Path, ...], merge: bool, spool: bool, configuration: Path) -> None:
    """List the errors of migration YAMLs, or their resulting settings.

    At most 20 errors of a file are listed, with line and remedy. For a valid file, all keys are listed with their
    resulting values, and the keys of hyper2kvm that have no effect here.

    With `--spool`, a file is judged as the spool judges it: by its owner, mode and name as well. Paths must be absolute
    or begin with `~/`, the home of the file's owner. That owner needs access to the source and the output directory.
    What this user cannot see is listed as not checked.
    """
    if spool:
        if merge:
            raise click.UsageError("--merge and --spool exclude each other: the daemon takes each file by itself")
        _check_for_spool(output, files, configuration)
        return
    results: list[dict[str, Any]] = []
    failed = False
    for together in [files] if merge else [(file,) for file in files]:
        file = together[-1]
        try:
            machines = spec.load(together, base=Path.cwd(), home=_home())
        except errors.InvalidInput as failure:
            failed = True
            results.append({"file": file, "problems": problems_of(failure)})
            if not output.json:
                for problem in problems_of(failure):
                    click.echo(located(problem, str(file)), err=True)
            continue
        for machine in machines:
            if (missing := oneshot.drivers_missing(machine.migration)) is not None:
                failed = True
                results.append({"file": file, "problems": [missing]})
                if not output.json:
                    click.echo(located(missing, str(file)), err=True)
                continue
            results.append({"file": file, "problems": [], "migration": machine.migration, "notes": machine.notes})
            if not output.json:
                _show(output, f"{file}: {machine.migration.vm_name}" if len(machines) > 1 else str(file), machine)
    if output.json:
        output.data(results)
    if failed:
        raise click.exceptions.Exit(errors.InvalidInput.exit_code)


def _check_for_spool(output: Output, files: Sequence[Path], configuration: Path) -> None:
    from hyper2kvmd.cli.spool_check import SpoolCheck

    judge = SpoolCheck.of(configuration)
    results: list[dict[str, Any]] = []
    for file in files:
        found = judge.judge(file)
        machines = [machine.migration for machine in found.machines]
        results.append({"file": file, "problems": found.problems, "machines": machines, "unknown": found.unknown})
        if not output.json:
            for one in found.problems:
                click.echo(located(one, str(file)), err=True)
            if not found.problems:
                names = ", ".join(migration.vm_name for migration in machines)
                output.line(f"{file}: {names}: the daemon will accept this file")
            for unknown in found.unknown:
                output.line(f"{file}: not checked: {unknown}", style="yellow")
    if output.json:
        output.data(results)
    if any(result["problems"] for result in results):
        raise click.exceptions.Exit(errors.InvalidInput.exit_code)


def _show(output: Output, name: str, machine: Parsed) -> None:
    migration = machine.migration
    conversion, published = oneshot.conversion_directory(migration, None), oneshot.output_directory(migration, None)
    plan_views.migration(output, name, machine, conversion, published, oneshot.daemon_directories(migration))


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--conversion-dir", type=FOLDER, help="The conversion directory, as for a one-shot run.")
@click.option("--output-dir", type=FOLDER, help="The output directory, as for a one-shot run.")
@json_option
@click.pass_obj
def plan(output: Output, files: tuple[Path, ...], conversion_dir: Path | None, output_dir: Path | None) -> None:
    """Read the source and show what a migration would do and need. Write nothing.

    The source is read, the host is checked, and the space that is needed is computed. All missing programs and other
    problems are reported at once. Keys of later files override those of earlier ones.

    The new machine is shown with its name, CPUs, memory, firmware, Secure Boot, TPM, UUID, disks and network cards,
    and with the values of the source machine that become others. A MAC address is marked as kept or new.

    The guest is inspected on the source, without a conversion, and its expected repairs are listed.

    If a job of the daemon would use other directories, these are shown as well. So is the time that the daemon needs
    to convert as much data, at the median rate of its last ten conversions. A user who cannot use the control socket
    sees no estimate.
    """
    places = Places(conversion_dir, output_dir)
    _each(output, _load(output, files), lambda machine: _plan(output, places.order(machine)))


COMMANDS: list[click.Command] = [local, check, plan]
