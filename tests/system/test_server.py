"""The package on a Debian server, from its installation to its purge, as an administrator lives through it.

The tests are one story: each begins where the one before left off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.doc_blocks import of_server
from tests.support.own_host import own_host as own_host
from tests.system.server import until
from tests.system.story import (
    CONFIGURATION,
    EMPTY,
    GUEST,
    IMAGES,
    INSTALL,
    OPERATOR,
    SUBMITTER,
    WITHOUT_SUDO,
    Machine,
    installed,
    newer_package,
    package,
)

NEWER = "99.0"
STATE = "/var/lib/hyper2kvm"
CONVERSIONS = f"{STATE}/conversions"
SLOW = "slow"
WATCH_LVM = "systemd-run -q --unit=watch sh -c 'while sleep 3; do lvs --noheadings -o vg_name,lv_name; done'"
TRACES = r"""
losetup --list --noheadings
dmsetup ls | grep -v ^vg0 | grep -v 'No devices' || true
cat /sys/block/nbd*/backend 2>/dev/null || true
"""
RECEIVER = "192.0.2.10"
RECEIVE = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
HTTPServer(("", 8000), Receiver).serve_forever()
"""
LEFT = f"""
find /etc /usr -path '*hyper2kvm*' -o -path '*h2kvmctl*'
find {STATE} /var/spool/hyper2kvm /run/hyper2kvm* 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, installed_helper: tuple[str, ...]) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("server")
    current, newer = package("bookworm"), newer_package("bookworm", NEWER, folder)
    with installed("bookworm", folder, current=current, newer=newer) as machine:
        yield machine
    for path in folder.glob("*.raw"):
        path.unlink()


def test_a_fresh_install_works_without_an_edit(machine: Machine) -> None:
    said = machine.server.run(
        """
        systemctl is-active hyper2kvmd.service hyper2kvm-cleanup.timer
        systemctl is-enabled hyper2kvmd.service hyper2kvm-cleanup.timer
        systemctl is-active hyper2kvm-helper.socket || true
        id -nG hyper2kvm
        """
    )
    *states, groups = said.split("\n")[:6]
    assert states == ["active", "active", "enabled", "enabled", "inactive"]
    assert set(groups.split()) == {"hyper2kvm", "hyper2kvm-submit", "kvm", "libvirt"}
    assert {"hyper2kvmd (enforce)", "hyper2kvm-helper (enforce)"} <= set(
        machine.server.run("cat /sys/kernel/security/apparmor/profiles").splitlines()
    )


def test_the_commands_of_the_documentation_run(machine: Machine) -> None:
    """Those for a server, page by page. The package is installed already, and `doctor` finds no KVM in this machine."""
    machine.server.run("mkdir -p dist; ln -s /exports/current.deb dist/hyper2kvmd_0~deb12u1_amd64.deb")
    for texts in of_server().values():
        for text in texts:
            machine.server.run(text.replace("h2kvmctl doctor\n", "h2kvmctl doctor || [ $? -eq 1 ]\n"))


def test_a_guest_whose_volume_group_is_called_as_the_servers(machine: Machine) -> None:
    run = machine.server.run
    run(f"virsh -q net-start default; {WATCH_LVM}")
    number = machine.drop("web01", vmdk=GUEST, memory=512, libvirt_import=True, verify="check")
    job = machine.succeeded(number)
    assert job["attempt"] == 1
    assert "succeeded" in run(f"h2kvmctl watch {number}; h2kvmctl list")
    run("systemctl stop watch.service; lvcreate -q -L 32M -n more vg0; lvremove -q -y vg0/more")
    seen = run("journalctl -b -u watch.service -o cat --no-pager").splitlines()
    assert {" ".join(line.split()) for line in seen if line.startswith(" ")} == {"vg0 data"}
    assert [line for line in seen if "WARNING" in line or "rror" in line] == []
    assert " nbd " in run("journalctl -b --no-pager -t hyper2kvm-helper")
    fields = run(f"journalctl -b -u hyper2kvmd JOB_ID={number} -o cat --no-pager")
    assert f"job {number}: convert" in fields
    assert machine.denials() == ""


def test_libvirt_has_it_and_starts_it(machine: Machine) -> None:
    said = machine.server.run(
        """
        virsh -q dominfo web01
        virsh -q start web01
        sleep 5
        virsh -q domstate web01
        virsh -q destroy web01
        """
    )
    assert "running" in said
    assert machine.denials() == ""


def test_prometheus_scrapes_it(machine: Machine) -> None:
    machine.server.run(
        """
        cd /usr/share/hyper2kvmd/monitoring
        promtool check rules alerts.yaml
        curl --silent --fail http://127.0.0.1:9180/metrics | promtool check metrics
        cp prometheus.yaml /etc/prometheus/prometheus.yml
        systemctl restart prometheus
        """
    )
    asked = "curl --silent --fail 'http://127.0.0.1:9090/api/v1/query?query=hyper2kvm_jobs_completed_total'"
    until(lambda: json.loads(machine.server.run(f"{asked} || echo '{{}}'")).get("data", {}).get("result"))


def test_a_webhook_reaches_another_address_once_the_unit_allows_it(machine: Machine) -> None:
    """As docs/howto/notifications.md says. The receiver is here, at an address that is not of localhost."""
    run = machine.server.run
    run(
        f"""
        ip address add {RECEIVER} dev lo
        systemd-run -q --unit=receiver python3 -c '{RECEIVE}'
        cp {CONFIGURATION} /root/before.yaml
        cat >> {CONFIGURATION} <<'YAML'
notify:
- {{name: near, webhook: "http://127.0.0.1:8000/"}}
- {{name: far, webhook: "http://{RECEIVER}:8000/"}}
YAML
        systemctl reload hyper2kvmd
        """
    )
    said = run("h2kvmctl notify-test || true")
    assert "near: delivered" in said
    assert f"far: not delivered: this host forbids connections of the service to http://{RECEIVER}:8000." in said
    assert "IPAddressAllow=" in said
    run(
        f"""
        mkdir -p /etc/systemd/system/hyper2kvmd.service.d
        printf '[Service]\nIPAddressAllow={RECEIVER}\n' > /etc/systemd/system/hyper2kvmd.service.d/override.conf
        systemctl daemon-reload
        systemctl restart hyper2kvmd
        """
    )
    until(lambda: "far: delivered" in run("h2kvmctl notify-test || true"))
    run(
        f"""
        systemctl stop receiver
        ip address del {RECEIVER}/32 dev lo
        mv /root/before.yaml {CONFIGURATION}
        rm -r /etc/systemd/system/hyper2kvmd.service.d
        systemctl daemon-reload
        systemctl restart hyper2kvmd
        """
    )
    assert machine.denials() == ""


def test_its_status_tells_how_far_a_job_is(machine: Machine) -> None:
    run = machine.server.run
    run(f"echo 'bandwidth_limit: 500000' >> {CONFIGURATION}; systemctl reload hyper2kvmd")
    machine.drop(SLOW, vmdk=GUEST, vm_name=SLOW, verify="content")
    until(lambda: f"{SLOW} convert " in run("systemctl show -P StatusText hyper2kvmd"))
    shown = run("systemctl status --no-pager hyper2kvmd")
    assert "Active: active (running)" in shown
    assert f'Status: "1 running: {SLOW} convert ' in shown
    assert " %; 0 queued" in shown


ONE_SHOT = "gone.20260101T000000Z-77"
OLD = f"install -d -o hyper2kvm -g hyper2kvm -m 0700 {ONE_SHOT}; touch -d '9 days ago' {ONE_SHOT}"


def test_the_daily_clean_up_leaves_a_live_job_alone(machine: Machine) -> None:
    """And a folder that no job knows: it is marked, and stays for a day."""
    run = machine.server.run
    elsewhere = "/srv/conversions"
    run(f"cd {CONVERSIONS}; {OLD}; install -d -o hyper2kvm -g hyper2kvm -m 0700 unknown.77")
    run(f"touch -d '9 days ago' {CONVERSIONS}/unknown.77; systemctl start hyper2kvm-cleanup.service")
    assert run(f"ls {CONVERSIONS}").split() == [f"{SLOW}.2", "unknown.77"]
    assert "unknown.77: it stays for a day" in run("journalctl -b -u hyper2kvm-cleanup --no-pager")
    run(f"rmdir {CONVERSIONS}/unknown.77")
    run(
        f"""
        install -d -o hyper2kvm -g hyper2kvm -m 0700 {elsewhere}
        cd {elsewhere}; {OLD}
        echo 'conversion_dir: {elsewhere}' >> {CONFIGURATION}
        systemctl start hyper2kvm-cleanup.service
        sed -i '/^conversion_dir:/d' {CONFIGURATION}
        """
    )
    assert run(f"ls {elsewhere}") == ""
    assert "hyper2kvm-cleanup.timer" in run("systemctl list-timers --no-pager")


def test_the_watchdog_restarts_a_daemon_that_hangs(machine: Machine) -> None:
    run = machine.server.run
    run("systemctl kill --kill-who=main --signal=STOP hyper2kvmd")
    until(lambda: run("systemctl show -P NRestarts hyper2kvmd").strip() == "1")
    assert "watchdog" in run("journalctl -b -u hyper2kvmd --no-pager").lower()
    converts_again(machine, 2)


def test_a_reset_in_the_middle_loses_nothing(machine: Machine) -> None:
    before = machine.job(2)["progress"]
    assert before > 0
    assert machine.denials() == ""
    machine.server.reset()
    assert converts_again(machine, 3) >= before - 0.1
    # it converts, which takes no device
    assert machine.server.run(TRACES) == ""
    assert machine.server.run(f"ls {CONVERSIONS}").split() == [f"{SLOW}.2"]


def test_an_upgrade_in_the_middle_loses_nothing(machine: Machine) -> None:
    """Its administrator gives up sudo with it: the new daemon repairs the guest through the helper's socket."""
    run = machine.server.run
    run(WITHOUT_SUDO)
    run(f"sed -i 's/^bandwidth_limit:.*/log_level: debug/' {CONFIGURATION}; {INSTALL} /exports/newer.deb")
    assert run("h2kvmctl --version").split()[-1] == NEWER
    assert "log_level: debug" in run(f"cat {CONFIGURATION}")
    job = machine.succeeded(2)
    assert job["attempt"] == 4
    assert " nbd " in run("journalctl -b --no-pager -t hyper2kvm-helper")
    assert run("systemctl list-units --all --plain --no-legend 'hyper2kvm-helper@*'") == ""
    assert run(TRACES) == ""
    assert machine.denials() == ""


def test_a_windows_guest_is_repaired(machine: Machine) -> None:
    machine.repairs_windows()


def test_the_first_day_of_an_operator_and_of_a_submitter(machine: Machine) -> None:
    said = machine.first_day(OPERATOR, "operator.sh")
    assert "waiting for  the jobs that it names in after" in said
    others_job = max(job["id"] for job in machine.jobs() if job["submitter"] == OPERATOR)
    said = machine.first_day(SUBMITTER, "submitter.sh", others_job)
    assert said.count("[job-unknown]") == 2
    assert machine.denials() == ""


def test_libvirt_starts_machines_with_uefi_and_with_secure_boot(machine: Machine) -> None:
    """By the package's own AppArmor rules. Their disks hold no system: what they boot is shown by tests/guests."""
    run = machine.server.run
    run("virsh -q net-list --name | grep -qx default || virsh -q net-start default")
    asked = {"vmdk": EMPTY, "guest": "none", "memory": 256, "vcpus": 1, "libvirt_import": True, "verify": "check"}
    for name, secure in (("plain", False), ("secure", True)):
        machine.succeeded(machine.drop(name, vm_name=name, uefi=True, secure_boot=secure, **asked))
        state = run(
            f"""
            virsh -q start {name}
            sleep 5
            virsh -q domstate {name}
            virsh -q dumpxml {name}
            virsh -q destroy {name}
            """
        )
        assert "running" in state
        assert ("secure='yes'" in state) == secure
        assert "<nvram" in state
    assert machine.denials() == ""


def test_a_purge_leaves_images_and_nothing_else(machine: Machine) -> None:
    run = machine.server.run
    run("rm -r /etc/systemd/system/hyper2kvmd.service.d")  # the administrator's own
    run("DEBIAN_FRONTEND=noninteractive apt-get -q -y purge hyper2kvmd")
    left = run(LEFT).split()
    assert {path for path in left if not path.startswith(f"{IMAGES}/")} == {STATE, IMAGES}
    assert {f"{IMAGES}/{name}.report.json" for name in ("web01", SLOW)} < set(left)
    run("! systemctl cat hyper2kvmd.service; ! command -v h2kvmctl")


def test_what_it_made_boots(machine: Machine) -> None:
    machine.boots_outside("web01", SLOW)


def test_the_windows_that_it_repaired(machine: Machine) -> None:
    machine.windows_is_repaired()


def converts_again(machine: Machine, attempt: int) -> float:
    """How far that attempt of the slow job was when it was first seen to convert."""

    def so() -> bool:
        job = machine.job(2)
        return bool(job["attempt"] == attempt and job["stage"] == "convert" and job["progress"])

    until(so)
    return float(machine.job(2)["progress"])
