"""Disks of other hypervisors, which QEMU reads for us: QCOW2, VDI and VHDX.

Each format has a small reader of its headers here. It runs before any tool opens the file, and refuses whatever would
lead a tool to another file, or to bytes other than the guest's. Formats that we read ourselves have their own places
beside this one.
"""

from hyper2kvmd.disk.sources.foreign.source import ForeignSource, open_foreign

__all__ = ["ForeignSource", "open_foreign"]
