"""The frozen types from the YAML to the new machine, one file for each subject; no I/O.

Each stage takes the types before it and returns the next one.
"""
