"""What a one-shot run shows at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.cli import views
from hyper2kvmd.cli.output import Output
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.results import Artifact, Finished, Registration, Verdict
from tests.support.benches import NOTHING_PLANNED


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
