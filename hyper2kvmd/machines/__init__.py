"""Readers of source machines: one for each kind of description, such as a .vmx file.

Reading the disks belongs to disk/; the new machine belongs to targets/.
"""
