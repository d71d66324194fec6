"""Disks: the code that all subfolders share (blocks, ranges, open files).

The contents of a disk belong to volumes/.
"""
