"""What the boot proof needs of a Linux guest: a serial console, and the traces of a boot in its logs.

The procedure of the boot proof, and the signs on a console, belong to proof/.
"""
