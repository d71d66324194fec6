"""Guests: access to volumes (mounts/), files (files/), families (linux/, windows/) and their interface (family.py).

A family also does what the boot proof needs of its guests. The procedure of the boot proof belongs to proof/.
"""
