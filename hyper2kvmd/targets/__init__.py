"""The targets of migrations: one folder each.

Images are finished when they arrive here; nothing here reads a guest.
"""
