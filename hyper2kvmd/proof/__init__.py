"""The boot proof: a throwaway overlay boots in a confined QEMU until its userspace is up.

The comparison of contents belongs to disk/engine/.
"""
