"""Readers of source disks, one for each format, and the only place that chooses one (`opening.py`).

What is written belongs to images/; how bytes are copied belongs to engine/.
"""
