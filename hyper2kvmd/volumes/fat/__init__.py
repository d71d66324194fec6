"""FAT12, FAT16 and FAT32, read and written in place: what an EFI system partition is made of.

No mount, no privilege, no other program. Every number that the disk says is checked before it is used. What is
changed is changed so that a crash at any instant leaves the old file or the new one: data first, then the table,
then the one directory entry that makes them a file.

Which files are edited belongs to guest/. Sources: Microsoft's FAT specification (fatgen103), UEFI specification 2.10,
section 13.3.
"""

from hyper2kvmd.volumes.fat.geometry import Blocks
from hyper2kvmd.volumes.fat.volume import FatVolume

__all__ = ["Blocks", "FatVolume"]
