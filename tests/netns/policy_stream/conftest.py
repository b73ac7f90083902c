"""What is lost here is written down beside the other faults'."""

from tests.netns.faults.conftest import loss

__all__ = ["loss"]
