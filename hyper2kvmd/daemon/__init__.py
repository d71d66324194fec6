"""The service: takes submissions, runs workers, and shows their progress.

The steps of a migration belong to worker.py and stages/; storage belongs to jobs/.
"""
