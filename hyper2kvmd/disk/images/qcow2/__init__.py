"""QCOW2 images: a writer that places every cluster once, front to back, and a reader that verifies it.

QCOW2 disks as sources belong to disk/sources/foreign/. Source: QEMU's docs/interop/qcow2.txt.
"""

from hyper2kvmd.disk.images.qcow2.tables import CLUSTER, WINDOW
from hyper2kvmd.disk.images.qcow2.writer import COMPRESSION_LEVEL, Qcow2Writer, full_size

__all__ = ["CLUSTER", "COMPRESSION_LEVEL", "WINDOW", "Qcow2Writer", "full_size"]
