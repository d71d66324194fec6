"""The checks of `h2kvmctl doctor`, one file for each subject.

A check reports what is and what to do about it, and changes nothing. The rules belong to the stages and the daemon.
"""
