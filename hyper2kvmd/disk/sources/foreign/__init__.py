"""Disks of other hypervisors, which QEMU reads for us: QCOW2, VDI and VHDX.

The readers of their headers run before any tool opens the file, and refuse everything that would lead a tool to another
file, or to bytes other than the guest's. Formats that we read ourselves are next to this folder.
"""

from hyper2kvmd.disk.sources.foreign.source import ForeignSource, open_foreign

__all__ = ["ForeignSource", "open_foreign"]
