"""A reader of VMware virtual disks: hosted sparse and streamOptimized, flat, split, ESX snapshots, and chains of them.

`open_vmdk` vets the whole disk and gives its bytes. All offsets and sizes are bytes unless a name says otherwise, and
everything that a file says is checked before it is used. What a .vmx says belongs to machines/.
"""

from hyper2kvmd.disk.sources.vmdk.descriptor import Descriptor, parse_descriptor
from hyper2kvmd.disk.sources.vmdk.source import VmdkSource, open_vmdk

__all__ = ["Descriptor", "VmdkSource", "open_vmdk", "parse_descriptor"]
