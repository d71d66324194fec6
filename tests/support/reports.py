"""A report of a migration, for what shows it."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DiskImage, FileIdentity, Image, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import PublishedDisk, Verdict
from hyper2kvmd.report import Report
from tests.support.benches import hardware_for, plan_for

DISK = SourceDisk(
    at=LocalFile(path=Path("/source.vmdk")),
    subformat="monolithicFlat",
    virtual_size=512,
    data_bytes=512,
    files=(FileIdentity(path=Path("/source.vmdk"), device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1),),
)
LAYOUT = Layout(tables=("none",))
PLAN = plan_for((DISK,), LAYOUT)
CONCERN = Concern(code="description-unclear", message="`<i>` has two .vmx")


def made(guest: Guest, verdict: Verdict = Verdict(level="check", evidence=("size",))) -> Report:  # noqa: B008
    return Report(
        version="1",
        order=Order(
            job_id="1",
            migration=Migration(vmdk=(Path("/source.vmdk"),), vm_name="web01"),
            conversion_dir=Path("/c"),
            output_dir=Path("/o"),
            helper=("none",),
        ),
        plan=PLAN.with_changes(concerns=(CONCERN,), machine=PLAN.machine.with_changes(name="<u>|`evil`")),
        hardware=hardware_for("bios", "52:54:00:00:00:01"),
        image=Image(
            disks=(DiskImage(path=Path("/c/i"), virtual_size=512, file_bytes=512),), format="raw", layout=LAYOUT
        ),
        guest=guest,
        verdict=verdict,
        seconds={},
        published=(PublishedDisk(path=Path("/o/web01.raw"), file_bytes=512),),
    )
