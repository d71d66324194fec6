"""A Windows disk goes through the whole line, and the report says what was not done for it."""

from __future__ import annotations

from pathlib import Path

from tests.support.service import fingerprint, running
from tests.support.windows import windows_disk


def test_windows_is_converted_and_told_that_it_has_no_drivers(
    service_folder: Path, installed_helper: tuple[str, ...], tmp_path: Path
) -> None:
    vmdk = windows_disk(tmp_path / "export")
    with running(service_folder, installed_helper) as service:
        source = service.source(vmdk)
        before = fingerprint(source.parent)
        service.drop("win.yaml", vmdk=source, vm_name="win", verify="content")
        service.succeeded("win")
        assert fingerprint(source.parent) == before
        report = service.report("win")
        assert report["guest"]["family"] == "windows" and report["guest"]["changes"] == []
        code, drivers = report["guest"]["warnings"]
        assert "no disk has boot code" in code  # this disk has none
        assert "virtio drivers were NOT injected" in drivers
        assert "NOT injected" in (service.images / "win.report.md").read_text()
