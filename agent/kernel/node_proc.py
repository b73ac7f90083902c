"""Where the node's processes are seen, for the verbs that are run in the agent's container."""

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "HEADGATE_PROC"
"""The agent's --proc reads it too: a shell in its container has what the container was given."""


def node_proc() -> Path:
    return Path(os.environ.get(VARIABLE) or "/proc")
