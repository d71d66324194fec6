"""Copying with all cores, checkpoints, and comparison; it knows no format.

Sources and targets reach it as the protocols of `disk/blocks.py` and `disk/image_file.py`.
"""
