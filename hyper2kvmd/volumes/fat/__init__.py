"""FAT12, FAT16 and FAT32 (EFI system partitions), read and written without a mount, privilege or other program.

Every number on the disk is checked before use, and a crash leaves the old file or the new one: data is written first,
then the table, then the directory entry.

Which files are edited belongs to guest/. Sources: Microsoft's FAT specification (fatgen103), UEFI specification 2.10,
section 13.3.
"""

from hyper2kvmd.volumes.fat.geometry import Blocks
from hyper2kvmd.volumes.fat.volume import FatVolume

__all__ = ["Blocks", "FatVolume"]
