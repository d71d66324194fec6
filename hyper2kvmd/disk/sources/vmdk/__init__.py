"""A reader of VMware virtual disks: hosted sparse and streamOptimized, flat, split, ESX snapshots, and chains of them.

`open_vmdk` vets the whole disk and reads it; every value in a file is checked before use, and offsets and sizes are
bytes unless a name says otherwise. The .vmx belongs to machines/.
"""

from hyper2kvmd.disk.sources.vmdk.descriptor import Descriptor, parse_descriptor
from hyper2kvmd.disk.sources.vmdk.source import VmdkSource, open_vmdk

__all__ = ["Descriptor", "VmdkSource", "open_vmdk", "parse_descriptor"]
