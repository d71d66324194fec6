"""A reader of VMware virtual disks: hosted sparse and streamOptimized, flat, split, ESX snapshots, and chains of them.

`open_source` gives the bytes, `vet` says whether there are any. All offsets and sizes are bytes unless a name says
otherwise; everything a file says is checked before it is used.
"""

from hyper2kvmd.disk.vmdk.descriptor import Descriptor, parse_descriptor
from hyper2kvmd.disk.vmdk.source import VmdkSource, open_source
from hyper2kvmd.disk.vmdk.vet import VettedVmdk, vet

__all__ = [
    "Descriptor",
    "VettedVmdk",
    "VmdkSource",
    "open_source",
    "parse_descriptor",
    "vet",
]
