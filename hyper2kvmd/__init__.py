"""A migration service: VMware disks in, guests that boot on KVM out."""

__version__ = "0.1.0"
