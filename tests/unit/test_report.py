"""The readable report says what a guest said, and lets it say nothing more."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DiskImage, FileIdentity, Image, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Change, Guest, Nic
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import PublishedDisk, Verdict
from hyper2kvmd.report import Report, markdown
from tests.support.benches import hardware_for, plan_for

DISK = SourceDisk(
    at=LocalFile(path=Path("/source.vmdk")),
    subformat="monolithicFlat",
    virtual_size=512,
    data_bytes=512,
    files=(FileIdentity(path=Path("/source.vmdk"), device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1),),
)
EVIL_PATH = "/boot/![x](http://evil/)\n# Evidence"
LAYOUT = Layout(tables=("none",))
PLAN = plan_for((DISK,), LAYOUT)
CONCERN = Concern(code="description-unclear", message="`<i>` has two .vmx")


def test_a_guest_cannot_speak_in_the_reports_own_voice() -> None:
    diff = "-```\n+````\n+# Evidence\n"
    report = Report(
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
        guest=Guest(
            nics=(Nic(name="ens192", mac="52:54:00:00:00:01", mac_is_new=True, network="<lan>"),),
            os_name="<b>evil</b> | good",
            changes=(Change(fix="fstab", path=EVIL_PATH, summary="<img>", diff=diff),),
            warnings=("a\n## Evidence\n", "`<b>`"),
        ),
        verdict=Verdict(
            level="boot", evidence=("<i> asked for a login",), boot_seconds=31.25, console_tail=("```", "<i> login:")
        ),
        seconds={},
        published=(PublishedDisk(path=Path("/o/web01.raw"), file_bytes=512),),
    )
    assert Report.model_validate_json(report.model_dump_json()) == report
    lines = markdown(report).splitlines()
    assert "| name | web01 (source: &lt;u&gt;\\|\\`evil\\`) |" in lines
    assert "| CPUs | 2 (default) |" in lines and "| Secure Boot | off |" in lines
    assert "| 1 | yes | virtio | 512 B | web01.qcow2 |" in lines
    assert "| 1 | 52:54:00:00:00:01 (new) | virtio | ens192 | &lt;lan&gt; -&gt; default |" in lines
    assert "| System | &lt;b&gt;evil&lt;/b&gt; \\| good |" in lines
    assert "- &lt;i&gt; asked for a login" in lines
    assert "### /boot/\\!\\[x\\](http://evil/) \\# Evidence" in lines
    assert "&lt;img&gt; (fstab)" in lines
    assert "- \\`&lt;i&gt;\\` has two .vmx \\[description-unclear\\]" in lines
    assert "- a \\#\\# Evidence" in lines and "- \\`&lt;b&gt;\\`" in lines
    assert "Time to boot: 31.2 s." in lines
    assert "\n".join(("````", "```", "<i> login:", "````")) in "\n".join(lines)
    start = lines.index("`````diff")
    assert lines[start + 1 : start + 5] == ["-```", "+````", "+# Evidence", "`````"]
