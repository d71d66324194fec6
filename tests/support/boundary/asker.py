"""Ask the helper anything, well formed or not: asker.py SPECIFICATION_JSON; what came of it is one JSON line.

Standard library only, so that it starts quickly and can be run with any credentials and limits. Besides the request
(`request`, or `raw` text) and its `fds`, it may have these fields:

- `helper`: its argv, or a socket's path (for these two fields alone);
- `channel`: the type of the socket, or two descriptors;
- `environment`, `limits`, and `cwd` (`deleted`) of the helper;
- `closed`: standard streams that the helper starts without;
- `stopped`: we stop ourselves `before` or `after` the request;
- `again`: the request is sent twice;
- `kill`: signals for the `helper` before the request, for its `sudo` after it;
- `handed`: what is tried with the mount that came;
- `held`: a file; another beside it shows that the answer came, and the mount is kept until this one exists.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)


def descriptors(wanted: list[list[str]]) -> list[int]:
    """A path follows the kind of those that are files, a length that of keys."""
    found = []
    for kind, path in wanted:
        if kind == "pipe":
            found.append(os.pipe()[0])
        elif kind == "folder":
            found.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        elif kind == "memory":
            found.append(os.memfd_create("disk"))
            os.truncate(found[-1], int(path))
        elif kind == "tcp":
            found.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach())
        elif kind == "silent":  # its other end stays open, and nobody is there
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            found.append(pair[0].detach())
            pair[1].detach()
        elif kind == "unconnected":
            found.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach())
        elif kind in ("sealed", "unsealed"):
            found.append(os.memfd_create("key", os.MFD_ALLOW_SEALING))
            os.write(found[-1], bytes(int(path)))
            if kind == "sealed":
                fcntl.fcntl(found[-1], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
        else:
            flags = {
                "rw": os.O_RDWR,
                "r": os.O_RDONLY,
                "w": os.O_WRONLY,
                "append": os.O_RDWR | os.O_APPEND,
                "path": os.O_PATH,
            }[kind]
            found.append(os.open(path, flags))
    return found


def ends(kind: str | list[int]) -> tuple[socket.socket, socket.socket]:
    if isinstance(kind, list):  # made by whoever started us
        return socket.socket(fileno=kind[0]), socket.socket(fileno=kind[1])
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            return ours, server.accept()[0]
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_SEQPACKET)


def facts(pid: int | str) -> dict[str, list[str]]:
    """What the kernel tells of a process; nothing when it has ended."""
    try:
        with open(f"/proc/{pid}/status") as status, open(f"/proc/{pid}/task/{pid}/children") as children:  # noqa: PTH123
            found = {name: words.split() for name, _, words in (line.partition(":") for line in status)}
            return {} if found["State"][0] == "Z" else {**found, "children": children.read().split()}
    except OSError:
        return {}


def the_helper(sudo: int) -> int:
    """The process that sudo runs, once it is there.

    By its name, which comes with exec: until then it is sudo, which is now its caller to the kernel and now root.
    """
    while found := facts(sudo):
        for pid in [*found["children"], str(sudo)]:
            if facts(pid).get("Name") == ["helper"]:
                return int(pid)
        time.sleep(0.001)
    raise RuntimeError("sudo ended, and had run no helper")


def kill(pid: int, number: int) -> str:
    """What the kernel says of the signal."""
    try:
        os.kill(pid, number)
    except OSError as error:
        return str(error.strerror)
    return "done"


def in_own_namespaces() -> None:
    if libc.unshare(0x10000000 | 0x20000):  # CLONE_NEWUSER, CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")


def attempt(work: Callable[[], object]) -> str:
    """What came of it, in a child of our own."""
    source, sink = os.pipe()
    if os.fork() == 0:
        try:
            said = f"done {work()}"
        except OSError as error:
            said = str(error.strerror)
        os.write(sink, said.encode())
        os._exit(0)
    os.close(sink)
    with open(source) as pipe:  # noqa: PTH123
        said = pipe.read()
    os.wait()
    return said


def cleared(mounted: int, flags: int) -> str:
    """The mount's `flags` cleared in a user namespace of our own."""

    def work() -> None:
        in_own_namespaces()
        setting = struct.pack("=QQQQ", 0, flags, 0, 0)
        if libc.syscall(ctypes.c_long(442), mounted, b"", 0x1000, setting, ctypes.c_size_t(len(setting))):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return attempt(work)


def written(mounted: int) -> str:
    return attempt(lambda: os.open("etc/new", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=mounted))


def ran(mounted: int) -> str:
    program = os.open("etc/program", os.O_RDONLY, dir_fd=mounted)
    return attempt(lambda: os.execve(program, ["true"], {}))  # noqa: S606


def left(mounted: int) -> str:
    """Whether `..` of the mount leads to a folder of the host."""
    root = os.stat(".", dir_fd=mounted)
    above = os.stat("..", dir_fd=mounted)
    return "no" if (root.st_dev, root.st_ino) == (above.st_dev, above.st_ino) else "yes"


def ask_service(path: str, data: bytes, handles: list[int]) -> dict[str, Any]:
    """The request to a helper that runs behind a socket; what it prints is in another's hands."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.settimeout(60)
        try:
            ours.connect(path)
            socket.send_fds(ours, [data], handles)
            reply, received, _, _ = socket.recv_fds(ours, 65536, 4)
        except OSError as error:
            return {"reply": None, "mounts": 0, "output": str(error.strerror)}
        return {"reply": json.loads(reply) if reply else None, "mounts": len(received), "status": 0, "output": ""}


TRICKS: dict[str, Callable[[int], str]] = {
    "clear read-only": lambda mounted: cleared(mounted, 1),
    "clear nosuid": lambda mounted: cleared(mounted, 2),
    "clear nodev": lambda mounted: cleared(mounted, 4),
    "clear noexec": lambda mounted: cleared(mounted, 8),
    "write": written,
    "run": ran,
    "open a device": lambda mounted: attempt(lambda: os.open("etc/device", os.O_RDONLY, dir_fd=mounted)),
    "leave": left,
}
"""What the holder of a mount may try with it."""


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    handles = descriptors(asked.get("fds", []))
    data = asked["raw"].encode() if "raw" in asked else json.dumps(asked["request"]).encode()
    if isinstance(asked["helper"], str):
        print(json.dumps(ask_service(asked["helper"], data, handles)))
        return
    ours, theirs = ends(asked.get("channel", "seqpacket"))

    def limit() -> None:
        for name, value in asked.get("limits", {}).items():
            resource.setrlimit(getattr(resource, name), (value, value))
        for stream in asked.get("closed", []):
            os.close(stream)
        if asked.get("cwd") == "deleted":
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)  # noqa: PTH106

    environment = {"PATH": "/usr/bin:/bin", **asked.get("environment", {})}
    process = subprocess.Popen(
        asked["helper"],
        stdin=theirs.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=limit,
    )
    theirs.close()
    reply, received, kills = b"", list[int](), asked.get("kill", [])
    helper = the_helper(process.pid) if kills else 0  # there until it has the request
    killed = [kill(helper, number) for who, number in kills if who == "helper"]
    if isinstance(asked.get("channel"), list):  # others hold its ends too: its closing will not be seen
        process.wait(60)
    ours.settimeout(60 if process.returncode is None else 0)
    with suppress(OSError):
        if asked.get("channel", "seqpacket") not in ("tcp", "stream"):
            if asked.get("stopped") == "before":
                os.kill(os.getpid(), signal.SIGSTOP)
            for _ in range(1 + asked.get("again", 0)):
                socket.send_fds(ours, [data], handles)
            if asked.get("stopped") == "after":
                os.kill(os.getpid(), signal.SIGSTOP)
            killed += [kill(process.pid, number) for who, number in kills if who == "sudo"]
            reply, received, _, _ = socket.recv_fds(ours, 65536, 4)
        else:
            ours.sendall(data)
            reply = ours.recv(65536)
    with suppress(OSError):
        os.kill(process.pid, signal.SIGCONT)
    output = process.communicate(timeout=60)[0].decode(errors="replace")
    if "held" in asked:
        os.close(os.open(f"{asked['held']}.{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600))
        while not os.path.exists(asked["held"]):  # noqa: PTH110
            time.sleep(0.01)
    more = []
    with suppress(OSError):
        more.append(ours.recv(65536).decode())
    print(
        json.dumps(
            {
                "reply": json.loads(reply) if reply else None,
                "more": [text for text in more if text],
                "mounts": len(received),
                "status": process.returncode,
                "output": output,
                "killed": killed,
                "handed": {name: TRICKS[name](received[0]) for name in asked.get("handed", []) if received},
            }
        )
    )


if __name__ == "__main__":
    main()
