"""Copying with all cores, checkpoints, and comparison, for any format.

Sources and images implement the protocols of `disk/blocks.py` and `disk/image_file.py`.
"""
