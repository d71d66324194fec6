"""The queue: jobs, their finished stages and their history, in one database."""
