"""The root helper: one program that runs as root, mounts file systems and does nothing else.

It imports nothing of the project and is installed alone. Its callers belong to guest/mounts/.
"""
