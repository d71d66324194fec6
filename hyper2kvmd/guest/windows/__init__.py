"""Windows guests: their search, inspection, repairs in files and registry, and traces of their boot.

What the volumes of NTFS are made of belongs to volumes/, and code that Linux guests also need to mounts/ and files/.
"""
