"""Receivers of notifications: a real HTTP server and a real SMTP server on the loopback, with scripted answers."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Post:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Webhook:
    """`answers` are the statuses of the next requests, 0 for one that never ends; then all are accepted."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    accepted: list[Post] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def webhook(*answers: int, identity: Path | None = None) -> Iterator[Webhook]:
    """`identity`: a file with the key and the certificate of a server with TLS."""
    there = Webhook(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            post = Post(self.path, dict(self.headers), body)
            there.posts.append(post)
            status = there.answers.pop(0) if there.answers else 200
            if status == 0:
                there.closing.wait()
                return
            if status == 200:
                there.accepted.append(post)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{there.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"said " + b"much " * 100_000)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    there.url = f"http{'s' if identity else ''}://127.0.0.1:{server.server_address[1]}"
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield there
        there.closing.set()
        server.shutdown()


@dataclass(frozen=True)
class Letter:
    receivers: tuple[str, ...]
    text: bytes


@contextmanager
def mailbox() -> Iterator[tuple[int, list[Letter]]]:
    """Its port, and what arrives (RFC 5321)."""
    letters: list[Letter] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            receivers: list[str] = []
            self.wfile.write(b"220 ready\r\n")
            for line in self.rfile:
                verb = line[:4].upper().strip()
                if verb == b"RCPT":
                    receivers.append(line.partition(b"<")[2].partition(b">")[0].decode())
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    letters.append(Letter(tuple(receivers), self._text()))
                    receivers = []
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

        def _text(self) -> bytes:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            return b"".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], letters
        server.shutdown()
