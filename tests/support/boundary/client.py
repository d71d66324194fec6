"""The service user's side of a test: python -m ... ACTION IMAGE_JSON FOLDER HELPER_JSON [KEY...]. One fact a line.

The helper is a command, or the path of a socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hyper2kvmd.disk.qemu import export
from hyper2kvmd.errors import Failure
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.guest.mounts.access import Access, open_image
from hyper2kvmd.guest.mounts.reach import FILE_SYSTEMS, check_helper
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import Image, Volume


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries)


def edit(access: Access, image: Image) -> None:
    """Append to fstab and make a file, on every file system; all are mounted at once."""
    volumes = tuple(volume for volume in image.layout.volumes if volume.content in FILE_SYSTEMS)
    if not volumes:
        return
    first, rest = volumes[0], tuple(volume for volume in image.layout.volumes if volume != volumes[0])
    with access.mount(first) as root:
        fstab = os.open("etc/fstab", os.O_WRONLY | os.O_APPEND, dir_fd=root)
        os.write(fstab, b"# edited\n")
        os.close(fstab)
        new = os.open("etc/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=root)
        os.write(new, b"n" * 100_000)
        os.close(new)
        facts = os.stat("etc/fstab", dir_fd=root)
        flags = os.fstatvfs(root).f_flag
        program = os.open("etc/program", os.O_RDONLY, dir_fd=root)
        try:
            os.execve(program, ["true"], {})  # noqa: S606 - must fail
        except OSError as error:
            ran = error.strerror
        os.close(program)
        say(volume=first.name, uid=facts.st_uid, me=os.getuid(), flags=flags, ran=ran)
        visible = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/dev/loop" in line]
        say(visible=visible)
        edit(access, image.with_changes(layout=image.layout.with_changes(volumes=rest)))


def hold(access: Access, image: Image) -> None:
    """Keep a mount busy until killed."""
    volume = next(volume for volume in image.layout.volumes if volume.content in FILE_SYSTEMS)
    with access.mount(volume) as root:
        held = os.open("etc/held", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=root)
        os.write(held, b"h" * 100_000)
        say(holding=os.getpid())
        time.sleep(100)


def read_only(access: Access, image: Image) -> None:
    with access.mount(image.layout.volumes[0], read_only=True) as root:
        try:
            os.open("etc/new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=root)
        except OSError as error:
            say(refused=error.strerror, names=names(os.open("etc", os.O_RDONLY, dir_fd=root)))


def inspect(access: Access, image: Image) -> None:
    """Say what `etc` holds, and which volumes were changed to read it."""
    with access.mount(image.layout.volumes[0], read_only=True) as root:
        etc = os.open("etc", os.O_RDONLY, dir_fd=root)
        say(names=names(etc), replayed=[volume.name for volume in access.replayed])
        os.close(etc)


def twice(access: Access, image: Image) -> None:
    with access.mount(image.layout.volumes[0]), access.mount(image.layout.volumes[0], read_only=True):
        say(mounted="twice")


def escape(access: Access, image: Image) -> None:
    """Try to get rid of the mount's flags in a user namespace of our own, to open a device node of the guest."""
    libc = ctypes.CDLL(None, use_errno=True)
    with access.mount(image.layout.volumes[0]) as root:
        isolated = libc.unshare(0x10000000 | 0x20000) == 0  # CLONE_NEWUSER, CLONE_NEWNS
        clear = struct.pack("=QQQQ", 0, 0x2 | 0x4 | 0x8, 0, 0)  # nosuid, nodev, noexec
        failed = libc.syscall(ctypes.c_long(442), root, b"", 0x1000, clear, ctypes.c_size_t(len(clear)))
        cleared = os.strerror(ctypes.get_errno()) if failed else "yes"
        try:
            opened = str(os.open("etc/device", os.O_RDONLY, dir_fd=root))
        except OSError as error:
            opened = str(error.strerror)
        say(isolated=isolated, cleared=cleared, opened=opened)


def child(name: str) -> int:
    """Pid of our child process that runs the program `name`."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(name.encode()):
            return int(pid)
    raise LookupError(name)


def freeze(name: str) -> Callable[[Access, Image], None]:
    """Stop the server `name` while its mount is in use, and go on writing."""

    def action(access: Access, image: Image) -> None:
        with access.mount(image.layout.volumes[0]) as root:
            os.kill(child(name), signal.SIGSTOP)
            say(frozen=name)
            new = os.open("etc/new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=root)
            try:
                os.write(new, b"n" * 100_000)
                os.fsync(new)
            finally:
                os.close(new)

    return action


def freeze_before(access: Access, image: Image) -> None:
    """Stop the server before the helper sets up anything on top of it."""
    os.kill(child("qemu-storage-daemon"), signal.SIGSTOP)
    with access.mount(image.layout.volumes[0]):
        say(mounted="on a frozen server")


def kill_exporter(access: Access, image: Image) -> None:
    with access.mount(image.layout.volumes[0]):
        os.kill(child("qemu-storage-daemon"), signal.SIGKILL)


def panic(access: Access, image: Image) -> None:
    """Say with which options the kernel mounted it: while held, from the file system's own directory in /proc."""
    with access.mount(image.layout.volumes[0]):
        options = {path.parent.name: path.read_text() for path in Path("/proc/fs/ext4").glob("*/options")}
        say(options=options)


ACTIONS: dict[str, Callable[[Access, Image], None]] = {
    "edit": edit,
    "hold": hold,
    "read-only": read_only,
    "inspect": inspect,
    "twice": twice,
    "panic": panic,
    "escape": escape,
    "kill-exporter": kill_exporter,
    "freeze-exporter": freeze("qemu-storage-daemon"),
    "freeze-fuse": freeze("nbdfuse"),
    "freeze-before": freeze_before,
}


def main() -> int:
    action, text, folder, helper, *keys = sys.argv[1:]
    export.PERIOD, export.PATIENCE = 0.3, 2.0
    asked = json.loads(helper)
    call = Path(asked) if isinstance(asked, str) else tuple(asked)
    try:
        if action == "check-silent":
            rootside.DEADLINE = 1.0
        if action.startswith("check"):
            reach = check_helper(Helper(call), tuple(Volume.model_validate(volume) for volume in json.loads(text)))
            say(transport=reach.transport, unmountable=[(volume.name, why) for volume, why in reach.unmountable])
            return 0
        image = Image.model_validate_json(text)
        with open_image(image, Helper(call), Path(folder), [key.encode() for key in keys]) as access:
            ACTIONS[action](access, image)
        say(done=True)
        return 0
    except Failure as failure:
        say(code=failure.code, kind=failure.kind, message=failure.message, hint=failure.hint)
        return failure.exit_code
    except OSError as error:
        say(code="os-error", message=str(error))
        return 9


if __name__ == "__main__":
    sys.exit(main())
