"""The typed client of the daemon's control socket: `Client().jobs()`. h2kvmctl uses nothing else."""

from __future__ import annotations

from hyper2kvmd.client.client import Accepted, Client, Listed
from hyper2kvmd.socket_connection import default_socket

__all__ = ["Accepted", "Client", "Listed", "default_socket"]
