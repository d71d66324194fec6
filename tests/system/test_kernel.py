"""The boundary under Debian's own kernel, in a virtual machine.

`pytest tests/system` runs the integration tests of the boundary there, besides those that are for this place alone
(or what H2K_INSIDE says, as arguments of pytest). Takes about ten minutes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.guests import debian12
from tests.guests.debian12 import Recipe
from tests.support.disks import empty_disk, sh
from tests.system.machine import checked_inside

TESTS = os.environ.get("H2K_INSIDE") or " ".join(
    (
        "tests/system/inside.py tests/system/udev.py tests/system/volumes.py",
        "tests/security/test_helper.py",
        *(f"tests/integration/test_{name}.py" for name in ("access", "export")),
    )
)


def test_the_boundary_under_debians_kernel(tmp_path: Path) -> None:
    said = checked_inside(TESTS, tmp_path)
    assert "H2K_INSIDE" in os.environ or "test_this_kernel_offers_everything PASSED" in said


@pytest.mark.skipif("H2K_INSIDE" in os.environ, reason="H2K_INSIDE asks for other tests")
def test_the_units_and_their_profiles_under_systemd(tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    shutil.copy(debian12.vmdk(Recipe()), exported / "web01.vmdk")
    exchange = empty_disk(tmp_path / "exchange.raw", 1024)
    sh("mkfs.ext4", "-q", "-F", "-d", exported, exchange)
    said = checked_inside("tests/system/units.py tests/system/apparmor.py", tmp_path, exchange, systemd=True)
    assert "test_a_flood_does_not_close_the_socket PASSED" in said
    assert "test_an_export_becomes_an_image PASSED" in said
