"""cloud-init after the move: which guests stay the instance that they were, and which are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import files_below, layout, migration, partition, put, repaired, simple_layout

SETTINGS = "etc/cloud/cloud.cfg.d/zz-hyper2kvm.cfg"
SEED = "var/lib/cloud/seed/nocloud"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest that cloud-init has set up on VMware."""
    put(tmp_path, "etc/os-release", "ID=debian\n")
    put(tmp_path, "etc/cloud/cloud.cfg", "disable_root: true\n")
    put(tmp_path, "usr/.keep", "")
    instance = "var/lib/cloud/instances/iid-1"
    put(tmp_path, f"{instance}/datasource", "DataSourceVMware: DataSourceVMware [seed=guestinfo]\n")
    put(tmp_path, f"{instance}/user-data.txt", "#cloud-config\npassword: secret\n")
    put(tmp_path, "var/lib/cloud/data/instance-id", "iid-1\n")
    (tmp_path / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/iid-1")
    return tmp_path


def repair(guest: Path) -> Guest:
    return repaired({"partition 1": guest}, simple_layout(), migration(regen_initramfs=False))


@pytest.mark.parametrize(
    "source",
    [
        "DataSourceVMware: DataSourceVMware",
        "DataSourceOVF: DataSourceOVF [seed=com.vmware.guestInfo]",
        "DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0][dsmode=net]",
        "DataSourceConfigDrive: DataSourceConfigDrive [net,ver=2][source=/dev/sr0]",
        "DataSourceOpenStackLocal: DataSourceOpenStackLocal [net,ver=2]",
    ],
)
def test_a_data_source_that_stays_behind_is_replaced(guest: Path, source: str) -> None:
    put(guest, "var/lib/cloud/instances/iid-1/datasource", source)
    changed = repair(guest).changes
    assert (guest / SEED / "meta-data").read_text() == 'instance-id: "iid-1"\n'
    text = (guest / SETTINGS).read_text()
    assert "datasource_list: [ NoCloud, None ]" in text and "network: {config: disabled}" in text
    assert (guest / SEED / "user-data").readlink() == Path("/var/lib/cloud/instances/iid-1/user-data.txt")
    assert (guest / SEED / "vendor-data").read_text() == ""
    assert not any("secret" in change.diff for change in changed)


@pytest.mark.parametrize(
    "source",
    ["DataSourceNone: DataSourceNone", "DataSourceNoCloud: DataSourceNoCloud [seed=/var/lib/cloud/seed/nocloud-net]"],
)
def test_a_data_source_of_the_guests_own_stays(guest: Path, source: str) -> None:
    put(guest, "var/lib/cloud/instances/iid-1/datasource", source)
    before = files_below(guest)
    repair(guest)
    assert files_below(guest) == before


@pytest.mark.parametrize("gone", ["etc/cloud/cloud.cfg", "var/lib/cloud/instance"])
def test_without_cloud_init_or_before_its_first_run_nothing_changes(guest: Path, gone: str) -> None:
    (guest / gone).unlink()
    before = files_below(guest)
    repair(guest)
    assert files_below(guest) == before


def test_a_disabled_cloud_init_stays_disabled(guest: Path) -> None:
    put(guest, "etc/cloud/cloud-init.disabled", "")
    before = files_below(guest)
    repair(guest)
    assert files_below(guest) == before


def test_the_link_names_the_instance_if_its_record_is_missing(guest: Path) -> None:
    (guest / "var/lib/cloud/data/instance-id").unlink()
    repair(guest)
    assert (guest / SEED / "meta-data").read_text() == 'instance-id: "iid-1"\n'


def test_a_seed_that_the_template_left_there_is_replaced(guest: Path) -> None:
    put(guest, f"{SEED}/meta-data", "instance-id: template\n")
    repair(guest)
    assert (guest / SEED / "meta-data").read_text() == 'instance-id: "iid-1"\n'


def test_a_forced_data_source_is_replaced(guest: Path) -> None:
    put(guest, "etc/cloud/ds-identify.cfg", "policy: enabled\ndatasource: VMware\n")
    repair(guest)
    assert (guest / "etc/cloud/ds-identify.cfg").read_text() == "policy: enabled\ndatasource: NoCloud\n"


def test_var_on_a_volume_of_its_own(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    var = tmp_path_factory.mktemp("var")
    (guest / "var").rename(var / "moved")
    for path in (var / "moved").iterdir():
        path.rename(var / path.name)
    (guest / "var").mkdir()
    put(guest, "etc/fstab", "UUID=var-uuid /var ext4 defaults 0 2\n")
    both = layout(partition(1), partition(2, uuid="var-uuid"))
    repaired({"partition 1": guest, "partition 2": var}, both, migration(regen_initramfs=False))
    assert (var / "lib/cloud/seed/nocloud/meta-data").read_text() == 'instance-id: "iid-1"\n'


def test_a_var_that_cannot_be_read_is_warned_of(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (guest / "var").rename(tmp_path_factory.mktemp("var") / "moved")
    (guest / "var").mkdir()
    put(guest, "etc/fstab", "UUID=lost /var ext4 defaults 0 2\n")
    warnings = repair(guest).warnings
    assert any("cloud-init sets this machine up anew" in warning for warning in warnings)
