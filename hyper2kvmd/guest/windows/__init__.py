"""Windows guests: how they are found, and their capabilities.

Their inspection, the injection of drivers and what the boot proof needs of them belong here as well. Code that Linux
guests also need belongs to mounts/ and files/.
"""
