"""A service that migrates VMware disks to guests that boot on KVM.

Modules here are used by all folders: failures, strict YAML, the two configurations, progress and reports. Code with a
subject of its own belongs to the folder of that subject (docs/explanation/architecture.md).
"""

__version__ = "0.1.0"
