"""The commands hyper2kvmd, h2kvmctl and hyper2kvm-ssh.

They only ask and show; the work belongs to the folders below.
"""
