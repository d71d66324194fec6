"""The libvirt that a submitter names: which one, and what the ssh on the way there reads and runs.

The daemon sees a passwd file in which its user has a home directory with a trap: an ssh configuration that leaves a
mark, whatever host is asked for. The other host is an sshd of this test's own.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import Unsafe
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Job
from hyper2kvmd.model.orders import Bounds, Order
from hyper2kvmd.model.results import Artifact, PublishedDisk
from hyper2kvmd.stages.register import register
from hyper2kvmd.targets.libvirt.connection import Libvirt
from tests.support.benches import bench_for, hardware_for
from tests.support.host import USER, as_service, command, installed
from tests.support.own_host import FOLDER_PREFIX
from tests.support.service import PROGRAMS, Service, free_port
from tests.support.submitters import VICTIM, disk, drop

KNOWN_HOSTS = Path("/etc/hyper2kvm/known_hosts")
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
UNLISTED = "qemu+ssh://nowhere.invalid/system"
TRAP = """Match exec "touch {mark}"
Host *
  ProxyCommand sh -c 'touch {mark}; exit 1'
  BatchMode yes
"""


@dataclass(frozen=True)
class Trap:
    home: Path
    mark: Path
    prefix: tuple[str, ...]
    """The command that runs another one where the service user has this home directory."""

    def sprung(self) -> bool:
        return self.mark.exists()


@dataclass(frozen=True)
class Host:
    """A machine that answers by ssh."""

    uri: str
    key: str
    """A line for a known_hosts file."""
    log: Path


@pytest.fixture(scope="module")
def trap(service_user: object) -> Iterator[Trap]:
    root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    root.chmod(0o755)
    home, mark, users = root / "home", root / "home/mark", root / "passwd"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text(TRAP.format(mark=mark))
    for path in (home, home / ".ssh", home / ".ssh/config"):
        shutil.chown(path, USER, USER)
    text = Path("/etc/passwd").read_text()
    users.write_text(re.sub(rf"(?m)^({USER}:(?:[^:]*:){{4}}).*$", rf"\g<1>{home}:/bin/sh", text))
    users.chmod(0o644)
    prefix = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', str(users))
    trap = Trap(home, mark, prefix)
    subprocess.run([*prefix, *as_service("ssh", "nowhere.invalid")], capture_output=True, timeout=60, check=False)
    assert trap.sprung(), "the trap catches nobody"
    mark.unlink()
    yield trap
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """sshd on a port of its own, with a key that nobody has seen before."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    port, separation = free_port(), Path("/run/sshd")
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    settings = ("PidFile none", "UsePAM no", "AuthorizedKeysFile none", "PasswordAuthentication no", "LogLevel VERBOSE")
    lines = (f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/key", *settings)
    (folder / "config").write_text("".join(f"{line}\n" for line in lines))
    made = not separation.exists()
    separation.mkdir(mode=0o755, exist_ok=True)
    argv = ["/usr/sbin/sshd", "-D", "-E", str(folder / "log"), "-f", str(folder / "config")]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        key = " ".join((folder / "key.pub").read_text().split()[:2])
        yield Host(f"qemu+ssh://127.0.0.1:{port}/system", f"[127.0.0.1]:{port} {key}\n", folder / "log")
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)
        if made:
            separation.rmdir()


@pytest.fixture(scope="module")
def daemon(installed_helper: tuple[str, ...], trap: Trap, host: Host) -> Iterator[Service]:
    """Anybody may drop files, and one URI of another host is allowed."""
    root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    shutil.chown(root, USER, USER)
    root.chmod(0o755)
    service = Service(root, installed_helper, trap.prefix)
    service.settings |= {"allowed_libvirt_uris": f"[{host.uri}]"}
    service.images.mkdir()  # by the package, so that no submitter is let in
    shutil.chown(service.images, USER, USER)
    service.images.chmod(0o751)
    service.start()
    (service.spool / "incoming").chmod(0o777)  # the daemon corrects it when it starts
    yield service
    service.end()
    shutil.rmtree(root)


@contextmanager
def known(tmp_path: Path, path: Path, line: str) -> Iterator[None]:
    """A known_hosts file of the administrator's, which is gone afterwards with the folder made for it."""
    made = not path.parent.exists()
    (tmp_path / "known").write_text(line)
    with installed(tmp_path / "known", path, 0o644):
        yield
    if made:
        path.parent.rmdir()


def asked(daemon: Service, name: str, uri: str, **keys: Any) -> Job:
    source = disk(daemon.root / f"{name}.raw", VICTIM, 0o644)
    drop(daemon, name, vmdk=source, libvirt_uri=uri, **keys)
    return daemon.finished(name)


def codes(job: Job) -> list[str]:
    return [one.code for one in job.problems]


# ---------------------------------------------------------------- which one


@pytest.mark.parametrize("wanted", [True, False], ids=["import", "no import"])
def test_a_host_that_the_administrator_did_not_list(daemon: Service, trap: Trap, wanted: bool) -> None:
    name = f"unlisted-{wanted}".lower()
    job = asked(daemon, name, UNLISTED, libvirt_import=str(wanted).lower())
    assert codes(job) == ["libvirt-uri-not-allowed"]
    assert not trap.sprung()
    assert not list(daemon.images.glob(f"{name}*"))


@pytest.mark.parametrize("change", ["root@", "", "session"])
def test_an_address_that_only_looks_like_a_listed_one(daemon: Service, host: Host, trap: Trap, change: str) -> None:
    """Another user, another port, another daemon there."""
    uri = {
        "root@": host.uri.replace("://", "://root@"),
        "": re.sub(r":\d+/", "/", host.uri),
        "session": host.uri.replace("/system", "/session"),
    }[change]
    job = asked(daemon, f"similar-{change.strip('@') or 'port'}", uri, libvirt_import="true")
    assert codes(job) == ["libvirt-uri-not-allowed"]
    assert not trap.sprung()


def test_a_job_that_is_taken_up_after_the_list_was_shortened(tmp_path: Path) -> None:
    """Its plan is not made again: whoever runs virsh decides."""
    migration = Migration(vmdk=(Path("/a.raw"),), vm_name="a", libvirt_import=True, libvirt_uri=UNLISTED)
    order = Order(
        job_id="7",
        migration=migration,
        submitter=VICTIM,
        conversion_dir=tmp_path,
        output_dir=tmp_path,
        helper=("none",),
        bounds=Bounds(libvirt_uris=()),
    )
    published = PublishedDisk(path=tmp_path / "a.qcow2", file_bytes=1)
    artifact = Artifact(disks=(published,), format="qcow2", report_json=tmp_path / "r", report_markdown=tmp_path / "r")
    with pytest.raises(Unsafe) as caught, bench_for(order, tmp_path) as bench:
        register(bench, hardware_for("bios"), Guest(), artifact)
    assert caught.value.code == "libvirt-uri-not-allowed"


def test_a_submitter_without_a_list() -> None:
    """An order that lacks the bounds is not one without bounds."""
    migration = Migration(vmdk=(Path("/a.raw"),), vm_name="a", libvirt_uri=UNLISTED)
    place = Path("/var/tmp")
    order = Order(job_id="7", migration=migration, conversion_dir=place, output_dir=place, helper=("none",))
    assert Libvirt.of(order) == Libvirt(UNLISTED)
    with pytest.raises(Unsafe):
        Libvirt.of(order.with_changes(submitter=VICTIM))


# ---------------------------------------------------------------- the way there


def test_a_host_that_only_others_know(daemon: Service, host: Host, trap: Trap, tmp_path: Path) -> None:
    """Neither the service user's own files nor the system's say which hosts are known, or how they are reached."""
    theirs = trap.home / ".ssh/known_hosts"
    theirs.write_text(host.key)
    shutil.chown(theirs, USER, USER)
    with known(tmp_path, SYSTEM_KNOWN_HOSTS, host.key):
        job = asked(daemon, "unknown", host.uri, libvirt_import="true")
    theirs.unlink()
    assert codes(job) == ["libvirt-refused"]
    assert "Host key verification failed" in job.problems[0].message
    assert f"libvirt at {host.uri} refuses the connection" in job.problems[0].message
    assert not trap.sprung()


def test_a_host_with_another_key(daemon: Service, host: Host, trap: Trap, tmp_path: Path) -> None:
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    with known(tmp_path, KNOWN_HOSTS, f"{host.key.split()[0]} {key}\n"):
        job = asked(daemon, "otherkey", host.uri, libvirt_import="true")
    assert "Host key verification failed" in job.problems[0].message
    assert not trap.sprung()


def test_a_host_that_the_administrator_knows(daemon: Service, host: Host, trap: Trap, tmp_path: Path) -> None:
    with known(tmp_path, KNOWN_HOSTS, host.key):
        job = asked(daemon, "known", host.uri, libvirt_import="true")
    assert codes(job) == ["libvirt-refused"]
    assert "Permission denied (publickey" in job.problems[0].message
    assert f"for invalid user {USER}" in host.log.read_text() or f"user {USER} " in host.log.read_text()
    assert not trap.sprung()


def test_a_one_shot_run_has_the_persons_own_configuration(trap: Trap) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir="/var/tmp")))
        shutil.chown(folder, USER, USER)
        source = disk(folder / "a.raw", USER, 0o644)
        (folder / "a.yaml").write_text(f"vmdk: {source}\nlibvirt_import: true\nlibvirt_uri: {UNLISTED}\n")
        words = ("plan", folder / "a.yaml", "--conversion-dir", folder / "work", "--output-dir", folder)
        argv = [*trap.prefix, *as_service(PROGRAMS / "h2kvmctl", *words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/", check=False)
    assert "[libvirt-unreachable]" in done.stderr
    assert trap.sprung()
    trap.mark.unlink()


OVERRIDES: dict[str, tuple[str, ...]] = {
    "configuration": ("-F", "CONFIG"),
    "configuration, joined": ("-FCONFIG",),
    "option": ("-o", "ProxyCommand=touch MARK"),
    "jump": ("-J", "nowhere.invalid"),
    "agent": ("-A",),
    "PKCS #11": ("-I", "CONFIG"),
    "key": ("-i", "CONFIG"),
    "port with an option": ("-p", "22 -A"),
    "user like an option": ("-l", "-A"),
    "unchecked key": ("-o", "StrictHostKeyChecking=no"),
    "grouped": ("-TA",),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_options_that_come_later_are_refused(trap: Trap, name: str) -> None:
    config = trap.home / ".ssh/config"
    words = [word.replace("CONFIG", str(config)).replace("MARK", str(trap.mark)) for word in OVERRIDES[name]]
    argv = [*trap.prefix, *as_service(PROGRAMS / "hyper2kvm-ssh", *words, "--", "127.0.0.1", "true")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (255, "")
    assert "[ssh-option-refused]" in done.stderr
    assert not trap.sprung()


@pytest.mark.parametrize("words", [("--", "-A", "127.0.0.1"), ("--",)], ids=" ".join)
def test_a_host_that_could_be_an_option(trap: Trap, words: tuple[str, ...]) -> None:
    argv = [*trap.prefix, *as_service(PROGRAMS / "hyper2kvm-ssh", *words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 255 and "[ssh-option-refused]" in done.stderr
