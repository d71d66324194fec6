"""Reads OVF descriptors of any version: text to the facts about one machine, and the files of its disks.

Opening files belongs to the readers for the keys `ovf` and `ova`, and unpacking to disk/sources/.
"""
