"""Frozen values that policy is made of; pure."""
