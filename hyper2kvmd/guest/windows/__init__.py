"""Windows guests: how they are found, and the hardware that they can drive.

Their inspection and the injection of drivers belong here as well. What Linux guests need too (mounts, files) belongs to
the rooms beside this one.
"""
