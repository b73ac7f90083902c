"""Agent and proxy, asked over their admin sockets: what they say, or how they are silent. Blocking."""

import json
import socket
import struct
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from agent.why.facts import NoAnswer, Silence

ANSWER_S: Final = 3.0
"""A question is answered within milliseconds; with 250 pods being enrolled within a second (two busy cores)."""
PROOF_S: Final = 20.0
"""Above what the agent allows a verification (agent.supervisor.admin: 15 s)."""

_UCRED: Final = struct.Struct("iII")  # struct ucred, unix(7): pid, uid, gid


@dataclass(frozen=True, slots=True)
class Answer:
    """`body`: as JSON has it; whoever takes it apart checks it."""

    status: int
    body: Any


def ask(path: Path, question: str, *, method: str = "GET", timeout_s: float = ANSWER_S) -> Answer | NoAnswer:
    """`question`: what follows the host in a URL. Never raises for what the other side does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
        except FileNotFoundError:
            return NoAnswer(Silence.ABSENT, str(path))
        except ConnectionRefusedError:
            return NoAnswer(Silence.ABSENT, str(path), "the file is there, and who made it has ended")
        except PermissionError as error:
            return NoAnswer(Silence.FORBIDDEN, str(path), error.strerror or "permission denied")
        except (TimeoutError, BlockingIOError):
            return NoAnswer(Silence.MUTE, str(path), "it accepts no connection")
        except OSError as error:
            return NoAnswer(Silence.ABSENT, str(path), error.strerror or str(error))
        return _asked(sock, path, question, method, timeout_s)


def _asked(sock: socket.socket, path: Path, question: str, method: str, timeout_s: float) -> Answer | NoAnswer:
    pid = _listener(sock)
    connection = HTTPConnection("localhost")
    connection.sock = sock
    try:
        connection.request(method, question)
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()))
    except TimeoutError:
        return NoAnswer(Silence.MUTE, str(path), f"no answer within {timeout_s:g} s", pid, _state(pid))
    except (HTTPException, ValueError) as error:
        return NoAnswer(Silence.STRANGE, str(path), f"{type(error).__name__} {error}", pid)
    except OSError as error:
        return NoAnswer(Silence.ABSENT, str(path), f"it ended while it was asked ({error.strerror})", pid)


def _listener(sock: socket.socket) -> int:
    """The process that listens there; 0 when it is not of this pid namespace or below (unix(7))."""
    pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid)


def _state(pid: int) -> str:
    """The third word of /proc/PID/stat, behind a name in brackets that may hold anything (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
