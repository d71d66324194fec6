"""One module for each step, numbered in the order in which they are applied.

What every step needs to run belongs to jobs/migrations/env.py.
"""
