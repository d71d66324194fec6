"""What the boot proof needs of a Windows guest: settings of the throwaway overlay, and the event log before and after.

The procedure of the boot proof belongs to proof/.
"""
