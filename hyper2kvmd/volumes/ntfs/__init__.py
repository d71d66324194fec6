"""NTFS volumes: their state, and their files, which libntfs-3g reads and changes in a confined process.

The process asks for the volume's bytes and never writes any: it returns the changed blocks, which this program checks
and writes. Which files are edited belongs to guest/.
"""
