"""Which storage pool a job may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import Unsafe
from hyper2kvmd.host.workspace import UPLOADING
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Bounds, Order
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.pool import Pool

LIBVIRT = Libvirt("test:///default")
HERE = Path("/var/tmp")


def order(pool: str | None, submitter: str | None, listed: tuple[str, ...] | None) -> Order:
    migration = Migration(vmdk=(Path("/a.raw"),), vm_name="a", libvirt_import=True, libvirt_pool=pool)
    return Order(
        job_id="7",
        migration=migration,
        submitter=submitter,
        conversion_dir=HERE,
        output_dir=HERE,
        helper=("none",),
        bounds=Bounds(libvirt_pools=listed),
    )


@pytest.mark.parametrize(("submitter", "listed"), [(None, None), (None, ("fast",)), ("alice", ("slow", "fast"))])
def test_a_person_may_use_any_pool_and_a_submitter_a_listed_one(
    submitter: str | None, listed: tuple[str, ...] | None
) -> None:
    assert Pool.of(order("fast", submitter, listed), LIBVIRT) == Pool(LIBVIRT, "fast")
    assert Pool.of(order(None, submitter, listed), LIBVIRT) is None


@pytest.mark.parametrize(("submitter", "listed"), [("alice", None), ("alice", ()), (None, ()), ("alice", ("faster",))])
def test_any_other_pool_is_refused(submitter: str | None, listed: tuple[str, ...] | None) -> None:
    with pytest.raises(Unsafe) as caught:
        Pool.of(order("fast", submitter, listed), LIBVIRT)
    assert caught.value.code == "libvirt-pool-not-allowed"


@pytest.mark.parametrize("text", ["", '{"a.qcow', "7"])
def test_a_damaged_note_lists_no_volume(text: str, tmp_path: Path) -> None:
    (tmp_path / UPLOADING).write_text(text)
    Pool(LIBVIRT, "fast").take_back(tmp_path)
    assert not (tmp_path / UPLOADING).exists()
