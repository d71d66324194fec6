"""libvirtd dies before a stage of a job, and comes back: the job waits for it and is done as in a clean run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.faults import invariants
from tests.faults.box import in_box
from tests.faults.disks import small_disk
from tests.faults.house import House, until

pytestmark = pytest.mark.slow


VIRSH = ("virsh", "--connect", "qemu:///system")
CONFIGURATION = """
unix_sock_rw_perms = "0777"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:/run/libvirtd.log"
"""


class Libvirt:
    """The libvirtd of the box: root's, as on a server."""

    def __init__(self) -> None:
        for folder in ("/var/lib/libvirt", "/var/cache/libvirt"):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder], check=True)
        for folder in ("/var/lib/libvirt/qemu", "/run/libvirt"):
            Path(folder).mkdir(exist_ok=True)
        self._configuration = Path("/run/libvirtd.conf")
        self._configuration.write_text(CONFIGURATION)

    def start(self) -> None:
        self._process = subprocess.Popen(["libvirtd", "--config", self._configuration], stdin=subprocess.DEVNULL)
        until(lambda: subprocess.run([*VIRSH, "version"], capture_output=True).returncode == 0, "libvirtd answers")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def domains(self) -> set[str]:
        argv = [*VIRSH, "list", "--all", "--name"]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("stage", ["plan", "convert", "verify", "publish", "register"])
@in_box
def test_job_waits_for_libvirt(house: House, stage: str) -> None:
    libvirt = Libvirt()
    libvirt.start()
    disk = small_disk(house.sources)
    house.start(retry={"max_attempts": 100, "delay": 0.5, "backoff": 1})
    house.drop_job("clean", vmdk=disk, guest="none", libvirt_import=True, memory=128)
    house.until_quiet()
    assert house.states() == {"clean": ["succeeded"]}, house.tail()
    house.drop_job("disturbed", vmdk=disk, guest="none", libvirt_import=True, memory=128)
    reached = "SELECT id FROM events WHERE kind = 'stage-started' AND message = ? AND job_id = 2"
    until(lambda: house.rows(reached, stage), lambda: f"{stage} begins: {house.tail()}")
    libvirt.kill()
    until(lambda: _waits_or_is_over(house), lambda: f"it has met the fault: {house.tail()}")
    libvirt.start()
    house.until_quiet()
    assert house.states() == {"clean": ["succeeded"], "disturbed": ["succeeded"]}, house.tail()
    assert {"clean", "disturbed"} <= libvirt.domains()
    assert house.stop() == 0, house.tail()
    libvirt.kill()
    kinds = {(house.images / f"{name}.xml").read_text().partition("<domain")[2][:16] for name in ("clean", "disturbed")}
    assert len(kinds) == 1, kinds
    invariants.check(house)


def _waits_or_is_over(house: House) -> bool:
    return bool(house.rows("SELECT id FROM jobs WHERE id = 2 AND (state != 'running')"))
