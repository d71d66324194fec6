"""Readers of source disks, one for each format, and the only place that chooses one (`opening.py`).

Images that are written belong to images/; copying belongs to engine/.
"""
