"""The commands hyper2kvmd, h2kvmctl and hyper2kvm-ssh.

What they do belongs to the rooms below; they only ask and show.
"""
