"""The way out of sandboxes: a program of its own, without privileges, that every connection and look-up passes.

A sandbox has a network namespace with nothing in it but loopback. What its programs send elsewhere is redirected,
inside that namespace, to listening sockets that this program holds; it decides, connects, and carries the bytes.
"""
