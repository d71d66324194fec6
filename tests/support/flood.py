"""Keeps many connections open that say nothing, or one thing: flood.py ADDRESS COUNT [TEXT].

ADDRESS is a port of this host or the path of a socket. What the other side closes is opened again. `full` is printed
once COUNT connections were made.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

Address = int | Path


def connect(address: Address) -> socket.socket:
    """A connection whose operations end with an error after a minute."""
    if isinstance(address, Path):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(address))
        connection.settimeout(60)
        return connection
    return socket.create_connection(("127.0.0.1", address), timeout=60)


@contextlib.contextmanager
def flooding(address: Address, count: int, text: str = "") -> Iterator[None]:
    """A process of its own floods `address` within; it begins once it has made `count` connections."""
    argv = [sys.executable, __file__, str(address), str(count), text]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 90)[0], "the connections are never all made"
            assert process.stdout.readline() == b"full\n"
            yield
        finally:
            process.kill()


def main() -> None:
    address: Address = int(sys.argv[1]) if sys.argv[1].isdecimal() else Path(sys.argv[1])
    count, text = int(sys.argv[2]), sys.argv[3].encode()
    held: dict[int, socket.socket] = {}
    poller = select.poll()
    made = 0
    while True:
        while len(held) < count:
            try:
                connection = connect(address)
                connection.sendall(text)
            except OSError:
                time.sleep(0.01)
                continue
            held[connection.fileno()] = connection
            poller.register(connection, select.POLLIN)
            made += 1
            if made == count:
                print("full", flush=True)
        for number, _ in poller.poll(100):
            with contextlib.suppress(OSError):
                if held[number].recv(1 << 20):
                    held[number].sendall(text)
                    continue
            poller.unregister(number)
            held.pop(number).close()


if __name__ == "__main__":
    main()
