"""What a command that takes longer than a second is about."""

import sys
import time


class Progress:
    """One line on a terminal, rewritten as the work goes on; nothing in a pipe."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._since = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._since

    def say(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self.elapsed_s():5.1f} s  {text}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
