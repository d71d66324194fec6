"""A Debian server in a virtual machine: systemd, AppArmor, libvirt, Prometheus, LVM, and an administrator by ssh.

Its disk is built once for each suite (mmdebstrap, kept in .cache/system) and copied for each machine. KVM is used
where it works. The machine reaches nothing but its own disks, and only ssh comes in, on loopback. Building needs root,
and the network once.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hyper2kvmd.host.kvm import OPTIONS, Accelerator, choose_accelerator
from hyper2kvmd.proof.machine import EMULATED_VCPUS
from tests.support.host import REPOSITORY, command
from tests.system.emulator import Emulator, Stopped, emulating

CACHE = REPOSITORY / ".cache" / "system"
SIZE = 16 << 30
UNREACHED = 255
"""ssh's own exit code, not one of what it ran."""
PATIENCE = 1500.0
"""Seconds for a command, and until something is so."""
LOOK = 60.0
"""Seconds after which a wait looks whether the machine still runs."""
PERIOD = 4.0
"""Seconds between two looks: each takes an emulated machine a second of its processor."""
HOSTNAME = "conversions"
PACKAGES = (
    "linux-image-cloud-amd64 systemd-sysv udev dbus kmod openssh-server sudo apparmor lvm2 iproute2 iptables "
    # what our package depends on or recommends: the machine has no archive to get it from
    "python3 procps util-linux qemu-utils qemu-system-common qemu-system-x86 ovmf libnbd-bin fuse3 zstd lz4 "
    "libntfs-3g89 libvirt-daemon-system libvirt-clients dnsmasq-base prometheus curl tzdata"
)
SETUP = f"""
set -eu
cd "$1"
echo {HOSTNAME} > etc/hostname
printf '127.0.0.1 localhost {HOSTNAME}\\n' > etc/hosts
printf '/dev/vda / ext4 defaults 0 1\\nLABEL=exports /exports ext4 ro 0 0\\n' > etc/fstab
printf '[Match]\\nDriver=virtio_net\\n[Network]\\nDHCP=yes\\n' > etc/systemd/network/wired.network
mkdir -p exports root/.ssh
cat > root/.ssh/authorized_keys
chroot . systemctl --quiet enable systemd-networkd
chroot . systemctl --quiet mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
"""


def built(suite: str) -> Path:
    """A folder with the suite's disk.raw, its vmlinuz and initrd.img, and the key that opens it."""
    key = hashlib.sha256("\0".join((suite, PACKAGES, SETUP)).encode()).hexdigest()[:16]
    folder = CACHE / f"{suite}-{key}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{suite}-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        unfinished, root = Path(place) / "built", Path(place) / "root"
        unfinished.mkdir()
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", unfinished / "key")
        bootstrap = ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", f"--include={PACKAGES.replace(' ', ',')}"]
        subprocess.run([*bootstrap, suite, root], check=True, timeout=1800)
        public = (unfinished / "key.pub").read_text()
        subprocess.run(["sh", "-c", SETUP, "sh", root], input=public, text=True, check=True, timeout=120)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(next((root / "boot").glob(f"{name}-*")), unfinished / name)
        disk(unfinished / "disk.raw", SIZE, root)
        unfinished.rename(folder)
    return folder


def disk(path: Path, size: int, files: Path, label: str = "root") -> Path:
    """An ext4 file system on a whole raw disk of `size` bytes, with what lies in `files`."""
    with path.open("wb") as opened:
        opened.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", label, "-d", files, path], check=True, timeout=600)
    return path


class Server:
    """A running machine. What waits for it raises Stopped when QEMU ends or stops it, within LOOK seconds."""

    def __init__(self, emulator: Emulator, key: Path, port: int, control: Path) -> None:
        self._emulator = emulator
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options += ("ConnectTimeout=20", f"ControlPath={control}", "ControlMaster=auto", "ControlPersist=yes")
        words = [word for option in options for word in ("-o", option)]
        self._ssh = ["ssh", *words, "-i", str(key), "-p", str(port), "root@127.0.0.1"]

    def run(self, script: str, *, check: bool = True, seconds: float = PATIENCE) -> str:
        """What a bash script of root says, stderr included. Raises AssertionError when it fails and `check` is set, and
        when it takes longer than `seconds`.
        """
        argv = [*self._ssh, "exec bash -euo pipefail -s 2>&1"]
        with tempfile.TemporaryFile("w+") as file:
            file.write(script)
            file.seek(0)
            with subprocess.Popen(argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ssh:
                try:
                    said, complaint = self._end_of(ssh, script, seconds)
                finally:
                    ssh.kill()
        if check and ssh.returncode == UNREACHED:
            raise AssertionError(f"{script}\nssh: {said}{complaint}\n{self._emulator.last_lines()}")
        assert ssh.returncode == 0 or not check, f"{script}\n{ssh.returncode}: {said}{complaint}"
        return said

    def _end_of(self, ssh: subprocess.Popen[str], script: str, seconds: float) -> tuple[str, str]:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ssh.communicate(timeout=max(0.0, min(LOOK, deadline - time.monotonic())))
            except subprocess.TimeoutExpired as expired:
                self._emulator.has_ended()
                if time.monotonic() >= deadline:
                    said = f"not within {seconds:.0f} s, so far {expired.stdout!r}"
                    raise AssertionError(f"{script}\n{said}\n{self._emulator.last_lines()}") from None

    def until_up(self) -> None:
        until(self._is_up, self._emulator.last_lines)

    def _is_up(self) -> bool:
        self._emulator.require_running()
        argv = [*self._ssh, "systemctl is-system-running --wait | grep -E 'running|degraded'"]
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(argv, capture_output=True, timeout=LOOK, check=False).returncode == 0
        return False

    def reset(self) -> None:
        """As its button does: nothing is shut down, nothing is written."""
        self._hang_up()
        self._emulator.order("system_reset")
        self.until_up()

    def power_off(self) -> None:
        """Shut down, if it still runs."""
        if not self._emulator.has_ended():
            # whether ssh hears of its success before it is gone itself is a race
            self.run("systemctl --no-block poweroff", check=False)
            self._hang_up()
            self._emulator.wait(PATIENCE)

    def _hang_up(self) -> None:
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._ssh[-1]], capture_output=True, check=False)


def until(so: Callable[[], object], otherwise: Callable[[], str] = str) -> None:
    """Wait until it is so. Raises AssertionError, with what `otherwise` says, when it does not become so."""
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s; {otherwise()}"
        time.sleep(PERIOD)


@contextmanager
def running(suite: str, folder: Path, *disks: Path) -> Iterator[Server]:
    """A new machine of that suite, up and reachable; raw `disks` are its /dev/vdb and on. Its console and its own disk
    (root.raw) lie in `folder`; it is shut down at the end of the block. If QEMU stops it under KVM before it is up,
    another one is emulated.
    """
    accelerator = choose_accelerator()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(_started(suite, folder, accelerator, disks))
        except Stopped:
            if accelerator == "tcg":
                raise
            server = stack.enter_context(_started(suite, folder, "tcg", disks))
        yield server
        server.power_off()


@contextmanager
def _started(suite: str, folder: Path, accelerator: Accelerator, disks: Sequence[Path]) -> Iterator[Server]:
    parts = built(suite)
    own = folder / "root.raw"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", parts / "disk.raw", own], check=True)
    processors = 2 if accelerator == "kvm" else EMULATED_VCPUS
    drives = [f"file={path},format=raw,if=virtio,cache=unsafe" for path in (own, *disks)]
    with tempfile.TemporaryDirectory() as short, socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
        chosen.close()
        argv: list[str | Path] = [
            *("qemu-system-x86_64", *OPTIONS[accelerator], "-smp", str(processors), "-m", "3072"),
            *("-kernel", parts / "vmlinuz", "-initrd", parts / "initrd.img"),
            *("-append", "root=/dev/vda rw console=ttyS0 apparmor=1 security=apparmor modprobe.blacklist=kvm_amd"),
            *(word for drive in drives for word in ("-drive", drive)),
            *("-display", "none"),
            *("-nic", f"user,model=virtio,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        ]
        with emulating(argv, Path(short, "monitor"), folder) as emulator:
            server = Server(emulator, parts / "key", port, Path(short, "ssh"))
            server.until_up()
            yield server
