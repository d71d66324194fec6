"""The way to a guest's file systems: requests to the root helper and the mounts that it returns.

What is read and written there belongs to files/.
"""
