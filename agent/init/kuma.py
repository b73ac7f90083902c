"""`kumactl install transparent-proxy`: command line, environment and configuration, and the request they amount to.

Rules: docs/migrate-kuma.md; flags: agent.init.kuma_flags.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.init.argv import Given, Word, of_environment, parse, switch, verdicts
from agent.init.kuma_config import ConfigText, words_of
from agent.init.kuma_flags import (
    ALL_DNS,
    CONFIG,
    CONFIG_FILE,
    CONFIG_TEXT,
    DNS,
    DNS_PORT,
    DRY_RUN,
    EXECUTABLES,
    FAMILY,
    FLAGS,
    GUESTS,
    INBOUND,
    INVALID,
    NOT_FOR_UIDS,
    NOT_FROM,
    NOT_IN,
    NOT_OUT,
    NOT_TO,
    ONLY_IN,
    ONLY_OUT,
    OUTBOUND,
    STEER_IN,
    STEER_OUT,
    UID,
    USER,
)
from agent.init.reading import ids, lenient, port, ports, read, resolvers
from agent.init.request import Families, InitRequest, Refused, Surroundings, without
from agent.kernel.backends import Backend
from agent.plan import PlanSettings
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, Network, OwnerPorts, Owners, Steering, VirtualInterface
from agent.plan.words import ID_MAX, collapsed, parse_networks, parse_owner_ports, parse_virtual_interfaces

PROGRAM: Final = "kumactl install transparent-proxy"
_SAID: Final = ("kumactl", "install", "transparent-proxy")
_DEFAULT_UID, _DEFAULT_USER = 5678, "kuma-dp"  # pkg/transparentproxy/consts
_DNS: Final = Ranges.of(53)
_EVERYBODY: Final = Ranges.of((0, ID_MAX))
_KUMACTLS_OWN: Final = ("controlPlanes:", "contexts:", "currentContext:")


def config_sources(argv: Sequence[str]) -> tuple[ConfigText, ...]:
    """What configuration the command line names, in order: `where` is the flag, `text` the text itself, a file's path
    or `-`: `is_path` tells. Raises Refused for a command line that kumactl would refuse."""
    sources: list[ConfigText] = []
    for word in parse(argv, FLAGS, PROGRAM, said=_SAID):
        if word.flag is CONFIG and not _is_text(word.value):
            sources += [ConfigText(CONFIG.name, path) for path in lenient(word.value).split(",")]
        elif word.flag in (CONFIG, CONFIG_TEXT, CONFIG_FILE):
            sources.append(ConfigText(word.flag.name, word.value))
    return tuple(sources)


def is_path(source: ConfigText) -> bool:
    """Whether the text is to be read from a file (or standard input)."""
    return source.where == CONFIG_FILE.name or (source.where == CONFIG.name and not _is_text(source.text))


def _is_text(value: str) -> bool:
    return "\n" in value or ": " in value or value.lstrip().startswith("{") or value.rstrip().endswith(":")


def request(
    argv: Sequence[str], environ: Mapping[str, str], around: Surroundings, configs: Sequence[ConfigText] = ()
) -> InitRequest:
    """`configs`: the texts of `config_sources`. Raises Refused, or InvalidPlan for what contradicts itself."""
    files = (words_of(config, FLAGS) for config in configs if not _is_kumactls_own(config))
    given = Given((*files, of_environment(environ, FLAGS), parse(argv, FLAGS, PROGRAM, said=_SAID)))
    notes = verdicts(given)
    dns, dns_notes = _dns(given, around)
    return InitRequest(
        _steering(given, dns),
        PlanSettings(
            outbound_port=port(given.word(OUTBOUND)),
            inbound_port=port(given.word(INBOUND)),
            dns_port=port(given.word(DNS_PORT)),
            owners=Owners(_user(given, around)),
        ),
        families=_families(given.word(FAMILY)),
        backend=_backend(given.word(EXECUTABLES)),
        dry_run=switch(given.word(DRY_RUN)),
        notes=(*notes, *dns_notes),
    )


def _is_kumactls_own(config: ConfigText) -> bool:
    return config.where.startswith(CONFIG_FILE.name) and any(
        line.startswith(_KUMACTLS_OWN) for line in config.text.splitlines()
    )


def _steering(given: Given, dns: DnsCapture | None) -> Steering:
    only_in, only_out = _all_ports(given, ONLY_IN.name), _all_ports(given, ONLY_OUT.name)
    steer_in, steer_out = switch(given.word(STEER_IN)), switch(given.word(STEER_OUT))
    not_out = _all_ports(given, NOT_OUT.name) if not only_out else Ranges()
    owner_ports = _owner_ports(given)
    if dns is not None:
        # Kuma excludes TCP ports only, and asks over TCP directly: 53 must not take UDP past the DNS listener.
        not_out = without(not_out, _DNS)
        owner_ports = (*owner_ports, OwnerPorts(frozenset({Protocol.TCP}), _DNS, _EVERYBODY))
    return Steering(
        include_inbound_ports=(only_in if only_in else None) if steer_in else Ranges(),
        exclude_inbound_ports=_all_ports(given, NOT_IN.name) if steer_in and not only_in else Ranges(),
        exclude_inbound_networks=_networks(given, NOT_FROM.name),
        include_outbound=(Included(only_out) if only_out else None) if steer_out else Included(),
        exclude_outbound_ports=not_out,
        exclude_outbound_networks=_networks(given, NOT_TO.name),
        exclude_owner_ports=owner_ports,
        virtual_interfaces=_guests(given),
        dns=dns,
        drop_invalid=switch(given.word(INVALID)),
    )


# ── Values ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _all_ports(given: Given, name: str) -> Ranges:
    """A file lists them one by one; of flags the last one counts (config.Ports.Set)."""
    words = given.words(name)
    if words and words[-1].where.startswith("--") and ":" not in words[-1].where:
        words = words[-1:]
    found = Ranges()
    for word in words:
        found |= ports(word)
    return found


def _networks(given: Given, name: str) -> tuple[Network, ...]:
    found = (read(word, lambda text: parse_networks(lenient(text))) for word in given.words(name))
    return collapsed(network for networks in found for network in networks)


def _owner_ports(given: Given) -> tuple[OwnerPorts, ...]:
    """A variable holds several between commas (envconfig), all others one each."""
    return tuple(
        read(Word(NOT_FOR_UIDS, item, word.where), parse_owner_ports)
        for word in given.words(NOT_FOR_UIDS.name)
        for item in (word.value.split(",") if word.where in NOT_FOR_UIDS.variables else [word.value])
        if item.strip()
    )


def _guests(given: Given) -> tuple[VirtualInterface, ...]:
    words = given.words(GUESTS.name)
    joined = ",".join(word.value for word in words)
    return read(Word(GUESTS, joined, words[-1].where if words else GUESTS.name), parse_virtual_interfaces)


def _dns(given: Given, around: Surroundings) -> tuple[DnsCapture | None, tuple[str, ...]]:
    some, every = given.word(DNS), given.word(ALL_DNS)
    if switch(some) and switch(every):
        raise Refused(every.where, every.value, f"{some.where} is given, too: one of both says enough")
    if switch(every):
        return DnsCapture(tcp=False, over_loopback=True), ()
    if not switch(some):
        return None, ()
    servers = resolvers(around.resolv_conf)
    if servers:
        return DnsCapture(servers, tcp=False, over_loopback=True), ()
    return None, (f"{DNS.name}: no DNS is steered: /etc/resolv.conf names no server",)


def _user(given: Given, around: Surroundings) -> Ranges:
    word = next((word for word in (given.word(USER), given.word(UID)) if word.value), None)
    if word is not None:
        return ids(word, around.accounts.user_ids)
    users = around.accounts.users
    return Ranges.of(_DEFAULT_UID if _DEFAULT_UID in users.values() else users.get(_DEFAULT_USER, _DEFAULT_UID))


def _families(word: Word) -> Families:
    known = {"dualstack": Families.ALL, "": Families.ALL, "ipv4": Families.IPV4}
    mode = word.value.lower()
    if mode not in known:
        raise Refused(word.where, word.value, "use dualstack or ipv4")
    return known[mode]


_KINDS: Final = {"-nft": Backend.IPTABLES_NFT, "-legacy": Backend.IPTABLES_LEGACY}


def _backend(word: Word) -> Backend | None:
    if not word.value:
        return None
    kinds = {_kind(item.partition(":")[2]) for item in lenient(word.value).split(",")}
    backend = next(iter(kinds)) if len(kinds) == 1 else None
    if backend is None:
        raise Refused(word.where, word.value, "all paths must end in -nft, or all in -legacy")
    return backend


def _kind(path: str) -> Backend | None:
    program = path.rpartition("/")[2].removesuffix("-save").removesuffix("-restore")
    return next(
        (backend for suffix, backend in _KINDS.items() if program in (f"iptables{suffix}", f"ip6tables{suffix}")), None
    )
