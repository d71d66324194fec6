"""libvirtd dies before a stage of a job, and comes back: the job waits for it and is done as in a clean run.

Or it is frozen, and a job that waits for it is cancelled.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults import invariants
from tests.faults.box import in_box
from tests.faults.disks import small_disk
from tests.faults.house import House, commands, until

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

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    @property
    def frozen(self) -> bool:
        return "State:\tT" in Path(f"/proc/{self._process.pid}/status").read_text()

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kind(self, domain: str) -> str:
        """`kvm`, or `qemu` for emulation."""
        shown = subprocess.run([*VIRSH, "dumpxml", domain], capture_output=True, text=True, check=True).stdout
        found = re.search(r"<domain type='(\w+)'", shown)
        assert found is not None, shown
        return found[1]

    def domains(self) -> set[str]:
        argv = [*VIRSH, "list", "--all", "--name"]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


SLOW = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("plan", "convert", "publish", "register")]
BEGUN = "SELECT id FROM events WHERE kind = 'stage-started' AND message = ? AND job_id = ?"


@pytest.mark.parametrize("stage", ["verify", *SLOW])
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
    until(lambda: house.rows(BEGUN, stage, 2), lambda: f"{stage} begins: {house.tail()}")
    libvirt.kill()
    until(lambda: _waits_or_is_over(house), lambda: f"it has met the fault: {house.tail()}")
    libvirt.start()
    house.until_quiet()
    assert house.states() == {"clean": ["succeeded"], "disturbed": ["succeeded"]}, house.tail()
    if stage == "verify":
        assert len(house.rows(BEGUN, "register", 2)) > 1, "it has met the fault in register"
    assert libvirt.domains() == {"clean", "disturbed"}
    assert libvirt.kind("disturbed") == libvirt.kind("clean")
    defined = "SELECT id FROM events WHERE kind = 'stage-finished' AND message LIKE 'register%' AND job_id = 2"
    assert len(house.rows(defined)) == 1
    assert house.stop() == 0, house.tail()
    libvirt.kill()
    kinds = {(house.images / f"{name}.xml").read_text().partition("<domain")[2][:16] for name in ("clean", "disturbed")}
    assert len(kinds) == 1, kinds
    invariants.check(house)


def _waits_or_is_over(house: House) -> bool:
    return bool(house.rows("SELECT id FROM jobs WHERE id = 2 AND (state != 'running')"))


@in_box
def test_job_that_waits_for_a_frozen_libvirt_is_cancelled(house: House) -> None:
    libvirt = Libvirt()
    libvirt.start()
    house.start()
    house.drop_job("frozen", vmdk=small_disk(house.sources), guest="none", libvirt_import=True, memory=128)
    until(lambda: house.rows(BEGUN, "verify", 1), lambda: f"verify begins: {house.tail()}")
    libvirt.freeze()
    until(lambda: house.rows(BEGUN, "register", 1), lambda: f"register begins: {house.tail()}")
    until(_virsh_runs, "it asks libvirt")
    status, answer = house.ask("POST", "/v1/jobs/1/cancel")
    assert status == 200, answer
    until(lambda: house.states() == {"frozen": ["cancelled"]}, lambda: f"it is cancelled: {house.tail()}")
    until(lambda: not _virsh_runs(), "virsh has ended")
    assert libvirt.frozen
    libvirt.thaw()
    until(lambda: house.quiet(), lambda: f"its file is put away: {house.tail()}")
    assert libvirt.domains() == set()


def _virsh_runs() -> bool:
    return any(words and words[0].endswith("virsh") for words in commands().values())
