"""The README's installation, as far as it does not touch this host."""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.disks import sh

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()


def test_files_are_installed_on_a_host_that_has_none_of_the_folders(tmp_path: Path) -> None:
    """Debian 12 comes without /etc/sysusers.d, for one."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    install ")]
    script = "\n".join(re.sub(" /", f" {tmp_path}/", line) for line in lines)
    sh("bash", "-euc", f"cd {REPOSITORY}\n{script}")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "etc/hyper2kvm/hyper2kvmd.yaml",
        "etc/sudoers.d/hyper2kvm",
        "etc/systemd/system/hyper2kvm-cleanup.service",
        "etc/systemd/system/hyper2kvm-cleanup.timer",
        "etc/systemd/system/hyper2kvm-helper.socket",
        "etc/systemd/system/hyper2kvm-helper@.service",
        "etc/systemd/system/hyper2kvmd.service",
        "etc/systemd/system/hyper2kvmd.service.d/hardened.conf",
        "etc/sysusers.d/hyper2kvm.conf",
        "etc/tmpfiles.d/hyper2kvm.conf",
        "usr/libexec/hyper2kvm/helper",
    }


def test_every_package_that_the_service_needs_is_named() -> None:
    needed = (REPOSITORY / "packaging" / "debian-packages.txt").read_text().split("# what the demo")[0]
    packages = re.findall("^([a-z0-9.-]+)", needed, re.MULTILINE)
    installation = README.split("## Install")[1].split("## Migrate")[0]
    always_there = {"python3", "util-linux"}
    assert [name for name in packages if name not in installation and name not in always_there] == []
