"""Bundles on their way to devices: copied, built, verified and measured there, over ssh.

Everything runs over one connection of the system's own OpenSSH to each device. The shell there is
given one constant line, which starts Python; what is to be done goes to it as data
(:mod:`.agent`), so that no name ever passes through a shell.
"""
