"""Disks: what all of its rooms share (blocks, ranges, open files) lies here, the rest in the rooms below.

What lies inside a disk belongs to volumes/.
"""
