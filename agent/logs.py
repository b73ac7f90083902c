"""How the agent logs: one line a record on standard error, safe to show on a terminal."""

import json
import logging
import sys
import time
from typing import Final

from agent.printable import printable

_LINE_LIMIT: Final = 4000
"""Characters of one message; a container runtime splits lines at 16 KiB (CRI log format)."""
_FIELDS: Final = ("pod", "uid", "state")


def configure(log_format: str, *, verbose: bool = False) -> None:
    """`console`, `json`, or `auto`: console on a terminal, JSON lines in a pipe."""
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else ConsoleLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in ("asyncio", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class ConsoleLines(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO headgate.pods: text`; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {printable(record.getMessage(), _LINE_LIMIT)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {printable(part, _LINE_LIMIT)}" for part in trace.splitlines())
        return line


class JsonLines(logging.Formatter):
    """One JSON object a line; JSON itself escapes what a terminal must not see."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LINE_LIMIT],
        }
        fields |= {name: str(getattr(record, name)) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _timestamp(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
