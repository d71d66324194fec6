"""Faults at exact calls and at random instants: whatever dies, fills up or breaks, no job is lost or wrong.

What judges the product imports nothing of it: what it did is judged by other code than its own.
"""
