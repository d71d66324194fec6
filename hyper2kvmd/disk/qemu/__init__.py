"""QEMU's programs for disks: qemu-img, the NBD exporter, and a client of NBD.

QEMU as a virtual machine belongs to proof/.
"""
