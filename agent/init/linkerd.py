"""linkerd2-proxy-init's command line: every flag, what becomes of it, and the request that it amounts to.

Sources: linkerd/linkerd2-proxy-init proxy-init/cmd/root.go (flags, defaults), pkg/iptables/iptables.go (what they do),
linkerd/linkerd2 charts/partials/templates/_proxy-init.tpl (what is usually given). It reads no environment. Rules:
docs/migrate-linkerd.md.
"""

from collections.abc import Callable, Sequence
from typing import Final

from agent.init.argv import Fate, Flag, Given, Takes, Word, parse, switch, verdicts
from agent.init.reading import ids, networks, port, ports, read
from agent.init.request import Families, InitRequest, Refused, Surroundings, without
from agent.kernel.backends import Backend
from agent.plan import PlanSettings
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners, Steering

PROGRAM: Final = "proxy-init"
_NO_ID: Final = "-1"
_MAX_CLOSE_WAIT_S: Final = 432_000
"""What the kernel gives an established connection: more than that is a slip of the pen (nf_conntrack_proto_tcp.c)."""

_INBOUND = Flag("--incoming-proxy-port", "the listener for what reaches the pod; must be given", short="-p")
_OUTBOUND = Flag("--outgoing-proxy-port", "the listener for what the pod sends; must be given", short="-o")
_UID = Flag(
    "--proxy-uid", "the user that the proxy runs as; without it and --proxy-gid refused: proxy-init then writes rules "
    "that lead the proxy to itself", short="-u", default=_NO_ID,
)  # fmt: skip
_GID = Flag("--proxy-gid", "the group that the proxy runs as", short="-g", default=_NO_ID)
_ONLY_IN = Flag("--ports-to-redirect", "only these ports of the pod are steered, less the ignored ones", short="-r")
_NOT_IN = Flag("--inbound-ports-to-ignore", "ports and ranges that reach the application directly")
_NOT_OUT = Flag("--outbound-ports-to-ignore", "ports and ranges that are reached directly")
_NOT_FROM = Flag("--subnets-to-ignore", "networks whose connections reach the application directly")
_SIMULATE = Flag("--simulate", "prints the plan, changes nothing", takes=Takes.SWITCH)
_NETNS = Flag("--netns", "the rules go into that namespace")
_CLOSE_WAIT = Flag(
    "--timeout-close-wait-secs", "written to net.netfilter.nf_conntrack_tcp_timeout_close_wait, before the rules; "
    "/proc/sys must be writable, as for proxy-init", default="0",
)  # fmt: skip
_MODE = Flag(
    "--iptables-mode", "legacy or nft: that iptables backend; plain, or nothing: what kernel and namespace hold decides"
)
_IPV6 = Flag("--ipv6", "false: IPv4 alone is steered", takes=Takes.SWITCH, default="true")
_BINARY = Flag("--firewall-bin-path", "iptables-nft or iptables-legacy: that backend; any other program is refused")
_SAVE_BINARY = Flag("--firewall-save-bin-path", "as --firewall-bin-path")

_LOGS: Final = "what is done is one line on stdout, and errors on stderr"

FLAGS: Final = (
    _INBOUND, _OUTBOUND, _UID, _GID, _ONLY_IN, _NOT_IN, _NOT_OUT, _NOT_FROM, _SIMULATE, _NETNS,
    Flag("--use-wait-flag", "locks are the pod's own, and waited for", Fate.NOTED, short="-w", takes=Takes.SWITCH),
    _CLOSE_WAIT,
    Flag("--log-format", _LOGS, Fate.NOTED),
    Flag("--log-level", _LOGS, Fate.NOTED),
    _MODE, _IPV6, _BINARY, _SAVE_BINARY,
)  # fmt: skip
"""In the order of proxy-init's own help."""

_MODES: Final = {
    "": None,
    "plain": None,
    "legacy": Backend.IPTABLES_LEGACY,
    "nft": Backend.IPTABLES_NFT,
}
_PROGRAMS: Final = {
    "": None,
    "iptables": None,
    "iptables-nft": Backend.IPTABLES_NFT,
    "iptables-legacy": Backend.IPTABLES_LEGACY,
}


def request(argv: Sequence[str], around: Surroundings) -> InitRequest:
    """Raises Refused, or InvalidPlan when what is asked contradicts itself."""
    given = Given((parse(argv, FLAGS, PROGRAM, said=(PROGRAM,)),))
    notes = verdicts(given)
    return InitRequest(
        _steering(given),
        PlanSettings(
            outbound_port=_must(given, _OUTBOUND),
            inbound_port=_must(given, _INBOUND),
            owners=_owners(given, around),
            # It calls the application on the pod's own address, unmarked: led to itself again, it would never end.
            own_pod=False,
        ),
        families=Families.ALL if switch(given.word(_IPV6)) else Families.IPV4,
        backend=_backend(given),
        netns=given.word(_NETNS).value or None,
        dry_run=switch(given.word(_SIMULATE)),
        close_wait_s=_close_wait_s(given.word(_CLOSE_WAIT)),
        notes=notes,
    )


def _steering(given: Given) -> Steering:
    only, ignored = ports(_joined(given, _ONLY_IN)), ports(_joined(given, _NOT_IN))
    return Steering(
        include_inbound_ports=without(only, ignored) if only else None,
        exclude_inbound_ports=ignored,
        exclude_inbound_networks=networks(_joined(given, _NOT_FROM)),
        exclude_outbound_ports=ports(_joined(given, _NOT_OUT)),
    )


def _joined(given: Given, flag: Flag) -> Word:
    """A list may be given in one word or in several (pflag StringSlice)."""
    words = given.words(flag.name)
    return Word(flag, ",".join(word.value for word in words), words[-1].where if words else flag.name)


def _must(given: Given, flag: Flag) -> int:
    word = given.word(flag)
    if not word.value:
        raise Refused(word.where, "", "must be given: proxy-init has no default for it")
    return port(word)


def _owners(given: Given, around: Surroundings) -> Owners:
    uids, gids = _ids(given.word(_UID), around.accounts.user_ids), _ids(given.word(_GID), around.accounts.group_ids)
    if not uids and not gids:
        reason = "with neither user nor group the proxy's own connections would be led to it again: give 2102"
        raise Refused(_UID.name, given.word(_UID).value, reason)
    return Owners(uids, gids)


def _ids(word: Word, numbered: Callable[[str], str]) -> Ranges:
    """None for what proxy-init writes no rule for: zero and less (addOutgoingTrafficRules)."""
    text = word.value.strip()
    if not text or text == "0" or (text.startswith("-") and text[1:].isdigit()):
        return Ranges()
    return ids(word, numbered)


def _close_wait_s(word: Word) -> int | None:
    return read(word, _seconds)


def _seconds(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_CLOSE_WAIT_S))):
        raise ValueError("is no number of seconds")
    if int(text) > _MAX_CLOSE_WAIT_S:
        raise ValueError(f"more than {_MAX_CLOSE_WAIT_S} seconds, which is what an open connection gets")
    return int(text) or None


def _backend(given: Given) -> Backend | None:
    """--iptables-mode overrides the paths, as in proxy-init."""
    mode = given.word(_MODE)
    if mode.value not in _MODES:
        raise Refused(mode.where, mode.value, "use legacy, nft or plain")
    if mode.value:
        return _MODES[mode.value]
    _program(given.word(_SAVE_BINARY), "-save")
    return _program(given.word(_BINARY), "")


def _program(word: Word, suffix: str) -> Backend | None:
    name = word.value.rpartition("/")[2].removesuffix(suffix)
    if name not in _PROGRAMS:
        raise Refused(word.where, word.value, "is no iptables known here: use iptables-nft or iptables-legacy")
    return _PROGRAMS[name]
