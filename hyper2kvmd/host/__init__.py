"""The host: processes and their confinement, working folders, space, rights, and the output directory.

Nothing here knows disk formats, guests or targets.
"""
