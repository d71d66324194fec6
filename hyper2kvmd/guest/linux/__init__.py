"""Linux guests: what is installed, and the repairs (fixes/, network/).

Nothing here runs a program of the guest.
"""
