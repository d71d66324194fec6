"""Debian 12 that cloud-init has set up on VMware, with a static address: its data source stays behind."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Disk, Root
from tests.guests.guest import Guest
from tests.guests.installer import MENDED, PACKAGES, install, one_root

CLOUD = "/var/lib/cloud"
INSTANCE = f"{CLOUD}/instances/iid-4212"
SETTINGS = f"{CLOUD}/seed/nocloud/*", "/etc/cloud/cloud.cfg.d/zz-hyper2kvm.cfg"
RULES = "/etc/udev/rules.d/71-hyper2kvm-net.rules"
ADDRESS = "10.20.30.40"
INTERFACES = f"auto lo\niface lo inet loopback\n\nauto ens192\niface ens192 inet static\n    address {ADDRESS}/24\n"
ONCE = ("ssh", "set_passwords", "users_groups", "set_hostname", "locale", "ssh_authkey_fingerprints")
"""Modules that have run once for this instance."""


def build(disk: Disk) -> None:
    parts = one_root(disk)
    with disk.root({"/": parts["/"]}) as files:
        install(files, parts)
        files.boot_by_grub(disk, parts["/"])
        _set_up(files)


def _set_up(files: Root) -> None:
    files.write(
        {
            "/etc/cloud/cloud.cfg.d/99-vmware.cfg": "datasource_list: [ VMware, None ]",
            "/etc/network/interfaces": "source /etc/network/interfaces.d/*",
            "/etc/network/interfaces.d/50-cloud-init": INTERFACES,
            f"{CLOUD}/data/instance-id": "iid-4212",
            f"{INSTANCE}/datasource": "DataSourceVMware: DataSourceVMware [seed=guestinfo]",
            f"{INSTANCE}/user-data.txt": "#cloud-config\nresize_rootfs: false",
            **{f"{INSTANCE}/sem/config_{name}": "" for name in ONCE},
        }
    )
    (files.path / CLOUD.lstrip("/") / "instance").symlink_to(INSTANCE)


GUEST = Guest(
    "cloud-init",
    Path(__file__),
    build,
    (*PACKAGES, "cloud-init", "ifupdown", "iproute2", "openssh-server"),
    mended=MENDED | {*SETTINGS, RULES},
)
