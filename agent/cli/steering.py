"""What is to be steered, as options: the same words as the annotations, for the verbs that act without an agent.

Each of headgate's own annotations (`headgate.io/NAME`, agent.plan.annotation_keys) is the option `--NAME` and the
variable HEADGATE_NAME. Users and groups may be named here: the files that know the names are at hand.
"""

import functools
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from agent.init.accounts import Accounts
from agent.plan import InvalidPlan, IPFamily, PlanSettings
from agent.plan.annotation_keys import FAMILIES, Mesh
from agent.plan.annotations import steering_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners, Steering
from agent.plan.words import parse_ids, parse_networks, shown
from proxy.api import constants

R = TypeVar("R")

DEFAULT_PROXY_ID: Final = "1337"  # istio-iptables DefaultProxyUID; what the sidecar templates of Istio run Envoy as
OWNER, MARK = "owner", "mark"
_PREFIX: Final = "headgate.io/"
_PORT: Final = click.IntRange(1, 65535)
_IP_FAMILIES: Final = {"all": tuple(IPFamily), "ipv4": (IPFamily.IPV4,), "ipv6": (IPFamily.IPV6,)}

_WORDS: Final = {
    key.name.removeprefix(_PREFIX): (family.field, f"{family.meaning[0].upper()}{family.meaning[1:]}.")
    for family in FAMILIES
    for key in family.keys
    if key.mesh is Mesh.HEADGATE
}
"""By option name: field of Steering, help."""
_SETTING: Final = {"owners": "proxy-uid", "loopback4": "loopback-cidr"}
"""By field of PlanSettings: the option, where it is called otherwise."""
_OF_USERS: Final = frozenset({"exclude-uids"})
_OF_GROUPS: Final = frozenset({"exclude-gids", "include-gids"})


def steering_options(default_identity: str = OWNER) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A decorator for commands: their options, and to the command `steering: Steering, settings: PlanSettings`.

    `default_identity`: OWNER, the proxy is known by its user (init mode), or MARK (node mode).
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def called(*args: Any, **given: Any) -> R:
            chosen = {name: given.pop(_variable(name)) for name in _NAMES}
            steering, settings = read(chosen, _accounts)
            return command(*args, steering=steering, settings=settings, **given)

        decorated: Callable[..., R] = called
        for option in reversed(_options(default_identity)):
            decorated = option(decorated)
        return decorated

    return decorate


def read(chosen: dict[str, Any], accounts: Callable[[], Accounts]) -> tuple[Steering, PlanSettings]:
    """Option names and what was given for them -> values. Raises click.BadParameter that names the option.

    `accounts` is only asked when somebody is named.
    """
    given = {name: chosen[name] for name in _WORDS if chosen[name] is not None}  # empty is a value: `none at all`
    words = tuple((f"{_PREFIX}{name}", _numbered(name, text, accounts)) for name, text in given.items())
    families = _IP_FAMILIES[chosen["ip-family"]]
    try:
        steering = steering_of(words, Steering(families=families)).steering
        return steering, PlanSettings(
            outbound_port=chosen["outbound-port"],
            inbound_port=chosen["inbound-port"],
            tunnel_port=chosen["tunnel-port"],
            dns_port=chosen["dns-port"],
            owners=_owners(chosen, accounts),
            passthrough=chosen["passthrough"],
            own_pod=chosen["own-pod"],
            loopback4=_loopback(chosen["loopback-cidr"]),
        )
    except InvalidPlan as error:
        raise bad_option(error) from None


def bad_option(error: InvalidPlan) -> click.BadParameter:
    """What a plan has against these options, as wrong usage of them (exit status 2)."""
    fields = error.field.removeprefix("annotation ").split(", ")
    options = dict.fromkeys(f"--{name}" for field in fields for name in _options_of(field.removeprefix(_PREFIX)))
    return click.BadParameter(error.reason, param_hint=", ".join(options))


def _options_of(field: str) -> list[str]:
    """Of a field of Steering, or of an annotation's name; what is neither is a setting, and called like its option."""
    return [name for name, (of, _) in _WORDS.items() if field in (name, of)] or [
        _SETTING.get(field, field).replace("_", "-")
    ]


# ── Values ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _numbered(name: str, text: str, accounts: Callable[[], Accounts]) -> str:
    if name in _OF_USERS or name in _OF_GROUPS:
        return _ids(name, text, accounts, groups=name in _OF_GROUPS)
    return text


def _ids(name: str, text: str, accounts: Callable[[], Accounts], *, groups: bool) -> str:
    if not any(letter.isalpha() for letter in text):
        return text
    try:
        return accounts().group_ids(text) if groups else accounts().user_ids(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"--{name}") from None


def _owners(chosen: dict[str, Any], accounts: Callable[[], Accounts]) -> Owners | None:
    if chosen["identity"] == MARK:
        return None
    return Owners(
        uids=_ranges("proxy-uid", chosen["proxy-uid"], accounts, groups=False),
        gids=_ranges("proxy-gid", chosen["proxy-gid"], accounts, groups=True),
    )


def _ranges(name: str, text: str, accounts: Callable[[], Accounts], *, groups: bool) -> Ranges:
    try:
        return parse_ids(_ids(name, text, accounts, groups=groups))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"--{name}") from None


def _loopback(text: str) -> IPv4Network:
    try:
        networks = parse_networks(text, IPFamily.IPV4)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--loopback-cidr") from None
    if len(networks) != 1 or not isinstance(networks[0], IPv4Network):
        raise click.BadParameter(f"{shown(text)} is not one network", param_hint="--loopback-cidr")
    return networks[0]


def _accounts() -> Accounts:
    return Accounts.of(_content("/etc/passwd"), _content("/etc/group"))


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # an image without it knows no names
        return ""


# ── Options ────────────────────────────────────────────────────────────────────────────────────────────────────────
_SETTINGS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("ip-family", {"type": click.Choice(list(_IP_FAMILIES)), "default": "all", "help": "Families that are steered."}),
    (
        "identity",
        {
            "type": click.Choice([OWNER, MARK]),
            "help": "The proxy is known by its user or group, or by the mark that a node's proxy sets on its sockets.",
        },
    ),
    ("proxy-uid", {"default": DEFAULT_PROXY_ID, "help": "Users (numbers, ranges, names) that the proxy runs as."}),
    ("proxy-gid", {"default": "", "help": "Groups that the proxy runs as."}),
    (
        "passthrough",
        {
            "is_flag": True,
            "default": True,
            "help": "The proxy calls the application from 127.0.0.6 or ::6, as Envoy does in Istio and Kuma.",
        },
    ),
    (
        "own-pod",
        {
            "is_flag": True,
            "default": True,
            "help": "What the proxy sends to its own pod is inbound; not of one that calls the application plainly, "
            "as linkerd2-proxy does.",
        },
    ),
    ("outbound-port", {"type": _PORT, "default": constants.OUTBOUND_PORT, "help": "Listener for what the pod sends."}),
    ("inbound-port", {"type": _PORT, "default": constants.INBOUND_PORT, "help": "Listener for what reaches the pod."}),
    ("tunnel-port", {"type": _PORT, "default": constants.TUNNEL_PORT, "help": "Listener that is reached as it is."}),
    ("dns-port", {"type": _PORT, "default": constants.DNS_PORT, "help": "Listener for queries."}),
    ("loopback-cidr", {"default": "127.0.0.0/8", "help": "IPv4 addresses that are never steered."}),
)
_NAMES: Final = (*_WORDS, *(name for name, _ in _SETTINGS))


def _options(default_identity: str) -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    words = [_option(name, help=meaning, metavar="TEXT") for name, (_, meaning) in _WORDS.items()]
    defaults = {"identity": {"default": default_identity}}
    return [*words, *(_option(name, show_default=True, **kept, **defaults.get(name, {})) for name, kept in _SETTINGS)]


def _option(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    negation = f"/--no-{name}" if attributes.get("is_flag") else ""
    return click.option(
        f"--{name}{negation}", _variable(name), envvar=f"HEADGATE_{_variable(name).upper()}", **attributes
    )


def _variable(name: str) -> str:
    return name.replace("-", "_")
