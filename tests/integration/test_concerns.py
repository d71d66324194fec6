"""Warnings that the plan finds: in the log, in a dry run and in the report, from one place."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.guest.data_disks import NOTHING_FOUND
from hyper2kvmd.model.concerns import LONGEST
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context, Event, Warned
from hyper2kvmd.worker import migrate, plan_only
from tests.support.attempts import Attempts
from tests.support.benches import admit_nothing


def with_two_machines(folder: Path) -> Order:
    """An order for a disk that two machines have."""
    folder.mkdir(parents=True)
    for name in ("clone", "web01"):
        (folder / f"{name}.vmx").write_text('scsi0:0.fileName = "web01.raw"\nmemsize = "4096"\n')
    return Attempts(folder).order


def test_a_concern_is_shown_by_dry_run_log_and_report(tmp_path: Path) -> None:
    order, heard = with_two_machines(tmp_path / "source"), list[Event]()
    planned = plan_only(order, Context(heard.append, admit_nothing))
    (concern,) = planned.concerns
    assert "clone.vmx, web01.vmx all have the disk web01.raw" in concern.message
    warnings = [event.message for event in heard if isinstance(event, Warned) and event.level == "warning"]
    assert warnings == [str(concern), NOTHING_FOUND]
    done = migrate(order, Context(heard.append, lambda _plan: None))
    assert done.artifact is not None
    assert f"- {concern.message}" in done.artifact.report_markdown.read_text()


def test_a_long_concern_is_shortened_on_record(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 6)
    order = with_two_machines(deep)
    (deep / "web01.vmx").unlink()
    (deep / "web01.vmx").symlink_to("clone.vmx")
    planned = plan_only(order, Context(lambda _event: None, admit_nothing))
    (concern,) = planned.concerns
    assert LONGEST < len(concern.message) < LONGEST + 100
