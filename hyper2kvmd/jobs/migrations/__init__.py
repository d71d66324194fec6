"""Steps of the database's schema; a released one is never edited, only followed by another.

The tables as they are now belong to jobs/tables.py.
"""
