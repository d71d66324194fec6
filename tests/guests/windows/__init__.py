"""Disks that hold what an installed Windows leaves on them, made without any Windows."""
