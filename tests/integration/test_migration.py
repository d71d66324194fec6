"""A dropped YAML becomes a guest that boots: the whole service on real exports of a real guest."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu.qemu_img import check
from hyper2kvmd.model.jobs import Stage, State, WaitingFor
from tests.guests import debian12
from tests.guests.debian12 import Recipe
from tests.support.disks import empty_disk, sh
from tests.support.file_systems import file_system
from tests.support.host import USER, as_service
from tests.support.kernel import Kernel
from tests.support.service import PROGRAMS, Service, fingerprint, running, until


@pytest.fixture
def service(service_folder: Path, installed_helper: tuple[str, ...]) -> Iterator[Service]:
    allowed = f"[{service_folder}/closed/deep]"
    with running(service_folder, installed_helper, allowed_conversion_dirs=allowed, log_level="debug") as daemon:
        yield daemon
    assert Kernel.now().clean


def test_a_dropped_export_boots_and_the_source_is_untouched(service: Service) -> None:
    source = service.source(debian12.vmdk(Recipe()))
    before = fingerprint(source.parent)
    service.drop("web01.yaml", vmdk=source, verify="boot", checksum=True)
    job = service.succeeded("web01")

    assert fingerprint(source.parent) == before
    assert re.search(r"qemu-img create -q -f qcow2 \S+/disk1.qcow2 \d+$", service.log.read_text(), re.MULTILINE)
    until("the YAML is set aside", lambda: service.yamls("done") == {"web01.yaml"})
    assert service.names("incoming") == service.names("active") == set()
    assert service.working_folders() == set()
    assert {path.name for path in service.images.iterdir()} == {
        ".hyper2kvmd.lock",
        "web01.qcow2",
        "web01.qcow2.sha256",
        "web01.report.json",
        "web01.report.md",
        "web01.xml",
    }
    assert check(service.images / "web01.qcow2") is None
    sh("virt-xml-validate", service.images / "web01.xml", "domain")

    kinds = [(event.kind, event.message.split(" ")[0]) for event in service.events(job)]
    for stage in Stage:
        started, finished = kinds.index(("stage-started", stage)), kinds.index(("stage-finished", stage))
        assert started < finished
    assert kinds[0][0] == "submitted"
    assert kinds[-1][0] == "succeeded"

    with urllib.request.urlopen(f"http://{service.metrics}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert 'hyper2kvm_helper_requests_total{outcome="ok",verb="mount"}' in metrics
    assert 'hyper2kvm_jobs{state="succeeded"} 1.0' in metrics
    assert "web01" not in metrics
    assert urllib.request.urlopen(f"http://{service.metrics}/healthz", timeout=10).status == 200

    report = service.report("web01")
    changed = {change["path"]: change["diff"] for change in report["guest"]["changes"]}
    assert "-/dev/sda1 /" in changed["/etc/fstab"]
    assert "+UUID=" in changed["/etc/fstab"]
    assert "/boot/grub/grub.cfg" in changed
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert json.loads(service.ctl("report", job.id, "--json").stdout) == report
    assert service.ctl("report", job.id).stdout == (service.images / "web01.report.md").read_text()


def test_a_migration_without_sudo_and_any_other_setuid_program(service_folder: Path, helper_socket: Path) -> None:
    """The helper behind its socket, and a daemon that can gain no privilege."""
    with running(service_folder, helper_socket, prefix=("setpriv", "--no-new-privs", "--")) as service:
        service.drop("web02.yaml", vmdk=service.source(debian12.vmdk(Recipe())), out_format="raw")
        service.succeeded("web02")
        changed = {change["path"] for change in service.report("web02")["guest"]["changes"]}
    assert "/etc/fstab" in changed
    assert Kernel.now().clean


@pytest.mark.parametrize(
    "subformat",
    [
        pytest.param("monolithicSparse", marks=pytest.mark.slow),
        pytest.param("monolithicFlat", marks=pytest.mark.slow),
        "twoGbMaxExtentSparse",
    ],
)
def test_lvm_guests_of_every_subformat_lying_there_at_start(
    subformat: debian12.Subformat, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """The root is a logical volume; the YAML was copied before the daemon came up."""
    service = Service(service_folder, installed_helper)
    source = service.source(debian12.vmdk(Recipe(lvm=True), subformat))
    service.drop("db01.yaml", vmdk=source, verify="content")
    service.start()
    try:
        service.succeeded("db01")
        report = service.report("db01")
        assert report["plan"]["disks"][0]["preallocate_reason"] == "the disk holds LVM"
        image = service.images / "db01.qcow2"
        assert image.stat().st_blocks * 512 >= report["plan"]["disks"][0]["virtual_size"]
        assert "/etc/fstab" in {change["path"] for change in report["guest"]["changes"]}
        assert service.working_folders() == set()
    finally:
        service.end()


@pytest.mark.slow
def test_a_repaired_lvm_guest_boots(service: Service) -> None:
    """As the guest of LVM and XFS does in tests/guests/test_matrix.py."""
    service.drop("db02.yaml", vmdk=service.source(debian12.vmdk(Recipe(lvm=True))), verify="boot")
    service.succeeded("db02")


def test_a_guest_that_is_not_repaired_fails_its_boot_proof(service: Service) -> None:
    """The proof can fail: without the initramfs repair the same guest finds no root."""
    service.drop("sick.yaml", vmdk=service.source(debian12.vmdk(Recipe())), verify="boot", regen_initramfs=False)
    job = service.failed("sick", "boot-failed")
    (problem,) = job.problems
    assert "initramfs shell" in problem.message
    assert re.search("UUID=[-0-9a-f]{36} does not exist", problem.message)
    assert "regen_initramfs" in problem.hint
    until("the YAML is set aside", lambda: service.yamls("failed") == {"sick.yaml"})
    assert not list(service.images.glob("[!.]*"))
    assert service.working_folders() == set()


def test_dry_run_writes_nothing(service: Service) -> None:
    service.drop("plan.yaml", vmdk=service.source(debian12.vmdk(Recipe())), dry_run=True)
    service.succeeded("plan")
    assert {path.name for path in service.images.iterdir()} == {".hyper2kvmd.lock"}
    assert service.working_folders() == set()


def test_what_cannot_work_is_said_in_one_line_and_leaves_nothing(service: Service, tmp_path: Path) -> None:
    good = service.source(debian12.vmdk(Recipe()))
    text = service.sources / "text.vmdk"
    text.write_text("not a disk\n")
    secret = service.sources / "secret.vmdk"
    shutil.copy(good, secret)
    secret.chmod(0o600)
    os.chown(secret, 0, 0)
    two = service.sources / "two.vmdk"
    make_two_systems(tmp_path, two)
    closed = service.root / "closed"
    closed.mkdir(mode=0o700)
    cases = {
        "missing": ("source-missing", {"vmdk": service.sources / "gone.vmdk"}),
        "unreadable": ("source-unreadable", {"vmdk": secret}),
        "text": ("source-not-vmdk", {"vmdk": text}),
        "several": ("guest-ambiguous", {"vmdk": two}),
    }
    of_host = {
        "output": ("output-unwritable", {"vmdk": good, "output_dir": closed / "deep"}),
        "scratch": ("directory-unusable", {"vmdk": good, "conversion_dir": closed / "deep"}),
    }
    for name, (_, keys) in (cases | of_host).items():
        service.drop(f"{name}.yaml", **keys)
    for name, (code, _) in (cases | of_host).items():
        problem = service.failed(name, code, State.HELD if name in of_host else State.FAILED).problems[0]
        assert problem.hint
        assert "\n" not in problem.message
    until("the YAMLs are set aside", lambda: service.yamls("failed") == {f"{name}.yaml" for name in cases})
    assert service.working_folders() == set()
    assert not list(service.images.glob("[!.]*"))

    service.drop("after.yaml", vmdk=good, dry_run=True)
    service.succeeded("after")


def make_two_systems(folder: Path, target: Path) -> None:
    """A disk with two installed systems, which nobody can choose between."""
    raw = empty_disk(folder / "two.raw", 64)
    sh("sfdisk", "-q", raw, stdin="label: dos\n2048,40960,83\n,40960,83\n")
    tree = folder / "tree"
    for name in ("etc", "usr/lib"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=debian\nPRETTY_NAME=Debian\n")
    (tree / "etc/fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
    for start in (2048, 2048 + 40960):
        sh("mkfs.ext4", "-q", "-E", f"offset={start * 512}", "-d", tree, raw, "20M")
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, target)


def test_a_full_disk_waits_and_says_so_then_goes_on(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    with file_system(service_folder, 1300) as place:
        ballast = place / "ballast"
        sh("fallocate", "-l", "1100M", ballast)
        conversions = place / "conversions"
        conversions.mkdir(mode=0o700)
        shutil.chown(conversions, USER, USER)
        with running(service_folder, installed_helper, conversion_dir=conversions) as service:
            service.conversions = conversions
            service.drop("big.yaml", vmdk=service.source(debian12.vmdk(Recipe())))

            def waits() -> bool:
                job = service.job("big")
                return job is not None and job.state == State.QUEUED and "needed" in job.note

            until("the job waits for space", waits)
            assert service.working_folders() == {"big.1"}
            kept = {path.name for path in (conversions / "big.1").iterdir()}
            assert kept == {"finished.json", "purpose"}, "the record of the plan, and no image"
            ballast.unlink()
            service.succeeded("big")
            until("its folder is removed", lambda: service.working_folders() == set())


def test_a_job_that_fails_to_register_keeps_its_image(service: Service) -> None:
    """The domain XML of another program appears during the migration."""

    def converts() -> bool:
        job = service.job("web01")
        return job is not None and "convert" in {one.message for one in service.events(job)}

    service.drop("web01.yaml", vmdk=service.source(debian12.vmdk(Recipe())))
    until("the conversion begins", converts)
    service.images.mkdir(exist_ok=True)
    shutil.chown(service.images, USER, USER)
    (service.images / "web01.xml").touch()
    job = service.failed("web01", "output-exists")
    assert job.stage == Stage.REGISTER
    assert check(service.images / "web01.qcow2") is None
    assert service.working_folders() == {f"web01.{job.id}"}

    before = (service.images / "web01.qcow2").stat()
    service.ctl("retry", str(job.id))
    until("the retry fails as well", lambda: [one.kind for one in service.events(job)].count("failed") == 2)
    stages = [one.message for one in service.events(job) if one.kind == "stage-started"]
    assert stages.count("convert") == 1
    assert (service.images / "web01.qcow2").stat().st_mtime_ns == before.st_mtime_ns


def test_a_full_output_directory_costs_no_conversion_and_no_retry(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    with file_system(service_folder, 900) as place:
        images, ballast = place / "images", place / "ballast"
        images.mkdir()
        shutil.chown(images, USER, USER)
        with running(service_folder, installed_helper, output_dir=images) as service:
            service.images = images
            service.drop("web01.yaml", vmdk=service.source(debian12.vmdk(Recipe())))
            until("the image grows", lambda: list(service.conversions.glob("*/disk1.qcow2")))
            fill(ballast)
            until("it waits", lambda: waits_for_space(service, "web01"))
            job = service.job("web01")
            assert job is not None
            assert service.working_folders() == {f"web01.{job.id}"}
            assert "is full. Free space there" in service.ctl("show", job.id).stdout
            ballast.unlink()
            service.succeeded("web01")
            stages = [one.message for one in service.events(job) if one.kind == "stage-started"]
            assert stages[:5] == list(Stage)[:5]
            assert set(stages[5:]) == {Stage.PUBLISH, Stage.REGISTER} and stages.count(Stage.REGISTER) == 1
            assert service.working_folders() == set()


def waits_for_space(service: Service, name: str) -> bool:
    job = service.job(name)
    return job is not None and job.waiting_for is WaitingFor.SPACE


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(1 << 20))


def test_a_helper_out_of_reach_is_said_before_the_first_byte(service_folder: Path, service_user: object) -> None:
    with running(service_folder, ("sudo", "-n", "/usr/libexec/hyper2kvm/no-such-helper")) as service:
        service.drop("web01.yaml", vmdk=service.source(debian12.vmdk(Recipe())))
        job = service.failed("web01", "helper-unreachable", State.HELD)
        assert job.problems[0].hint
        assert Stage.CONVERT not in [event.message for event in service.events(job)]


def test_a_bad_yaml_is_rejected_with_every_error(service: Service) -> None:
    (service.spool / "incoming" / "bad.yaml").write_text("vmdk: relative.vmdk\nmemmory: 4\nvcpus: many\n")
    job = service.finished("bad")
    assert job.state == State.REJECTED
    until("the YAML is set aside", lambda: service.names("rejected") == {"bad.yaml", "bad.yaml.reason.json"})
    reason = json.loads((service.spool / "rejected" / "bad.yaml.reason.json").read_text())
    assert [(p["key"], p["line"], p["column"]) for p in reason["problems"]] == [
        ("vmdk", 1, 7),
        ("memmory", 2, 1),
        ("vcpus", 3, 8),
    ]
    assert all(p["hint"] for p in reason["problems"])


def test_the_same_content_twice_is_one_job(service: Service) -> None:
    source = service.source(debian12.vmdk(Recipe()))
    service.drop("one.yaml", vmdk=source, vm_name="same")
    service.drop("two.yaml", vmdk=source, vm_name="same")
    until("the copy is set aside", lambda: any(name.endswith(".reason.json") for name in service.names("rejected")))
    until("the other is over", lambda: not [job for job in service.jobs() if job.state.active])
    assert sorted(job.state for job in service.jobs()) == [State.REJECTED, State.SUCCEEDED]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_half_way_comes_back_and_finishes(
    number: signal.Signals, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """Stopped or killed: the conversion goes on from its checkpoint."""
    (service_folder / "full").mkdir()
    source = make_full_disk(service_folder / "full")
    with running(service_folder, installed_helper, bandwidth_limit=40_000_000, io_priority="idle") as service:
        end_half_way(service, source, number)


def make_full_disk(folder: Path) -> Path:
    """Half a gigabyte, full from one end to the other."""
    raw = folder / "raw"
    with raw.open("wb") as file:
        for _ in range(8):
            file.write(os.urandom(64 << 20))
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", raw, folder / "d.vmdk")
    raw.unlink()
    return folder / "d.vmdk"


def end_half_way(service: Service, source: Path, number: signal.Signals) -> None:
    service.drop("web01.yaml", vmdk=service.source(source), verify="content")
    seen: dict[int, list[float]] = {1: [], 2: []}

    def converting(attempt: int, share: float) -> bool:
        job = service.job("web01")
        if job is None or job.stage != Stage.CONVERT or job.attempt != attempt:
            return False
        seen[attempt].append(job.progress)
        return job.progress > share

    until("the conversion runs", lambda: converting(1, 0.66))
    service.end(number)
    until("no worker is left", lambda: not processes_below(service.root))
    assert Kernel.now().clean
    service.start()
    until("the second attempt converts", lambda: converting(2, 0.001))
    assert seen[2][-1] > 0.56
    job = service.succeeded("web01")
    assert job.attempt == 2
    assert service.working_folders() == set()
    until("the YAML is set aside", lambda: service.yamls("done") == {"web01.yaml"})


def processes_below(root: Path) -> list[str]:
    """Processes other than the daemon that name the test's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(root) in line and "pytest" not in line:
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_one_shot_run_that_is_interrupted_leaves_nothing(
    number: signal.Signals, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    del installed_helper
    conversions, images = service_folder / "conversions", service_folder / "images"
    config = service_folder / "web01.yaml"
    source = Service(service_folder, ("none",)).source(debian12.vmdk(Recipe()))
    config.write_text(f"vmdk: {source}\noutput_dir: {images}\nverify: content\n")
    process = subprocess.Popen(
        as_service(PROGRAMS / "h2kvmctl", "--config", config, "--conversion-dir", conversions),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    until("the image grows", lambda: list(conversions.glob("*/disk1.qcow2")) if conversions.exists() else False)
    assert conversions.stat().st_mode & 0o777 == 0o700
    time.sleep(0.3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert list(conversions.iterdir()) == list(images.glob("*")) == []
    assert Kernel.now().clean
