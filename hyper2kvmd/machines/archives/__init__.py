"""Reads the archives in which machines are exported: which files they have, and where their bytes are.

Files that are stored as they are stay in their archive; compressed ones are unpacked into the working folder.
"""
