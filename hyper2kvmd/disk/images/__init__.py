"""The image formats that are written and read back: QCOW2 and raw.

The reader of QCOW2 shares no code with the writer, so that it can judge it. Images as sources belong to sources/.
"""
