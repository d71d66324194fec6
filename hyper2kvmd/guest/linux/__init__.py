"""Linux guests: finding the root, inspection, the repairs (fixes/, network/), and the boot proof's needs (boot_proof/).

Nothing here runs a program of the guest. Access to its files belongs to mounts/ and files/.
"""
