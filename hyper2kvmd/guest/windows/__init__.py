"""Windows guests: how they are found, and what hardware they can drive. Their inspection and the injection of drivers
belong here as well.

What both families need (mounts, files) belongs in the rooms beside this one.
"""
