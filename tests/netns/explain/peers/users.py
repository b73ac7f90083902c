"""A user's own firewall: as ufw writes it, and as firewalld does."""

from typing import Final

from agent.explain.packet import ConntrackState
from tests.netns.explain.peers import Case, Peer, into, out

INVALID: Final = ConntrackState.INVALID
ESTABLISHED: Final = ConntrackState.ESTABLISHED

_MARKED_ROUTE: Final = "`fib … mark …`: a route that depends on the packet's mark"

_UFW: Final = (
    Case("somebody dials the web server", into("10.0.0.5 443"), "accept"),
    Case("ssh: who did so six times in 30 s is refused", into("10.0.0.5 22"), "accept or reject"),
    Case("the database, from the neighbourhood", into("10.0.0.5 5432"), "accept"),
    Case("the database, from elsewhere", into("10.0.0.5 5432", source="10.9.0.9", iface="net1"), "drop"),
    Case("the first that may write to the log", into("10.0.0.5 514", source="10.0.0.20", proto="udp"), "accept"),
    Case("the one before him", into("10.0.0.5 514", source="10.0.0.19", proto="udp"), "drop"),
    Case("who is blocked", into("10.0.0.5 443", source="192.0.2.7"), "drop"),
    Case("another port", into("10.0.0.5 8080"), "drop"),
    Case("NetBIOS", into("10.0.0.5 137", proto="udp"), "drop"),
    Case("an echo request", into("10.0.0.5", proto="icmp"), "accept"),
    Case("an answer", into("10.0.0.5 40000", source="8.8.8.8 443", state=ESTABLISHED), "accept"),
    Case("a packet of no connection", into("10.0.0.5 443", state=INVALID), "drop"),
    Case("DHCP's answer", into("10.0.0.5 68", source="10.0.0.9 67", proto="udp"), "accept"),
    Case("something to be passed on", into("10.9.0.9 80"), "drop"),
    Case("the user dials out", out("8.8.8.8 443"), "accept"),
    Case("he dials localhost", out("127.0.0.1 631"), "accept"),
    Case("he dials himself", out("10.0.0.5 8080"), "accept"),
    Case("he dials a mail server", out("8.8.8.8 25"), "reject"),
    Case("root dials a mail server", out("8.8.8.8 25", uid=0), "accept"),
    Case("he asks for the time", out("8.8.8.8 123", proto="udp"), "reject"),
    Case("he dials who is blocked", out("198.51.100.7 80"), "drop"),
    Case("one that he talks to already", out("198.51.100.7 80", source="10.0.0.5 40000", state=ESTABLISHED), "accept"),
    Case("he asks for a name", out("8.8.8.8 53", proto="udp"), "accept"),
)  # fmt: skip
_FIREWALLD: Final = (
    Case("ssh", into("10.0.0.5 22"), "accept"),
    Case("the web server", into("10.0.0.5 443"), "accept"),
    Case("the first of a range", into("10.0.0.5 8000"), "accept"),
    Case("the last of it", into("10.0.0.5 8010"), "accept"),
    Case("the one behind", into("10.0.0.5 8011"), "reject"),
    Case("the database, from who may", into("10.0.0.5 5432", source="10.0.0.9"), "accept"),
    Case("from who may use another", into("10.0.0.5 5432", source="10.0.0.10"), "reject"),
    Case("from who is reset", into("10.0.0.5 5432", source="10.0.0.77"), "reject"),
    Case("who is blocked", into("10.0.0.5 22", source="192.0.2.7"), "drop"),
    Case("another that is blocked", into("10.0.0.5 22", source="198.51.100.7"), "drop"),
    Case("the neighbour of that", into("10.0.0.5 22", source="198.51.100.8"), "accept"),
    Case("an echo request", into("10.0.0.5", proto="icmp"), "accept"),
    Case("a published port, marked on its way", into("10.0.0.5 8443"), "redirect :443"),
    Case("a port that leads to another host", into("10.0.0.5 2222"), "dnat 10.244.0.9:22"),
    Case("a pod of the trusted zone", into("10.244.0.1 9999", source="10.244.0.7", iface="cni0"), "accept"),
    Case("a packet of no connection", into("10.0.0.5 22", state=INVALID), "drop"),
    Case("an answer", into("10.0.0.5 40000", source="8.8.8.8 443", state=ESTABLISHED), "accept"),
    Case("something to be passed on", into("10.9.0.9 80"), "reject"),
    Case("a pod dials the internet", into("8.8.8.8 443", source="10.244.0.7", iface="cni0"), "accept"),
    Case("the user dials out", out("8.8.8.8 443"), "accept"),
    Case("he dials who is blocked", out("192.0.2.7 443"), "reject"),
    Case("he dials himself", out("10.0.0.5 12345"), "accept"),
    Case("a restricted user dials the web", out("8.8.8.8 443", uid=3005), "accept"),
    Case("he dials something else", out("8.8.8.8 22", uid=3005), "reject"),
    Case("the user behind him", out("8.8.8.8 22", uid=3011), "accept"),
    Case("a restricted user sends a datagram", out("8.8.8.8 22", uid=3005, proto="udp"), "accept"),
    Case("IPv6: ssh", into("fd00::5 22", source="fd00::9"), "accept", _MARKED_ROUTE),
    Case("IPv6: another port", into("fd00::5 23", source="fd00::9"), "reject", _MARKED_ROUTE),
    Case("IPv6: a source that has no way back", into("fd00::5 22", source="fd44::9"), "drop", _MARKED_ROUTE),
    Case("IPv6: 6to4", out("2002::1 80"), "reject"),
    Case("IPv6: the user dials out", out("fd00::9 80"), "accept"),
)

USERS: Final = (
    Peer("ufw", ("ufw.iptables",), _UFW),
    Peer("firewalld", ("firewalld.nft",), _FIREWALLD),
)
