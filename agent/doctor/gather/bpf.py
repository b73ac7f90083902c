"""bpf(2), as far as a doctor needs it: which programs the kernel takes, and which are on a cgroup's hooks.

What is loaded to find out is closed at once: nothing is attached and nothing pinned. Numbers are of linux/bpf.h.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.doctor.facts import AttachedProgram, SocketPrograms, Tried

_SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # asm/unistd.h
_MAP_CREATE, _PROG_LOAD, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO, _PROG_QUERY = 0, 5, 13, 15, 16
_QUERY_EFFECTIVE: Final = 1
_SOCKHASH: Final = 18
_INFO_NAME_AT: Final = slice(64, 80)  # struct bpf_prog_info: name[16], behind 64 bytes
_INFO_BYTES: Final = 232
_PROGRAMS_AT_MOST: Final = 64  # BPF_CGROUP_MAX_PROGS

_HOOKS: Final = {"connect4": 10, "connect6": 11, "sendmsg4": 14, "sendmsg6": 15}
"""Where a socket's destination can be changed."""

_RETURN_ONE: Final = struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 1; exit
_TYPES: Final = (
    # name, type, expected attach type, config, what it is for
    ("cgroup_skb", 8, 0, "CONFIG_CGROUP_BPF", "the path `observe`: measuring without a proxy"),
    ("sk_skb", 14, 0, "CONFIG_BPF_STREAM_PARSER", "the path `splice`: bytes moved by the kernel"),
    ("sk_msg", 16, 0, "CONFIG_BPF_STREAM_PARSER", "the path `splice`: bytes moved by the kernel"),
    ("sock_ops", 13, 0, "CONFIG_CGROUP_BPF", "the path `splice`: connections seen as they begin"),
    ("cgroup_sock_addr (connect4)", 18, 10, "CONFIG_CGROUP_BPF", "steering without netfilter"),
    ("cgroup_sockopt (getsockopt)", 25, 21, "CONFIG_CGROUP_BPF", "steering without netfilter"),
    ("sk_lookup", 30, 36, "CONFIG_BPF_SYSCALL", "steering what comes in without netfilter"),
    ("sched_cls", 3, 0, "CONFIG_NET_CLS_BPF", "observing at an interface"),
)
_HOST_ONLY: Final = b"ENABLE_SOCKET_LB_HOST_ONLY"
CILIUM_CONFIGURATION: Final = Path("/var/run/cilium/state/globals/node_config.h")
"""What Cilium's programs are compiled with (cilium pkg/datapath/linux/config)."""
_CONFIGURATION_BYTES: Final = 1 << 20

_libc: Final = ctypes.CDLL(None, use_errno=True)


def program_types() -> tuple[Tried, ...]:
    """Each type, tried by loading two instructions of it."""
    return (*(_tried_type(*wanted) for wanted in _TYPES), _tried_sockmap())


def _tried_type(name: str, kind: int, attach: int, config: str, purpose: str) -> Tried:
    instructions = ctypes.create_string_buffer(_RETURN_ONE, len(_RETURN_ONE))
    license_name = ctypes.create_string_buffer(b"GPL")
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name,
    # prog_ifindex, expected_attach_type
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(_RETURN_ONE) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
        0,
        0,
        0,
        0,
        0,
        b"headgate_doctor",
        0,
        attach,
    )
    return Tried(name, False, purpose, config, "", _opened(_PROG_LOAD, attributes))


def _tried_sockmap() -> Tried:
    # map_type, key_size, value_size, max_entries
    complaint = _opened(_MAP_CREATE, struct.pack("=IIII", _SOCKHASH, 8, 4, 1))
    purpose = "the path `splice`: where the kernel finds the other socket"
    return Tried("sockmap", False, purpose, "CONFIG_BPF_STREAM_PARSER", "", complaint)


def _opened(command: int, attributes: bytes) -> str | None:
    """Why the kernel gives no descriptor; None when it did, which is closed."""
    try:
        os.close(_bpf(command, ctypes.create_string_buffer(attributes, len(attributes))))
    except OSError as error:
        hint = " (needs CAP_BPF, or CAP_SYS_ADMIN)" if error.errno == errno.EPERM else ""
        return f"{error.strerror}{hint}"
    return None


def socket_programs(cgroups: Iterable[str], configuration: Path = CILIUM_CONFIGURATION) -> SocketPrograms:
    """Programs that sockets of these cgroups (directories of the v2 tree) meet when they connect. Raises OSError when
    none may be asked (CAP_NET_ADMIN or CAP_BPF); a cgroup that has gone is left out."""
    found: dict[tuple[str, int], int] = {}
    for directory in cgroups:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            for hook, kind in _HOOKS.items():
                for number in _query(fd, kind):
                    found[hook, number] = found.get((hook, number), 0) + 1
        finally:
            os.close(fd)
    names = {number: _name(number) for _, number in found}
    programs = (AttachedProgram(hook, names[number], number, count) for (hook, number), count in found.items())
    return SocketPrograms(tuple(programs), _host_only(configuration))


def _query(fd: int, kind: int) -> tuple[int, ...]:
    ids = (ctypes.c_uint32 * _PROGRAMS_AT_MOST)()
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, count
    attributes = struct.pack("=IIIIQI", fd, kind, _QUERY_EFFECTIVE, 0, ctypes.addressof(ids), _PROGRAMS_AT_MOST)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    _bpf(_PROG_QUERY, buffer)
    (count,) = struct.unpack_from("=I", buffer.raw, 24)
    return tuple(ids[:count])


def _name(number: int) -> str:
    """Empty when it has none, or has gone meanwhile."""
    try:
        fd = _bpf(_PROG_GET_FD_BY_ID, ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12))
    except OSError:
        return ""
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        attributes = struct.pack("=IIQ", fd, _INFO_BYTES, ctypes.addressof(info))
        _bpf(_OBJ_GET_INFO, ctypes.create_string_buffer(attributes, len(attributes)))
        return info.raw[_INFO_NAME_AT].partition(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _host_only(configuration: Path) -> bool | None:
    try:
        with configuration.open("rb") as file:
            return _HOST_ONLY in file.read(_CONFIGURATION_BYTES)
    except OSError:
        return None


def _bpf(command: int, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2): its number on {platform.machine()} is not known")
    result = int(_libc.syscall(number, command, ctypes.byref(attributes), len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
