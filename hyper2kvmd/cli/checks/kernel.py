"""KVM, and what confines tools and the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.cli.checks.check import Check, Host, Line, as_operator, not_checked, ok, warning
from hyper2kvmd.host import run
from hyper2kvmd.host.confine import landlock_abi
from hyper2kvmd.host.kvm import KVM_DEVICE, kvm_works

TITLE = "Kernel and confinement"
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
OUR_PROFILES = ("hyper2kvmd", "hyper2kvm-helper")
ENFORCING = Path("/sys/fs/selinux/enforce")
POLICIES = Path("/var/lib/selinux")


def checks() -> Iterator[Check]:
    yield Check(TITLE, "KVM", _kvm)
    yield Check(TITLE, "Landlock", _landlock)
    yield Check(TITLE, "AppArmor", _apparmor)
    yield Check(TITLE, "SELinux", _selinux)


def _kvm(_host: Host) -> Iterator[Line]:
    if not KVM_DEVICE.exists():
        remedy = "Enable virtualization in the firmware of this host, then `modprobe kvm_intel` or `modprobe kvm_amd`"
        yield warning("KVM", f"{KVM_DEVICE} is missing; verify: boot emulates, which is slow", remedy)
    elif not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        yield not_checked("KVM", f"this user cannot open {KVM_DEVICE}", "Run `sudo h2kvmctl doctor`")
    elif kvm_works():
        yield ok("KVM", "executes a program")
    else:
        remedy = "Enable nested virtualization if this host is a virtual machine"
        yield warning("KVM", f"{KVM_DEVICE} exists, but executes no program; verify: boot emulates", remedy)


def _landlock(_host: Host) -> Iterator[Line]:
    if run.confinement_available():
        yield ok("Landlock", f"version {landlock_abi()}")
    else:
        fact = "missing: tools that parse images have the same access as the service, and QCOW2 sources are refused"
        yield warning("Landlock", fact, "Use a kernel of version 5.13 or later, with landlock in its list lsm=")


def _apparmor(_host: Host) -> Iterator[Line]:
    if not APPARMOR.exists() or APPARMOR.read_text().strip() != "Y":
        yield ok("AppArmor", "not used by this kernel")
        return
    if os.geteuid() != 0:
        yield as_operator("AppArmor")
        return
    loaded = {line.split(" ")[0] for line in PROFILES.read_text().splitlines()}
    for name in OUR_PROFILES:
        if name in loaded:
            yield ok(f"AppArmor profile {name}", "loaded")
        else:
            remedy = f"Run `apparmor_parser -r /etc/apparmor.d/{name}`"
            yield warning(f"AppArmor profile {name}", "not loaded: the service runs without it", remedy)


def _selinux(_host: Host) -> Iterator[Line]:
    if not ENFORCING.exists():
        yield ok("SELinux", "not used by this kernel")
        return
    mode = "enforcing" if ENFORCING.read_text().strip() == "1" else "permissive"
    if os.geteuid() != 0:
        yield as_operator("SELinux")
    elif any(POLICIES.glob("*/active/modules/*/hyper2kvm")):
        yield ok("SELinux", f"{mode}, with the module hyper2kvm")
    else:
        remedy = "Install the policy: see packaging/selinux in the documentation, then `semodule -i hyper2kvm.pp`"
        yield warning("SELinux", f"{mode}, without the module hyper2kvm", remedy)
