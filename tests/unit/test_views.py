"""What a plan shows, and a one-shot run at its end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hyper2kvmd.cli import plan_views, views
from hyper2kvmd.cli.output import UNWRAPPED, Output
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import FileIdentity, Image, Layout, LocalFile, Segment, SourceDisk, Stretch, Volume
from hyper2kvmd.model.guest import Change, Guest, Nic
from hyper2kvmd.model.jobs import PastRate
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Finished, Registration, Verdict
from tests.support.benches import NOTHING_PLANNED, plan_for

LONG = "/exports/production/2026-11/cluster-frankfurt-03/a-very-long-name-of-a-directory-that-goes-on/web01.vmdk"
UUID = "6490fa9b-aafe-42c0-b878-3796b0c0b3a5"
WIDE_PLAN = plan_for(
    tuple(
        SourceDisk(
            at=LocalFile(path=Path(LONG)),
            subformat="monolithicSparse",
            virtual_size=3 << 30,
            data_bytes=1 << 30,
            preallocate_reason="holes in the source occupy no space in the image",
            files=(FileIdentity(path=Path(LONG), device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1),),
        )
        for _ in range(2)
    ),
    Layout(
        tables=("gpt", "none"),
        volumes=(
            Volume(
                name="disk 1, partition 1",
                kind="partition",
                stretches=(Stretch(legs=(Segment(offset=0, length=256 << 20),)),),
                content="LVM2_member",
                uuid=UUID,
                label="a b",
            ),
        ),
    ),
).with_changes(
    concerns=(Concern(code="x-y", message="word " * 40 + "end", hint="Do this"),),
    guest=Guest(
        os_name="Debian",
        nics=(Nic(name="ens192", mac="00:50:56:00:00:01", network="VM Network of production, VLAN 120"),),
        changes=(Change(fix="fstab", path=LONG, summary="/dev/sda1 is now " + "UUID=" + UUID),),
    ),
)


def shown(registration: Registration, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines between the report and the proofs."""
    artifact = Artifact(disks=(), format="raw", report_json=Path("/o/a.json"), report_markdown=Path("/o/a.md"))
    result = Finished(
        plan=NOTHING_PLANNED,
        image=Image(disks=(), format="raw", layout=Layout(tables=())),
        guest=Guest(),
        verdict=Verdict(level="check", evidence=("size",)),
        artifact=artifact,
        registration=registration,
    )
    views.finished(Output(), Migration(vmdk=(Path("/a.vmdk"),), vm_name="a"), result)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][2:-1]


FILES = (Path("/o/a.xml"), Path("/o/a.sh"))


@pytest.mark.parametrize(
    ("registration", "lines"),
    [
        (Registration(name="a", files=FILES, macs=(), defined=False), ["definition /o/a.xml", "definition /o/a.sh"]),
        (
            Registration(name="a", identity="66-95", macs=(), defined=True, uri="qemu:///system"),
            ["defined in qemu:///system: a, 66-95"],
        ),
        (
            Registration(name="a", files=FILES[:1], macs=(), defined=True, uri="test:///default"),
            ["definition /o/a.xml", "defined in test:///default: a"],
        ),
    ],
    ids=["files only", "no file", "both, without an identifier"],
)
def test_where_the_machine_is(registration: Registration, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(registration, capsys) == lines


def planned(terminal: bool, width: int, rate: PastRate | None = None) -> list[str]:
    stream, output = io.StringIO(), Output()
    output.console = Console(file=stream, force_terminal=terminal, width=width, color_system=None)
    order = Order(
        job_id="1",
        migration=Migration(vmdk=(Path("/a.vmdk"),), vm_name="web01"),
        conversion_dir=Path("/c"),
        output_dir=Path("/o"),
        helper=("none",),
    )
    plan_views.plan(output, order, WIDE_PLAN, None, rate)
    return stream.getvalue().splitlines()


def test_the_tables_of_a_plan_fit_80_columns_and_lose_nothing() -> None:
    lines = planned(terminal=True, width=80)
    long = [line for line in lines if len(line) > 80]
    assert [line.split(":")[0] for line in long] == ["disk 1", "disk 2", "warning"], long  # whole, to be copied
    assert any(line.rstrip().endswith(f"LVM2_member  {UUID}") for line in lines)
    assert "1     00:50:56:00:00:01 (kept)  virtio  ens192  VM Network of production, VLAN" in map(str.rstrip, lines)
    without_blanks = "".join("".join(lines).split())
    assert "".join(LONG.split()) in without_blanks and "\N{HORIZONTAL ELLIPSIS}" not in without_blanks


def test_a_row_is_one_line_where_there_is_no_terminal() -> None:
    lines = planned(terminal=False, width=UNWRAPPED)
    assert f"disk 1: {LONG}" in lines
    assert f"fstab            {LONG}: /dev/sda1 is now UUID={UUID}" in lines
    assert f"disk 1, partition 1  256.0 MiB  LVM2_member  {UUID} LABEL=a b" in lines
    assert [line for line in lines if line != line.rstrip() or len(line) > 250] == []


@pytest.mark.parametrize(
    ("conversions", "basis"), [(10, "the median of its last 10"), (1, "its only one so far")], ids=["several", "one"]
)
def test_an_estimate_names_its_basis(conversions: int, basis: str) -> None:
    """The two disks have 2 GiB of data."""
    rate = PastRate(bytes_per_second=10 << 20, conversions=conversions)
    expected = f"by the daemon  the conversion takes about 4 min, at 10.0 MiB/s: {basis}"
    assert expected in planned(terminal=False, width=UNWRAPPED, rate=rate)


def test_without_a_measurement_there_is_no_estimate() -> None:
    assert not any("takes" in line for line in planned(terminal=False, width=UNWRAPPED))
