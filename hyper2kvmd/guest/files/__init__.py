"""Files of a guest, confined to its root: mounted file systems, FAT, and the tree with staged edits.

Which files matter, and why, belongs to linux/ and windows/.
"""
