"""NTFS volumes: their state, and their files, which libntfs-3g reads and changes in a confined process.

The process asks for the volume's bytes and never writes any: it returns a journal, which this program checks, makes
durable and applies. Which files are edited belongs to guest/.
"""
