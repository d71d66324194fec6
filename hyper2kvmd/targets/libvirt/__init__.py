"""libvirt: the domain XML, its definition, and the connection to libvirt.

Which URI a job may use is decided in `connection.py`. Files in the output directory belong to targets/directory.py.
"""
