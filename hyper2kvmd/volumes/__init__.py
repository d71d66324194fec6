"""The contents of a disk: partition tables, LVM, md, LUKS, superblocks, and the FAT file system.

Everything here reads through a `superblock.BlockReader` and knows neither disk formats nor mounts.
"""
