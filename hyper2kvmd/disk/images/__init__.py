"""The image formats that are written and read back: QCOW2 and raw.

The QCOW2 reader shares no code with the writer, so that it can verify it. Images as sources belong to sources/.
"""
