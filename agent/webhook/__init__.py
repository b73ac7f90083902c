"""Mutating admission for init mode: pods are given their init container and sidecar when they are created.

Secret → certificates, rotation → keeper → serving (TLS) → review → agent.inject
"""
