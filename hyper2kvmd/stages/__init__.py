"""The stages of a migration: one function each, which returns one frozen type.

A stage calls rooms below it and no other stage.
"""
