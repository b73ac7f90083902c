"""A transport address as the socket API wants it."""

from typing import NamedTuple


class SocketAddress(NamedTuple):
    """Host (canonical text as `inet_ntop` prints it, never a name) and port.

    A tuple rather than a dataclass: `connect` takes it as it is, and look-ups by what `getsockname` returned match.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
