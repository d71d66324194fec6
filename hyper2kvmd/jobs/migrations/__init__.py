"""Steps of the database's schema; a released one is never edited, only followed by another.

The current tables belong to jobs/tables.py.
"""
