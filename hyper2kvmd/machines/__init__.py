"""Readers of what a virtual machine was: one for each kind of description, such as a .vmx file.

How its disks are read belongs to disk/; what the new machine becomes belongs to targets/.
"""
