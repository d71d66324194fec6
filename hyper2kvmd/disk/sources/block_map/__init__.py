"""Disks in one file whose blocks are stored unchanged where a table says: VDI, VHD and VHDX.

The readers of their headers refuse everything that would lead to bytes other than the guest's. The copy engine then
reads the blocks by their offsets, and QEMU gives the second opinion only.
"""

from hyper2kvmd.disk.sources.block_map.source import BlockMapSource, open_block_map

__all__ = ["BlockMapSource", "open_block_map"]
