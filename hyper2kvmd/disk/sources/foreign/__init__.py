"""QCOW2, a format that QEMU reads for us.

The reader of its header runs before any tool opens the file, and refuses everything that would lead a tool to another
file, or to bytes other than the guest's. Formats that we read ourselves are next to this folder.
"""

from hyper2kvmd.disk.sources.foreign.source import ForeignSource, open_foreign

__all__ = ["ForeignSource", "open_foreign"]
