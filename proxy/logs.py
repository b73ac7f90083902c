"""How the proxy's processes log: one line a record on standard error, safe to show on a terminal."""

import json
import logging
import os
import sys
import time
from typing import Final

from proxy.errors import printable

FORMAT_VARIABLE: Final = "HEADGATE_LOG_FORMAT"
"""Environment variable that carries the format from the supervisor to its workers."""

_LINE_LIMIT: Final = 4000
"""Characters of one message; a container runtime splits lines at 16 KiB (CRI log format)."""


def configure(log_format: str) -> None:
    """`console` or `json`, for this process and the workers that it starts."""
    os.environ[FORMAT_VARIABLE] = log_format
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else ConsoleLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class ConsoleLines(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO proxy.supervisor.pods: text`; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {printable(record.getMessage(), _LINE_LIMIT)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {printable(part, _LINE_LIMIT)}" for part in trace.splitlines())
        return line


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LINE_LIMIT],
            "pid": record.process,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _timestamp(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
