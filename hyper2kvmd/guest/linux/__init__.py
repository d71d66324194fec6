"""Linux guests: finding the root, inspection, and the repairs (fixes/, network/).

Nothing here runs a program of the guest. Access to its files belongs to mounts/ and files/.
"""
