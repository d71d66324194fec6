"""The queue: jobs, their finished stages and their history, in one database.

All use of SQLAlchemy is here. Scheduling belongs to daemon/, and the migration itself to worker.py.
"""
