"""The boot proof: a throwaway overlay boots in a confined QEMU until its userspace is up.

It knows no family of guests: what it changes and reads in one belongs to guest/. The comparison of contents belongs to
disk/engine/.
"""
