"""iptables-save(8) and iptables-restore(8) of either make, run in the namespace of the calling thread.

Found in fixed directories, given arguments and never a command line, an environment of their own, and a bound in time.
Whoever calls holds the namespace's lock (agent.kernel.netns_lock); legacy's own lock file is one that nobody shares.

A user's or group's number is looked up as a name before it is taken for a number (extensions/libxt_owner.c), by NSS,
which can mean a directory server that is reached through this very pod (istio #48416). So the tools run in a mount
namespace of their own in which NSS knows nothing, where that is permitted (CAP_SYS_ADMIN); in an init container it is
the image's own NSS that is asked, whose sources are local files.
"""

import ctypes
import os
import re
import select
import subprocess
import threading
import time
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from agent.kernel.iptables_base import misleading_name
from agent.kernel.refused import KernelRefused
from agent.plan.render.iptables import TABLES
from agent.plan.rules import IPFamily
from agent.printable import printable

DIRECTORIES: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin")
"""Never what PATH says: it may be the pod's."""
LONGEST_RUN_S: Final = 30.0
LARGEST_SAVE_BYTES: Final = 32 * 1024 * 1024
"""A namespace's owner makes as many rules as he likes, and whoever reads them has the text several times in memory.
A quarter of a million rules fit."""
_PIPE_BYTES: Final = 65536  # pipe(7)
_COMPLAINT_BYTES: Final = 65536
_ERROR_CHARACTERS: Final = 600
_TOOL: Final = {IPFamily.IPV4: "iptables", IPFamily.IPV6: "ip6tables"}
_LEGACY_TABLES: Final = {
    IPFamily.IPV4: "/proc/thread-self/net/ip_tables_names",
    IPFamily.IPV6: "/proc/thread-self/net/ip6_tables_names",
}
_IPV6_SOCKETS: Final = "/proc/thread-self/net/if_inet6"  # not there when the kernel runs with ipv6.disable=1

_CLONE_NEWNS: Final = 0x00020000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000  # linux/mount.h
_NSS: Final = ("/etc/nsswitch.conf", "/etc/passwd", "/etc/group")
_CHAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][^\s\"'\\!\x00-\x20\x7f-\U0010ffff]{0,127}")
_CHATTER: Final = ("Try `", "Error occurred at line", "# Warning")
_LINE_NUMBER: Final = re.compile(r"line:? (\d+)")
_REMEDIES: Final = (
    ("Permission denied", "needs CAP_NET_ADMIN (legacy: CAP_NET_RAW too) in the pod's user namespace"),
    ("unable to initialize table", "needs CAP_NET_ADMIN and CAP_NET_RAW, and a kernel with the legacy tables: use nft"),
    ("Couldn't load", "the iptables package of this image is incomplete: reinstall it, or use --backend nft"),
    ("is incompatible", "somebody made the table with nft: use --backend nft, or remove that table"),
    (
        "No chain/target/match by that name",
        "somebody changed the tables meanwhile, or the kernel lacks the target: retry",
    ),
    ("Resource temporarily unavailable", "somebody changed the tables meanwhile: retry"),
)
_libc: Final = ctypes.CDLL(None, use_errno=True)


class TooMuch(Exception):
    """More than `LARGEST_SAVE_BYTES` were printed."""


class Variant(Enum):
    """Which of the two iptables: what it is called, between the tool's name and `-save`."""

    NFT = "nft"
    LEGACY = "legacy"


def missing(variant: Variant, family: IPFamily) -> str | None:
    """Why the family's tools cannot be used; None when they can, as far as can be told without running them."""
    for verb in ("restore", "save"):
        if _find(variant, family, verb) is None:
            return f"{_name(variant, family, verb)} is not installed"
    if family is IPFamily.IPV6 and not Path(_IPV6_SOCKETS).exists():
        return "the kernel runs without IPv6"
    return None


def save(variant: Variant, family: IPFamily, *, counters: bool = False) -> str | None:
    """All that the tables hold. None where the tools are missing, or legacy was never used: nothing is loaded or made
    to find out. Raises KernelRefused."""
    if missing(variant, family) is not None:
        return None
    arguments = ("-c",) if counters else ()
    used = legacy_used(family) if variant is Variant.LEGACY else True
    if used is None:
        # The tool could not read the names either: it is told them. Asking makes the tables, which change nothing.
        texts = (_run(variant, family, "save", (*arguments, "-t", table), "") for table in TABLES)
        return "".join(texts)
    if variant is Variant.NFT:
        _refuse_misleading(family)
    return _run(variant, family, "save", arguments, "") if used else None


def chain_rules(family: IPFamily, table: str, chain: str) -> str | None:
    """One chain of iptables-nft's: a line that declares it, and the lines `-A CHAIN …` as its save prints them. Of two
    thousand chains the save reads each (0.1 s), this takes 3 ms, and it does not give up at what other chains hold.
    None for a name that could pass for an option or for several words. Raises KernelRefused, also where nft's own rules
    are in the chain, as far as the tool knows them from its own."""
    if not _CHAIN_NAME.fullmatch(chain):
        return None
    return _run(Variant.NFT, family, "", ("-t", table, "-S", chain), "")


def _refuse_misleading(family: IPFamily) -> None:
    """Before anything is read that one line of could pass for several. No such names get into the old tables whole:
    they have 28 characters there."""
    try:
        name = misleading_name()
    except OSError:  # the tool says why nothing can be read
        return
    if name is not None:
        told = f"a chain is named '{printable(name)}', which would read as other rules"
        raise KernelRefused(_name(Variant.NFT, family, "save"), told, "nobody means well by it: delete that chain")


def restore(variant: Variant, family: IPFamily, text: str, lock: int | None = None) -> None:
    """Runs `text` beside what is there (--noflush), each table as one transaction. `lock`: the namespace's, held.

    Raises KernelRefused; of the table that was refused nothing is changed, those before it in the text are.
    """
    reason = missing(variant, family)
    if reason is not None:
        raise KernelRefused(_name(variant, family, "restore"), reason, "install the iptables package in the image")
    arguments = ("--noflush", "-w", "5") if variant is Variant.LEGACY else ("--noflush",)
    _run(variant, family, "restore", arguments, text, lock)


def legacy_used(family: IPFamily) -> bool | None:
    """Whether legacy has a table here; None where only root may know. Asking the tool would make one, for good."""
    try:
        return bool(Path(_LEGACY_TABLES[family]).read_bytes().strip())
    except PermissionError:
        return None
    except OSError:
        return False


def _name(variant: Variant, family: IPFamily, verb: str) -> str:
    return "-".join(filter(None, (_TOOL[family], variant.value, verb)))


def _find(variant: Variant, family: IPFamily, verb: str) -> str | None:
    name = _name(variant, family, verb)
    return next((path for directory in DIRECTORIES if os.access(path := f"{directory}/{name}", os.X_OK)), None)


# ── Run ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _run(
    variant: Variant, family: IPFamily, verb: str, arguments: tuple[str, ...], text: str, lock: int | None = None
) -> str:
    name = _name(variant, family, verb)
    command = [_find(variant, family, verb) or name, *arguments]
    run = _run_without_nss if "-owner " in text else _execute
    lock_file = os.memfd_create("headgate-xtables-lock", os.MFD_CLOEXEC)
    try:
        done = run(command, text, lock_file, lock)
    except subprocess.TimeoutExpired:
        reason = f"has not ended after {LONGEST_RUN_S:g} s"
        raise KernelRefused(name, reason, "look what it waits for, and retry") from None
    except TooMuch:
        reason = f"prints more than {LARGEST_SAVE_BYTES} bytes"
        raise KernelRefused(name, reason, "look who fills the tables of this namespace") from None
    except OSError as error:
        raise KernelRefused(name, f"cannot be run: {error.strerror}", "reinstall the iptables package") from None
    finally:
        os.close(lock_file)
    if done.returncode != 0:
        error_text = done.stderr.strip()
        raise KernelRefused(name, _told(error_text, text), _remedy(error_text, text))
    return done.stdout


def _execute(command: list[str], text: str, lock_file: int, lock: int | None) -> subprocess.CompletedProcess[str]:
    """Raises TimeoutExpired, TooMuch, or OSError when the tool cannot be run."""
    with _memory() as given, _memory() as complaints:
        given.write(text.encode())
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={"PATH": ":".join(DIRECTORIES), "LC_ALL": "C", "XTABLES_LOCKFILE": f"/proc/self/fd/{lock_file}"},
            cwd="/",
            pass_fds=(lock_file,) if lock is None else (lock_file, lock),
        )
        with process:
            try:
                output = _all_of(process)
                process.wait(LONGEST_RUN_S)
            except BaseException:
                process.kill()
                raise
        complaints.seek(0)
        error = complaints.read(_COMPLAINT_BYTES)
    return subprocess.CompletedProcess(command, process.returncode, _text(output), _text(error))


def _memory() -> BinaryIO:
    return os.fdopen(os.memfd_create("headgate-iptables", os.MFD_CLOEXEC), "w+b")


def _all_of(process: "subprocess.Popen[bytes]") -> bytes:
    """What it prints, to the end."""
    assert process.stdout is not None
    until = time.monotonic() + LONGEST_RUN_S
    parts: list[bytes] = []
    left = LARGEST_SAVE_BYTES
    pipe = select.poll()  # an agent's descriptors go beyond select(2)'s 1024
    pipe.register(process.stdout, select.POLLIN)
    while pipe.poll(max(0.0, until - time.monotonic()) * 1000):
        part = os.read(process.stdout.fileno(), _PIPE_BYTES)
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise TooMuch
    raise subprocess.TimeoutExpired(process.args, LONGEST_RUN_S)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _run_without_nss(
    command: list[str], text: str, lock_file: int, lock: int | None
) -> subprocess.CompletedProcess[str]:
    """In a mount namespace that ends with the thread that makes it; a thread begins where its maker is."""
    outcome: list[subprocess.CompletedProcess[str]] = []
    raised: list[BaseException] = []

    def body() -> None:
        try:
            _forget_names()
            outcome.append(_execute(command, text, lock_file, lock))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, name="iptables")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return outcome[0]


def _forget_names() -> None:
    """Nothing where it is not permitted: the image's own files are asked then, as without all this."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        return
    if _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return
    for path in _NSS:
        _libc.mount(b"/dev/null", path.encode(), None, _MS_BIND, None)


# ── Refused ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _told(error: str, text: str) -> str:
    """The tool's words, and the line that it means."""
    words = " ".join(line.strip() for line in error.splitlines() if line.strip() and not line.startswith(_CHATTER))
    line = _meant(error, text)
    return printable(f"{words}: {line}" if line else words, _ERROR_CHARACTERS)


def _meant(error: str, text: str) -> str:
    """The line of the text that the error is about; empty when it names none."""
    numbers = _LINE_NUMBER.findall(error)
    lines = text.splitlines()
    return lines[int(numbers[-1]) - 1] if numbers and 0 < int(numbers[-1]) <= len(lines) else ""


def _remedy(error: str, text: str) -> str:
    if _meant(error, text).startswith("-X "):
        return "a rule of somebody else's leads into that chain: take it out (`headgate rules show`), and retry"
    for cause, remedy in _REMEDIES:
        if cause in error:
            return remedy
    if "failed" in error or "Invalid argument" in error:
        return (
            "this kernel lacks a match or target that the line names (CONFIG_NETFILTER_XT_*; modules must be loaded on"
            " the node), or the pod has a user namespace of its own, where `owner` is refused; --backend nft needs none"
        )
    return "compare iptables-save in the pod's namespace"
