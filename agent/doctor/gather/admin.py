"""What agent and proxy of this node say of themselves, over their admin sockets. Neither is needed for a look."""

import json
import socket
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from agent.doctor.facts import NODE, CutOff, Pod
from agent.doctor.findings import Unseen
from agent.doctor.gather.namespace import Place
from agent.pods import NetnsId
from agent.printable import printable
from proxy.api.constants import ADMIN_SOCKET

_SELF_CALLS: Final = "headgate_self_calls"
_GONE: Final = "gone"
_TIMEOUT_S: Final = 1.0
"""Either answers within milliseconds; who is stopped or stuck must not keep the doctor from the rest."""
_LARGEST_BYTES: Final = 64 << 20
_REASON_CHARACTERS: Final = 400


def pods(run_dir: Path) -> tuple[tuple[Place, ...], tuple[Unseen, ...]]:
    """The agent's pods, and why there may be others. Raises nothing: without an agent there is none to look at."""
    path = run_dir / ADMIN_SOCKET
    try:
        answer = json.loads(_get(path, "/pods"))
        places = tuple(_place(pod) for pod in answer["pods"] if pod["state"] != _GONE)
        return places, tuple(Unseen("pods", NODE, str(problem)) for problem in answer["problems"])
    except FileNotFoundError:
        reason = f"no agent at {path}: start it, see --run-dir, or give --netns PATH"
    except OSError as error:
        reason = f"agent at {path}: {error.strerror or error}: see headgate why; or give --netns PATH"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"agent at {path}: its answer is of another version ({error!r})"
    return (), (Unseen("pods", NODE, printable(reason, _REASON_CHARACTERS)),)


def _place(pod: dict[str, Any]) -> Place:
    addresses = tuple(ip_address(address) for address in pod["addresses"])
    paths = (pod.get("probes") or {}).get("paths", ())
    cut_off = tuple(CutOff(str(path["reason"]), str(path["remedy"])) for path in paths if path["fails"])
    known = Pod(pod["namespace"], pod["name"], pod["state"], addresses, cut_off)
    return Place(f"pod {known.key}", Path(pod["netns"]), known, _identity(pod["netns_id"]))


def _identity(text: str) -> NetnsId | None:
    """Of str(NetnsId); None where the agent has not found it yet."""
    device, colon, inode = text.partition(":")
    return NetnsId(int(device), int(inode)) if colon else None


def self_calls(admin_socket: Path) -> int:
    """Calls of its own ports that the proxy of this node refused since it started. Raises OSError when it does not
    answer; it may later."""
    text = _get(admin_socket, "/metrics").decode("utf-8", "replace")
    # NAME_total{labels} VALUE (OpenMetrics); NAME{…} in the older text format.
    values = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(_SELF_CALLS))
    return sum(int(float(value)) for value in values)


def _get(admin_socket: Path, path: str) -> bytes:
    """Raises OSError."""
    connection = HTTPConnection("headgate", timeout=_TIMEOUT_S)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_TIMEOUT_S)
        connection.sock.connect(str(admin_socket))
        connection.request("GET", path)
        return connection.getresponse().read(_LARGEST_BYTES)
    except HTTPException as error:
        raise OSError(f"no HTTP: {error!r}") from error
    finally:
        connection.close()
