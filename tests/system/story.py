"""What the stories of test_server.py and test_newer_server.py have in common: the machine, its guest, its operator."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyper2kvmd.model.disks import Segment
from tests.guests import debian12
from tests.guests.altered import boot_it
from tests.guests.debian12 import Recipe
from tests.guests.windows.disk import windows_disk
from tests.guests.windows.driver_disc import cached_disc
from tests.guests.windows.files import CONFIG
from tests.guests.windows.machine import Windows
from tests.support.disks import empty_disk, sh
from tests.support.hive_judges import REG_DWORD
from tests.support.host import looped
from tests.support.packages import built
from tests.support.published import published
from tests.support.windows_repair import Judged
from tests.system import server
from tests.system.server import Server, until

SUBMITTER, OPERATOR = "alice", "bob"
"""Members of hyper2kvm-submit and of hyper2kvm, no more."""
FIRST_DAYS = Path(__file__).parent / "first_day"
CONFIGURATION = "/etc/hyper2kvm/hyper2kvmd.yaml"
IMAGES = "/var/lib/hyper2kvm/images"
GUEST = "/exports/guest/web01.vmdk"
"""Root and swap are logical volumes of a volume group that is called as the server's own: vg0."""
EMPTY = "/exports/guest/empty.vmdk"
"""A disk of zeros."""
WINDOWS = "windows"
"""A Windows disk, and the ISO with the drivers for it."""
WINDOWS_VMDK, DRIVERS = f"/exports/{WINDOWS}/win01.vmdk", f"/exports/{WINDOWS}/virtio-win.iso"
CONTROL_SOCKET = "/run/hyper2kvm/control.sock"
JOBS = f"curl --silent --fail --unix-socket {CONTROL_SOCKET} http://hyper2kvmd/v1/jobs"
"""The jobs as JSON. In an emulated machine it costs a hundredth of `h2kvmctl list`, and it is asked often."""
UNTIL_IT_ANSWERS = f'until jobs=$({JOBS}); do sleep 1; done; echo "$jobs"'
WITHOUT_SUDO = f"""
systemctl enable --now hyper2kvm-helper.socket
mkdir -p /etc/systemd/system/hyper2kvmd.service.d
ln -s /usr/share/hyper2kvmd/hardened.conf /etc/systemd/system/hyper2kvmd.service.d/
echo 'helper: /run/hyper2kvm-helper.sock' >> {CONFIGURATION}
rm /etc/sudoers.d/hyper2kvm
systemctl daemon-reload
"""
"""For the daemon to reach the root helper by its socket, under the hardened unit, once it is started anew."""
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -q -y install"


@dataclass(frozen=True)
class Machine:
    server: Server
    folder: Path

    def drop(self, name: str, **keys: object) -> int:
        """A YAML of the submitter's; the number of its job."""
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
        before = {job["id"] for job in self.jobs()}
        drop = f"cat > /tmp/{name}.yaml && mv /tmp/{name}.yaml /var/spool/hyper2kvm/incoming/"
        self.server.run(f"runuser -u {SUBMITTER} -- sh -c '{drop}' <<'YAML'\n{text}YAML\n")
        until(lambda: {job["id"] for job in self.jobs()} - before)
        (new,) = {job["id"] for job in self.jobs()} - before
        return int(new)

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.server.run(UNTIL_IT_ANSWERS))
        return found

    def job(self, number: int) -> dict[str, Any]:
        return next(job for job in self.jobs() if job["id"] == number)

    def succeeded(self, number: int) -> dict[str, Any]:
        until(lambda: self.job(number)["state"] not in ("queued", "running"))
        job = self.job(number)
        assert job["state"] == "succeeded", (job, self.server.run("journalctl -b --no-pager -n 100"))
        return job

    def denials(self) -> str:
        """What AppArmor kept anything of ours from, since the machine started."""
        return self.server.run("journalctl -k -b --no-pager | grep 'apparmor=\"DENIED\"' | grep -i hyper2kvm || true")

    def first_day(self, person: str, script: str, *words: object) -> str:
        """What the person sees who does what the script says, to its end."""
        text = (FIRST_DAYS / script).read_text()
        given = " ".join(map(str, words))
        said = self.server.run(f"runuser -l {person} -c 'bash -s {given}' <<'SCRIPT'\n{text}SCRIPT\n")
        assert said.endswith("the day is over\n"), said
        return said

    def repairs_windows(self) -> None:
        """A job with all that a Windows guest needs: NTFS, drivers from an ISO, the script of the first boot."""
        keys = {"vmdk": WINDOWS_VMDK, "virtio_win": DRIVERS, "win_agent": True, "verify": "content"}
        self.succeeded(self.drop("win01", vm_name="win01", **keys))
        assert self.denials() == ""

    def boots_outside(self, *names: str) -> None:
        """Switch the machine off and boot what it made: all of `names` ask for a login."""
        with self._images() as images:
            for name in names:
                booted = boot_it(published(images / f"{name}.report.json"))
                assert any("asked for a login" in line for line in booted.evidence)
                assert booted.failed_units == ()

    def windows_is_repaired(self) -> None:
        """Switch the machine off and look at what it made, with readers of other authors."""
        raw = self.folder / "repaired.raw"
        with self._images() as images:
            sh("qemu-img", "convert", "-O", "raw", images / "win01.qcow2", raw)
        bed = windows_disk(self.folder / "bed.raw", Windows())
        judged = Judged(replace(bed, path=raw))
        services, files = judged.hive("SYSTEM"), judged.files
        for driver in ("viostor", "vioscsi"):
            assert services[f"ControlSet001\\Services\\{driver}"]["Start"] == (REG_DWORD, bytes(4))
            assert f"Windows/System32/drivers/{driver}.sys" in files
        assert "ControlSet001\\Services\\hyper2kvm-first-boot" in services
        assert {f"{CONFIG}/hyper2kvm-first-boot.ps1", f"{CONFIG}/hyper2kvm-qemu-ga.msi"} < set(files)

    @contextmanager
    def _images(self) -> Iterator[Path]:
        self.server.power_off()
        own = self.folder / "root.raw"
        with looped(own, Segment(offset=0, length=own.stat().st_size)) as root:
            yield root / IMAGES[1:]


def package(suite: str, *words: str) -> Path:
    """The package for that suite, built anew."""
    words += (f"SUITE={suite}",) if suite != platform.freedesktop_os_release()["VERSION_CODENAME"] else ()
    (file,) = built("make", "deb", *words)
    return file


def newer_package(suite: str, version: str, folder: Path) -> Path:
    """The same as that version, in `folder`: in dist/ somebody would install it for the newest."""
    return Path(shutil.move(package(suite, f"VERSION={version}"), folder))


def _export_windows(folder: Path, exports: Path) -> None:
    exports.mkdir()
    raw = windows_disk(folder / "windows.raw", Windows()).path
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, exports / "win01.vmdk")
    raw.unlink()
    shutil.copy(cached_disc(), exports)


@contextmanager
def installed(suite: str, folder: Path, **packages: Path) -> Iterator[Machine]:
    """A server with the package, an operator and a volume group vg0. `packages` lie in /exports by those names, the
    one that is called `current` is installed.
    """
    exports = folder / "exports"
    (exports / "guest").mkdir(parents=True)
    vmdk = debian12.vmdk(Recipe(lvm=True))
    shutil.copy(vmdk, exports / "guest/web01.vmdk")
    empty = empty_disk(folder / "empty.raw", 16)
    sh("qemu-img", "convert", "-O", "vmdk", empty, exports / "guest/empty.vmdk")
    empty.unlink()
    _export_windows(folder, exports / WINDOWS)
    for name, path in packages.items():
        shutil.copy(path, exports / f"{name}.deb")
    exported = server.disk(folder / "exports.raw", 2 << 30, exports, "exports")
    shutil.rmtree(exports)
    with server.running(suite, folder, exported, empty_disk(folder / "volumes.raw", 256)) as running:
        running.run(
            f"""
            {INSTALL} /exports/current.deb
            echo 'include if exists <abstractions/hyper2kvm-libvirtd>' >> /etc/apparmor.d/local/usr.sbin.libvirtd
            apparmor_parser -r /etc/apparmor.d/usr.sbin.libvirtd
            useradd --create-home --groups hyper2kvm-submit {SUBMITTER}
            useradd --create-home --groups hyper2kvm {OPERATOR}
            vgcreate -q vg0 /dev/vdc
            lvcreate -q -L 32M -n data vg0
            """
        )
        yield Machine(running, folder)
