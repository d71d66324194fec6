"""QCOW2 images written once, front to back; needs nothing of the rest of this program.

Source: QEMU's docs/interop/qcow2.txt.
"""

from hyper2kvmd.disk.images.qcow2.tables import CLUSTER, WINDOW
from hyper2kvmd.disk.images.qcow2.writer import Qcow2Writer, full_size

__all__ = ["CLUSTER", "WINDOW", "Qcow2Writer", "full_size"]
