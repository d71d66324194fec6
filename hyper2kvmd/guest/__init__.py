"""Guests: access to volumes (mounts/), files (files/), families (linux/, windows/) and their interface (family.py).

The boot proof belongs to proof/.
"""
