"""Sockets: from a pod's listeners to the connections that leave it.

A connection's way through the modules: `accept` (original destination, self-calls, proofs) → `detect` (which
protocol?) → `forward_http` or `forward_tcp`, which ask `destinations` where to and take a connection from `upstream`.
All of it runs on one thread, driven by `reactor`; events are hints, the truth is what the system call answers.
"""
