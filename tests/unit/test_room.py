"""The room that results need: an error names the output directory as the user knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Order
from hyper2kvmd.targets import directory

OTHER_FILE_SYSTEM = Path("/proc")


@pytest.mark.parametrize("name", ["", "out", "out/deeper"])
def test_an_output_directory_that_is_always_too_small_is_named(name: str, tmp_path: Path) -> None:
    migration = Migration(vmdk=(Path("/d.vmdk"),), vm_name="web01")
    order = Order(
        job_id="1",
        migration=migration,
        conversion_dir=OTHER_FILE_SYSTEM,
        output_dir=tmp_path / name,
        helper=(),
    )
    with pytest.raises(MigrationFailed) as caught:
        directory.room(order, 1 << 62)
    assert caught.value.code == "space-never" and caught.value.message.startswith(f"{tmp_path / name} is on")
