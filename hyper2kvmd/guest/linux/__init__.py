"""Linux guests: finding the root, inspection, and the repairs (fixes/, network/).

Nothing here runs a program of the guest. How its files are reached belongs to mounts/ and files/.
"""
