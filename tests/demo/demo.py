"""`make demo`: a broken VMware guest goes in as YAML, a guest that boots on KVM comes out.

The daemon runs as the service user `hyper2kvm` and reaches the helper through sudo by the packaged sudoers file, as
on an installed host. User, helper and sudoers file exist only in a mount namespace of the demo's own: the host
stays as it was, even when the demo is killed. What remains is `.demo/`.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.benches import hardware_for

REPOSITORY = Path(__file__).resolve().parents[2]
PLACE = REPOSITORY / ".demo"
TOOLS = REPOSITORY / ".venv" / "bin"
SERVICE_USER = "hyper2kvm"
SPARE_ID = 64998
"""Uid and gid of the service user when root runs the demo; else it borrows those of whoever does."""
LAYERS = Path("/mnt")
"""Covered by a tmpfs inside the namespace."""
VM = "web01"


def main() -> None:
    match sys.argv[1:]:
        case []:
            began = time.monotonic()
            vmdk = build_guest()
            lay_out(vmdk)
            inside = ["unshare", "--mount", "--propagation", "private", "--", sys.executable, "-B", "-m", __spec__.name]
            sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
            command = [*sudo, *inside, "--install", str(os.getuid() or SPARE_ID), str(os.getgid() or SPARE_ID)]
            code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
            if code == 0:
                say(f"Done in {time.monotonic() - began:.0f} s.")
            raise SystemExit(code)
        case ["--install", uid, gid]:
            install(int(uid), int(gid))
            drop(PLACE / "source" / f"{VM}.vmdk", int(uid), int(gid))
            ids = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
            os.execvp("setpriv", ["setpriv", *ids, "--", sys.executable, "-B", "-m", __spec__.name, "--show"])  # noqa: S606
        case ["--show"]:
            show()


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


# ---------------------------------------------------------------- as whoever runs the demo


def build_guest() -> Path:
    from tests.guests.debian12 import vmdk

    say("A Debian 12 guest as it leaves VMware: fstab and GRUB on /dev/sda1, no virtio in its initramfs")
    return vmdk()


def lay_out(vmdk: Path) -> None:
    if PLACE.exists():
        shutil.rmtree(PLACE)
    for name in ("source", "spool", "state", "conversions", "images"):
        (PLACE / name).mkdir(parents=True)
    shutil.copyfile(vmdk, PLACE / "source" / f"{VM}.vmdk")
    if os.geteuid() == 0:
        for path in (PLACE, *PLACE.iterdir()):
            os.chown(path, SPARE_ID, SPARE_ID)


# ---------------------------------------------------------------- as root, in the namespace


def install(uid: int, gid: int) -> None:
    """Lay the service user, its sudoers file and the helper over /etc and /usr/libexec, for this namespace alone."""
    reach(REPOSITORY, uid)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", LAYERS)
    sudoers = LAYERS / "etc" / "sudoers.d" / "hyper2kvm"
    helper = LAYERS / "libexec" / "hyper2kvm" / "helper"
    for path in (sudoers, helper):
        path.parent.mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "sudoers.d" / "hyper2kvm", sudoers)
    sudoers.chmod(0o440)
    shutil.copyfile(REPOSITORY / "hyper2kvmd" / "helper" / "helper.py", helper)
    helper.chmod(0o755)
    etc = LAYERS / "etc"
    entries = {
        "passwd": f"{SERVICE_USER}:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin",
        "group": f"{SERVICE_USER}:x:{gid}:",
        "shadow": f"{SERVICE_USER}:*:19000:0:99999:7:::",
    }
    for name, entry in entries.items():
        kept = [line for line in Path("/etc", name).read_text().splitlines() if not line.startswith(f"{SERVICE_USER}:")]
        (etc / name).touch(mode=0o600 if name == "shadow" else 0o644)
        (etc / name).write_text("\n".join([entry, *kept, ""]))
    mount("-t", "overlay", "-o", f"lowerdir={etc}:/etc", "overlay", "/etc")
    mount("-t", "overlay", "-o", f"lowerdir={LAYERS / 'libexec'}:/usr/libexec", "overlay", "/usr/libexec")


def reach(target: Path, uid: int) -> None:
    """Let the service user walk to a checkout that lies in somebody's private home, /root for one."""
    for folder in reversed(target.parents):
        status = folder.stat()
        if status.st_uid != uid and not status.st_mode & stat.S_IXOTH:
            mount("--bind", target, LAYERS)
            mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
            target.mkdir(parents=True)
            mount("--move", LAYERS, target)
            os.chdir(target)
            return


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *(str(word) for word in words)], check=True)


# ---------------------------------------------------------------- as the service user


def show() -> None:
    source = PLACE / "source" / f"{VM}.vmdk"
    before = digest(source)
    print(f"running as {pwd.getpwuid(os.getuid()).pw_name}, group {grp.getgrgid(os.getgid()).gr_name}")
    with tempfile.TemporaryDirectory(prefix="h2k-demo-") as runtime:  # a socket's path must be short
        control, metrics = Path(runtime) / "control.sock", f"127.0.0.1:{free_port()}"
        with daemon(control, metrics) as log:
            job = first_job(control, log)
            if (
                subprocess.run([TOOLS / "h2kvmctl", "watch", str(job), "--socket", control], check=False).returncode
                != 0
            ):
                subprocess.run([TOOLS / "h2kvmctl", "show", str(job), "--socket", control], check=False)
                raise SystemExit(f"the migration failed; the daemon's log is {log}")
            (PLACE / "metrics.txt").write_bytes(fetch(metrics))
    if digest(source) != before:
        raise SystemExit("the source disk was changed")
    print(f"the source is as it was: sha256 {before[:16]}...")
    boot_result()
    say("What there is now")
    for title, pattern in (("image", "images/*.qcow2"), ("report", "images/*.md"), ("domain", "images/*.xml")):
        for path in sorted(PLACE.glob(pattern)):
            print(f"{title:8} {path}")
    print(f"metrics  {PLACE / 'metrics.txt'} (from http://{metrics}/metrics)\nlog      {PLACE / 'daemon.log'}")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def daemon(control: Path, metrics: str) -> Iterator[Path]:
    say("The daemon starts")
    settings = {
        "spool_dir": str(PLACE / "spool"),
        "state_dir": str(PLACE / "state"),
        "conversion_dir": str(PLACE / "conversions"),
        "output_dir": str(PLACE / "images"),
        "control_socket": str(control),
        "metrics_listen": metrics,
        "space_reserve": "1%",
    }
    configuration, log = PLACE / "hyper2kvmd.yaml", PLACE / "daemon.log"
    configuration.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
    print(configuration.read_text(), end="")
    (PLACE / "conversions").chmod(0o700)
    with log.open("wb") as output:
        argv = [str(TOOLS / "hyper2kvmd"), "--config", str(configuration)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while ask(control, "status") is None:
            if process.poll() is not None:
                raise SystemExit(f"the daemon ended:\n{log.read_text()}")
            time.sleep(0.2)
        yield log
    finally:
        process.terminate()
        process.wait()
    if process.returncode != 0:
        raise SystemExit(f"the daemon did not stop cleanly ({process.returncode}); its log is {log}")


def drop(source: Path, uid: int, gid: int) -> None:
    """As root, a submitter like any other: the service takes no file of its own user."""
    text = f"vmdk: {source}\nvm_name: {VM}\nverify: content\nmemory: 2048\nvcpus: 2\n"
    say(f"A YAML is dropped into {PLACE / 'spool' / 'incoming'}")
    print(text, end="")
    incoming = PLACE / "spool" / "incoming"
    incoming.mkdir(mode=0o770)
    os.chown(incoming, uid, gid)
    (incoming / f"{VM}.yaml").write_text(text)


def first_job(control: Path, log: Path) -> int:
    say("It becomes a job")
    while not (jobs := ask(control, "list")):
        if list((PLACE / "spool" / "rejected").glob("*.reason.json")):
            raise SystemExit(f"the YAML was rejected; see {PLACE / 'spool' / 'rejected'} and {log}")
        time.sleep(0.2)
    return int(jobs[0]["id"])


def ask(control: Path, command: str) -> Any:
    """What the daemon answers, or None while it does not."""
    argv = [str(TOOLS / "h2kvmctl"), command, "--socket", str(control), "--json"]
    completed = subprocess.run(argv, capture_output=True, check=False)
    return json.loads(completed.stdout) if completed.returncode == 0 else None


def fetch(metrics: str) -> bytes:
    host, _, port = metrics.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET /metrics HTTP/1.0\r\nHost: {metrics}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.splitlines()[0]:
        raise SystemExit(f"/metrics answered {head.splitlines()[0].decode()}")
    return body


def boot_result() -> None:
    from hyper2kvmd.errors import Failure
    from hyper2kvmd.guest.mounts.access import default_helper
    from hyper2kvmd.guest.mounts.rootside import Helper
    from hyper2kvmd.model.disks import Image
    from hyper2kvmd.model.guest import Guest
    from hyper2kvmd.progress import Context
    from hyper2kvmd.proof.boot import boot

    say("The result boots on a virtio disk")
    report = json.loads((PLACE / "images" / f"{VM}.report.json").read_text())
    image, guest = Image.model_validate(report["image"]), Guest.model_validate(report["guest"])
    published = image.disks[0].with_changes(path=PLACE / "images" / f"{VM}.qcow2")
    image = image.with_changes(disks=(published,))
    context = Context(emit=lambda _: None, admit=lambda _: None)
    try:
        booted = boot(image, guest, hardware_for("bios"), Helper(default_helper()), PLACE / "conversions", context)
    except Failure as failure:
        raise SystemExit(f"{failure}") from failure
    print("\n".join(f"    {line}" for line in booted.console_tail))
    print("\n".join(f"- {line}" for line in booted.evidence))


if __name__ == "__main__":
    main()
