"""When a rule is there, and which cases of docs/cases.md prove it: what docs/rules.md says beside the rule itself."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

NODE: Final = "node mode"
INIT: Final = "init mode"
MARKS: Final = "node mode; transparent sidecar"
PASSTHROUGH: Final = "init mode, unless transparent or `own_pod` is off"
OWN_POD: Final = "init mode, unless `own_pod` is off"


@dataclass(frozen=True, slots=True)
class Note:
    """`pattern` as in fnmatch; the first that matches a rule's id speaks for it."""

    pattern: str
    when: str
    cases: str


NOTES: Final = (
    # ── Anchor ──
    Note("zone-in", MARKS, "22, 55"),
    Note("zone-out", MARKS, "22, 33, 55"),
    Note("zone-out-*", INIT, "33"),
    Note("return-mark-*", MARKS, "22, 23"),
    # ── Wishes that several stages know ──
    Note("*-skip-interfaces", "`exclude_interfaces`", "15"),
    Note("*-skip-probes[46]", "`--node-netns`", "27, 28"),
    Note("*-skip-ipv[46]", "`families`", "45"),
    Note("*-skip-virtual*", "`virtual_interfaces`", "16"),
    Note("in-forgotten-virtual*", "`virtual_interfaces` with `include_inbound_ports`", "16, 56"),
    Note("*-skip-excluded-users", "`exclude_uids`", "13"),
    Note("*-skip-excluded-groups", "`exclude_gids`", "14"),
    Note("*-skip-other-groups", "`include_gids`", "14"),
    Note("*-skip-user-ports*", "`exclude_owner_ports`", "13"),
    Note("in-*-skip-answers-ports", "`exclude_outbound_ports`", "56"),
    Note("out-*-skip-answers-ports", "`exclude_inbound_ports`", "56"),
    Note("in-*-skip-answers-networks*", "`exclude_outbound_networks`", "56"),
    Note("out-*-skip-answers-networks*", "`exclude_inbound_networks`", "56"),
    # ── Stage FORGOTTEN ──
    Note("in-inspect", "node mode; init mode with `drop_invalid`", "39, 56"),
    Note("out-inspect", "always", "56"),
    Note("in-forgotten-skip-opening", NODE, "20, 56"),
    Note("out-forgotten-skip-opening", "always", "1, 56"),
    Note("in-forgotten-skip-ports", "`exclude_inbound_ports`", "25, 56"),
    Note("out-forgotten-skip-ports", "`exclude_outbound_ports`", "10, 56"),
    Note("in-forgotten-skip-networks*", "`exclude_inbound_networks`", "26, 56"),
    Note("out-forgotten-skip-networks*", "`exclude_outbound_networks`", "12, 56"),
    Note("*-forgotten-skip-linklocal6-*", "always", "54"),
    Note("in-forgotten-skip-proxy", NODE, "22, 56"),
    Note("out-forgotten-skip-proxy", NODE, "2, 56"),
    Note("out-forgotten-skip-proxy-*", INIT, "2, 56"),
    Note("*-forgotten-skip-lo", "always", "3, 5"),
    Note("in-forgotten-skip-tunnel", "always", "21"),
    Note("*-grandfathered[46]", "always", "37, 56"),
    Note("out-forgotten-proxy", "always", "56"),
    Note("out-forgotten-ports", "`include_outbound`", "12, 56"),
    Note("out-forgotten-networks*", "`include_outbound`", "12, 56"),
    Note("out-forgotten", "unless `include_outbound`", "56"),
    Note("in-forgotten", "node mode; init mode with `drop_invalid`", "39, 56"),
    # ── Stage DATAGRAM ──
    Note("*-datagram-inspect", "always", "18"),
    Note("*-datagram-skip-lo", "always", "35"),
    Note("*-datagram-skip-proxy", NODE, "33"),
    Note("*-datagram-skip-proxy-*", INIT, "33"),
    Note("*-datagram-skip-dns", "`udp: deny`, `udp: deny-443`", "33"),
    Note("in-datagram-skip-ports", "`udp: deny…` with `exclude_inbound_ports`", "18"),
    Note("out-datagram-skip-ports", "`udp: deny…` with `exclude_outbound_ports`", "18"),
    Note("in-datagram-skip-networks*", "`udp: deny…` with `exclude_inbound_networks`", "18"),
    Note("out-datagram-skip-networks*", "`udp: deny…` with `exclude_outbound_networks`", "18"),
    Note("*-datagram-refuse-443", "`udp: deny-443`", "18"),
    Note("*-datagram-refuse", "`udp: deny`", "18"),
    Note("*-datagram-passed", "unless `udp: deny`", "18"),
    # ── Stage CAPTURE ──
    Note("out-capture-skip-passthrough*", PASSTHROUGH, "24"),
    Note("out-capture-skip-own-application", "transparent sidecar", "22"),
    Note("out-capture-skip-own-pod-*-ports", OWN_POD, "6, 21, 25"),
    Note("out-capture-skip-own-pod-*-networks*", f"{OWN_POD}; `exclude_inbound_networks`", "6, 26"),
    Note("out-capture-skip-own-pod-*", OWN_POD, "3, 24"),
    Note("out-own-pod-*", OWN_POD, "6, 7"),
    Note("out-capture-skip-lo", "always", "3, 5"),
    Note("in-capture-skip-lo", "always", "3, 5, 6"),
    Note("*-capture-skip-loopback[46]", "always", "3, 4"),
    Note("*-capture-skip-linklocal6-*", "always", "54"),
    Note("in-capture-skip-tunnel", "always", "21"),
    Note("out-capture-skip-proxy", NODE, "2, 53"),
    Note("in-capture-skip-proxy", NODE, "22"),
    Note("out-capture-skip-proxy-*", INIT, "2, 7"),
    Note("in-capture-skip-ports", "`exclude_inbound_ports`", "25"),
    Note("out-capture-skip-ports", "`exclude_outbound_ports`; UDP with `dns` alone", "10, 11"),
    Note("in-capture-skip-networks*", "`exclude_inbound_networks`", "26"),
    Note("out-capture-skip-networks*", "`exclude_outbound_networks`", "12"),
    Note("in-virtual-dns-*", "`virtual_interfaces` with `dns`", "16"),
    Note("in-virtual*", "`virtual_interfaces`", "16"),
    Note("out-dns-udp*", "`dns`", "11, 33, 35"),
    Note("out-dns-tcp*", "`dns`, unless `dns.tcp` is off", "11, 34, 35"),
    Note("out-capture-ports", "`include_outbound`", "12"),
    Note("out-capture-networks*", "`include_outbound`", "12"),
    Note("out-capture", "unless `include_outbound`", "1, 6, 8, 9"),
    Note("in-capture", "unless `include_inbound_ports` is empty", "20, 25, 30"),
)


def note_of(rule_id: str) -> Note | None:
    return next((note for note in NOTES if fnmatchcase(rule_id, note.pattern)), None)
