"""Machines of VMware by their own files: the .vmx with the settings, and the .vmsd with the snapshots.

Reading the VMDKs that they name belongs to disk/sources/vmdk/.
"""
