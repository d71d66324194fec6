"""Where a machine goes: one folder for each target.

Images arrive here finished; nothing here reads a guest.
"""
