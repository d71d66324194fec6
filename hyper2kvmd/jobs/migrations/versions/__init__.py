"""One module for each step, numbered in the order in which they are applied.

The code that runs the steps belongs to jobs/migrations/env.py.
"""
