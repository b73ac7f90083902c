"""What somebody asks of `headgate init`, in headgate's own words or a peer's: values, and how a wish is refused."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.init.accounts import NOBODY, Accounts
from agent.kernel.backends import Backend
from agent.plan import IPFamily, PlanSettings
from agent.plan.ranges import Ranges
from agent.plan.steering import Network, Steering
from agent.printable import printable

_SHOWN: Final = 80
BOTH: Final = (IPFamily.IPV4, IPFamily.IPV6)


class Refused(ValueError):
    """`flag` (or variable, or key of a file) with `value` cannot be done; `reason` says why and what to do instead.

    Nothing was changed; asked again, it is refused again.
    """

    def __init__(self, flag: str, value: str, reason: str) -> None:
        super().__init__(f"{printable(flag, _SHOWN)} '{printable(value, _SHOWN)}': {reason}")
        self.flag = flag
        self.value = value
        self.reason = reason


class Action(Enum):
    INSTALL = "install"
    REMOVE = "remove"
    NOTHING = "nothing"  # rules are somebody else's business (istio-iptables --skip-rule-apply), only validate


class Families(Enum):
    """Which families are steered where the peer's binary decides that by the pod's addresses."""

    ALL = "all"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    FIRST_ADDRESS = "first-address"  # istio-iptables: IPv6 too when the first address is of it


@dataclass(frozen=True, slots=True)
class Validation:
    """After the install the rules are tried (headgate rules verify); `exit_code` is the process's when they fail."""

    exit_code: int
    timeout_s: float = 5.0  # istio-iptables DefaultProbeTimeout


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a peer's binary reads where it runs: names of users and groups, and the text of /etc/resolv.conf."""

    accounts: Accounts = NOBODY
    resolv_conf: str = ""


@dataclass(frozen=True, slots=True)
class InitRequest:
    """`netns` None: the namespace that the process is in. `backend` None: what kernel and namespace hold decides.

    `close_wait_s`: net.netfilter.nf_conntrack_tcp_timeout_close_wait, set before the rules. `notes` are for stderr:
    what was accepted and changes nothing here, and why.
    """

    steering: Steering
    settings: PlanSettings
    action: Action = Action.INSTALL
    families: Families = Families.ALL
    backend: Backend | None = None
    netns: str | None = None
    dry_run: bool = False
    validation: Validation | None = None
    close_wait_s: int | None = None
    notes: tuple[str, ...] = ()


def families_of(wanted: Families, addresses: tuple[IPv4Address | IPv6Address, ...]) -> tuple[IPFamily, ...]:
    """`addresses` as RTM_GETADDR tells them, IPv4's first, which is what Go's net.InterfaceAddrs gives istio-iptables:
    the first that is neither loopback nor link-local decides. A namespace that has none is steered whole."""
    if wanted is Families.IPV4:
        return (IPFamily.IPV4,)
    if wanted is Families.IPV6:
        return (IPFamily.IPV6,)
    usable = [address for address in addresses if not address.is_loopback and not address.is_link_local]
    if wanted is Families.FIRST_ADDRESS and usable and usable[0].version == 4:
        return (IPFamily.IPV4,)
    return BOTH


# ── Sets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def without(numbers: Ranges, taken: Ranges) -> Ranges:
    """`numbers` less `taken`: the peers let the same port stand in both, and one of them wins; a Steering does not."""
    left = list(numbers.spans)
    for first, last in taken.spans:
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, first - 1)), (max(start, last + 1), end))
            if piece[0] <= piece[1]
        ]
    return Ranges.of(*left)


def outside(networks: tuple[Network, ...], excluded: tuple[Network, ...]) -> tuple[Network, ...]:
    """`networks` less those that are within `excluded` altogether."""
    return tuple(network for network in networks if not any(_within(network, taken) for taken in excluded))


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type] # of one version
