"""Guests: the way in (mounts/), their files (files/), the families (linux/, windows/) and their seam (family.py).

The boot proof belongs to proof/.
"""
