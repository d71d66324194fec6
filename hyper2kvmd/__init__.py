"""A migration service: VMware disks in, guests that boot on KVM out.

Modules here are what all rooms use: failures, strict YAML, the two configurations, progress and reports. What has a
subject of its own belongs to the room of that subject (docs/architecture.md).
"""

__version__ = "0.1.0"
