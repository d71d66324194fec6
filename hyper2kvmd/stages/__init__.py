"""The line: one function for each stage, each with one frozen type as its product.

A stage calls rooms below it and no other stage.
"""
