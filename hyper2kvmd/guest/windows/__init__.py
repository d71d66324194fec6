"""Windows guests: how they are found, and their capabilities.

Their inspection and the injection of drivers belong here as well. Code that Linux guests also need belongs to mounts/
and files/.
"""
