"""The boot proof: a throwaway overlay boots in a confined QEMU until userspace shows itself.

The comparison of contents belongs to disk/engine/.
"""
