"""Guests: the way in (mounts/), their files (files/), and what each family needs (linux/).

The boot proof belongs to proof/.
"""
