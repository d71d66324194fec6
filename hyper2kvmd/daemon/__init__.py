"""The service: takes submissions, runs workers, tells how it goes."""
