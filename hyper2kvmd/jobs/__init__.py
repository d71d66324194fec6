"""The queue: jobs, their finished stages and their history, in one database.

All use of SQLAlchemy is here. When a job runs, and what it does, belongs to daemon/ and worker.py.
"""
