"""The service: takes submissions, runs workers, and shows what they do.

How a migration is carried out belongs to worker.py and stages/; what is stored, and how, belongs to jobs/.
"""
