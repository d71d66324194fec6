"""Access to a guest's file systems: requests to the root helper and the mounts that it returns.

Reading and writing in them belongs to files/.
"""
