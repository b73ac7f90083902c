"""Which of a pod's two listeners a connection came through."""

from enum import Enum


class Direction(Enum):
    OUTBOUND = "outbound"
    """From the pod's application."""
    INBOUND = "inbound"
    """To the pod's application."""
