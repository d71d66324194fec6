"""Ask the helper anything, well formed or not: asker.py SPECIFICATION_JSON; what came of it is one JSON line.

Standard library only, so that it starts quickly and can be run with any credentials and limits.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any


def descriptors(wanted: list[list[str]]) -> list[int]:
    """A path follows the kind of those that are files, a length that of keys."""
    found = []
    for kind, path in wanted:
        if kind == "pipe":
            found.append(os.pipe()[0])
        elif kind == "tcp":
            found.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach())
        elif kind == "unconnected":
            found.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach())
        elif kind in ("sealed", "unsealed"):
            found.append(os.memfd_create("key", os.MFD_ALLOW_SEALING))
            os.write(found[-1], bytes(int(path)))
            if kind == "sealed":
                fcntl.fcntl(found[-1], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)
        else:
            flags = {"rw": os.O_RDWR, "r": os.O_RDONLY, "w": os.O_WRONLY, "path": os.O_PATH}[kind]
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


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    ours, theirs = ends(asked.get("channel", "seqpacket"))
    handles = descriptors(asked.get("fds", []))
    data = asked["raw"].encode() if "raw" in asked else json.dumps(asked["request"]).encode()

    def limit() -> None:
        for name, value in asked.get("limits", {}).items():
            resource.setrlimit(getattr(resource, name), (value, value))

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
    reply, received = b"", list[int]()
    if isinstance(asked.get("channel"), list):  # others hold its ends too: its closing will not be seen
        process.wait(60)
    ours.settimeout(60 if process.returncode is None else 0)
    with suppress(OSError):
        if asked.get("channel", "seqpacket") not in ("tcp", "stream"):
            socket.send_fds(ours, [data], handles)
            reply, received, _, _ = socket.recv_fds(ours, 65536, 4)
        else:
            ours.sendall(data)
            reply = ours.recv(65536)
    output = process.communicate(timeout=60)[0].decode(errors="replace")
    answer = json.loads(reply) if reply else None
    print(json.dumps({"reply": answer, "mounts": len(received), "status": process.returncode, "output": output}))


if __name__ == "__main__":
    main()
