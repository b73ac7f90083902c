"""Faults under load, each with its loss counted. What is measured goes to build/reliability.json (record.py)."""
