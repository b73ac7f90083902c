"""What the CNI plugin says for the container runtime, and what it is answered (CNI specification 1.1). Pure."""

import json
import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_interface
from typing import Any, Final

from agent.pods import IPAddress
from agent.printable import printable

_NAME: Final = re.compile(r"CNI_[A-Z]+")
_CONTAINER: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,254}")  # the specification's own, section Parameters
_DNS: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:]{0,127}")
_ARGUMENT: Final = 4096
_VALID: Final = "cni.dev/valid-attachments"


class CniCommand(Enum):
    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    STATUS = "STATUS"
    GC = "GC"


class CniCode(Enum):
    """The specification's error codes, section Error; from 100 on a plugin's own."""

    BAD_ENVIRONMENT = 4
    UNREADABLE = 6
    BAD_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    CANNOT_ENROL = 100
    RULES_DIFFER = 101


class NotAttached(Exception):
    """What the runtime is told instead of a success: the kubelet shows it in `kubectl describe pod`."""

    def __init__(self, code: CniCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Attachment:
    """One sandbox of one pod. `uid` is empty with runtimes that do not tell it. `addresses`: those that the plugins
    before ours gave it."""

    container_id: str
    netns: str
    namespace: str
    name: str
    uid: str
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class CniRequest:
    """`attachment` None: of STATUS and GC. `valid`: GC's containers, which are to stay."""

    command: CniCommand
    cni_version: str
    attachment: Attachment | None
    valid: frozenset[str] = frozenset()


def read_request(data: bytes) -> CniRequest:
    """Raises NotAttached for what no runtime sends."""
    head, found, body = data.partition(b"\n\n")
    if not found:
        raise NotAttached(CniCode.UNREADABLE, "the request has no end of its head")
    told = dict(_lines(head))
    try:
        config = json.loads(body)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise NotAttached(CniCode.UNREADABLE, "the configuration is no JSON object")
    try:
        command = CniCommand(told.get("CNI_COMMAND", ""))
    except ValueError:
        raise NotAttached(CniCode.BAD_ENVIRONMENT, f"CNI_COMMAND {printable(told.get('CNI_COMMAND', ''))}") from None
    version = printable(str(config.get("cniVersion") or "1.0.0"), 20)
    if command in (CniCommand.STATUS, CniCommand.GC):
        return CniRequest(command, version, None, _valid(config) if command is CniCommand.GC else frozenset())
    return CniRequest(command, version, _attachment(told, config))


def answer(refused: NotAttached | None, cni_version: str = "1.0.0") -> bytes:
    """As daemonset/cni/headgate-cni.c reads it."""
    if refused is None:
        return b"0"
    said = {"cniVersion": cni_version, "code": refused.code.value, "msg": f"headgate: {refused}"}
    return b"1" + json.dumps(said).encode() + b"\n"


def _lines(head: bytes) -> list[tuple[str, str]]:
    found = []
    for line in head.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name) or len(value) > _ARGUMENT:
            raise NotAttached(CniCode.UNREADABLE, f"a line of the head is none: {printable(line, 80)}")
        found.append((name, value))
    return found


def _attachment(told: dict[str, str], config: dict[str, Any]) -> Attachment:
    container, netns = told.get("CNI_CONTAINERID", ""), told.get("CNI_NETNS", "")
    if not _CONTAINER.fullmatch(container):
        raise NotAttached(CniCode.BAD_ENVIRONMENT, f"CNI_CONTAINERID {printable(container, 80)!r} is none")
    if netns and (not netns.startswith("/") or "\0" in netns):
        raise NotAttached(CniCode.BAD_ENVIRONMENT, f"CNI_NETNS {printable(netns, 80)!r} is no absolute path")
    arguments = dict(pair.partition("=")[::2] for pair in told.get("CNI_ARGS", "").split(";"))
    namespace, name, uid = (arguments.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME", "UID"))
    for what, value in (("NAMESPACE", namespace), ("NAME", name)):
        if not _DNS.fullmatch(value):
            raise NotAttached(
                CniCode.BAD_ENVIRONMENT, f"K8S_POD_{what} {printable(value, 80)!r} in CNI_ARGS is no name"
            )
    if uid and not _UID.fullmatch(uid):
        raise NotAttached(CniCode.BAD_ENVIRONMENT, f"K8S_POD_UID {printable(uid, 80)!r} in CNI_ARGS is no uid")
    return Attachment(container, netns, namespace, name, uid, _addresses(config.get("prevResult")))


def _addresses(previous: object) -> tuple[IPAddress, ...]:
    """Of a result's `ips`; what is none is for the agent's own look to find out."""
    listed = previous.get("ips") if isinstance(previous, dict) else None
    found: list[IPAddress] = []
    for item in listed if isinstance(listed, list) else ():
        try:
            found.append(ip_interface(str(item["address"])).ip)
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def _valid(config: dict[str, Any]) -> frozenset[str]:
    """Raises NotAttached where no list is: to take that for an empty one would let go of every pod that starts now."""
    listed = config.get(_VALID, config.get("cni.dev/attachments"))
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise NotAttached(CniCode.BAD_CONFIG, f"{_VALID} is no list of attachments")
    return frozenset(str(item.get("containerID")) for item in listed)
