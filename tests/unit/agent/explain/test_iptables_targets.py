"""What a target of iptables does."""

from ipaddress import ip_address

import pytest

from agent.explain.statements import (
    ACCEPT,
    DROP,
    Bits,
    Constant,
    Decision,
    Field,
    Nat,
    NatKind,
    NoEffect,
    Notrack,
    Opaque,
    Read,
    Reject,
    Set,
    Statement,
    Tproxy,
    Unread,
    Verdict,
    Xored,
)
from tests.unit.agent.explain.iptables_rules import read


def address(text: str) -> Constant:
    return Constant(int(ip_address(text)))


def keeping(field: Field, mask: int, value: int) -> Set:
    return Set(field, Bits(Read(field), mask, value))


DNAT, SNAT, REDIRECT, MASQUERADE = NatKind.DNAT, NatKind.SNAT, NatKind.REDIRECT, NatKind.MASQUERADE
TARGETS: dict[str, Statement] = {
    "-j ACCEPT": ACCEPT,
    "-j DROP": DROP,
    "-j RETURN": Verdict(Decision.RETURN),
    "-j MINE": Verdict(Decision.JUMP, "MINE"),
    "-g MINE": Verdict(Decision.GOTO, "MINE"),
    "-j NFQUEUE --queue-num 4 --queue-bypass": Verdict(Decision.QUEUE),
    "-j REJECT --reject-with tcp-reset": Reject("tcp-reset"),
    "-j REDIRECT --to-ports 15006": Nat(REDIRECT, port=Constant(15006)),
    "-j REDIRECT --to-ports 15006-15010 --random": Nat(REDIRECT, port=Constant(15006), ranged=True),
    "-j REDIRECT": Nat(REDIRECT),
    "-j DNAT --to-destination 10.0.0.1:80": Nat(DNAT, address("10.0.0.1"), Constant(80)),
    "-j DNAT --to-destination 10.0.0.1": Nat(DNAT, address("10.0.0.1")),
    "-j DNAT --to-destination :80": Nat(DNAT, port=Constant(80)),
    "-j DNAT --to-destination 10.0.0.1-10.0.0.9 --persistent": Nat(DNAT, address("10.0.0.1"), ranged=True),
    "-j SNAT --to-source 10.0.0.1:1000-2000 --random-fully": Nat(
        SNAT, address("10.0.0.1"), Constant(1000), ranged=True
    ),
    "-j MASQUERADE --random-fully": Nat(MASQUERADE),
    "-j MASQUERADE --to-ports 1000-1000": Nat(MASQUERADE, port=Constant(1000)),
    "-j MARK --set-xmark 0x5/0xffffffff": Set(Field.MARK, Constant(5)),
    "-j MARK --set-xmark 0x539/0xfff": keeping(Field.MARK, 0xFFFFF000, 0x539),
    "-j MARK --set-mark 0x5/0x1": keeping(Field.MARK, 0xFFFFFFFA, 5),
    "-j MARK --and-mark 0x5": keeping(Field.MARK, 5, 0),
    "-j MARK --or-mark 0x5": keeping(Field.MARK, 0xFFFFFFFA, 5),
    "-j MARK --xor-mark 0x5": keeping(Field.MARK, 0xFFFFFFFF, 5),
    "-j CONNMARK --set-xmark 0x111/0xfff": keeping(Field.CT_MARK, 0xFFFFF000, 0x111),
    "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff": Set(Field.CT_MARK, Read(Field.MARK)),
    "-j CONNMARK --restore-mark": Set(Field.MARK, Read(Field.CT_MARK)),
    "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0xf0": Set(
        Field.MARK, Xored(Bits(Read(Field.MARK), 0xFFFFFF7F), Bits(Read(Field.CT_MARK), 0xF0))
    ),
    "-j CONNMARK --save-mark --mask 0xff": Set(
        Field.CT_MARK, Xored(Bits(Read(Field.CT_MARK), 0xFFFFFF00), Bits(Read(Field.MARK), 0xFF))
    ),
    "-j CT --notrack": Notrack(),
    "-j NOTRACK": Notrack(),
    "-j CT --zone 5": Set(Field.CT_ZONE, Constant(5)),
    "-j CT --zone-orig 2": Set(Field.CT_ZONE, Constant(2)),
    "-j CT --zone mark": Set(Field.CT_ZONE, Bits(Read(Field.MARK), 0xFFFF)),
    "-j CT --helper ftp": NoEffect("-j CT --helper"),
    "-j LOG --log-level 4": NoEffect("-j LOG --log-level 4"),
    "-j NFLOG --nflog-group 3": NoEffect("-j NFLOG --nflog-group 3"),
    "-j TRACE": NoEffect("-j TRACE"),
    "-j TTL --ttl-set 5": Set(Field.IP_TTL, Constant(5)),
    "-j DSCP --set-dscp 0x10": Set(Field.IP_DSCP, Constant(16)),
    "-j TOS --set-tos 0x10/0x3f": keeping(Field.IP_DSCP, 0x30, 4),
}


@pytest.mark.parametrize("spec", TARGETS)
def test_does_this(spec: str) -> None:
    assert read(spec) == (TARGETS[spec],)


def test_a_transparent_listener_gets_the_packet_with_its_mark() -> None:
    to = Tproxy(address("127.0.0.1"), Constant(15006), ends=True)
    spec = "-j TPROXY --on-port 15006 --on-ip 127.0.0.1 --tproxy-mark 0x539/0xfff"
    assert read(spec) == (keeping(Field.MARK, 0xFFFFF000, 0x539), to)


def test_a_transparent_listener_where_the_packet_arrived() -> None:
    """`--on-ip 0.0.0.0` is the interface's address, `--on-port 0` the packet's own port (xt_TPROXY.c)."""
    spec = "-j TPROXY --on-port 0 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0"
    assert read(spec) == (Tproxy(ends=True),)
    spec = "-j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x0/0x0"
    assert read(spec, "ip6") == (Tproxy(port=Constant(15006), ends=True),)


def test_addresses_of_ipv6_with_and_without_a_port() -> None:
    to = address("fd00::1")
    assert read("-j DNAT --to-destination [fd00::1]:80", "ip6") == (Nat(DNAT, to, Constant(80)),)
    assert read("-j DNAT --to-destination fd00::1", "ip6") == (Nat(DNAT, to),)
    assert read("-j DNAT --to-destination ::1", "ip6") == (Nat(DNAT, address("::1")),)
    assert read("-j DNAT --to-destination :80", "ip6") == (Nat(DNAT, port=Constant(80)),)
    ranged = Nat(DNAT, to, Constant(80), ranged=True)
    assert read("-j DNAT --to-destination [fd00::1-fd00::9]:80-90", "ip6") == (ranged,)


def test_a_shifted_port_is_not_guessed() -> None:
    (nat,) = read("-j DNAT --to-destination 10.0.0.1:6000-6010/5000")
    assert isinstance(nat, Nat)
    assert isinstance(nat.port, Opaque)


@pytest.mark.parametrize(
    "spec",
    [
        "-j NETMAP --to 10.5.0.0/16",
        "-j ELSEWHERE",
        "-j DNAT --to-destination nowhere",
        "-j MARK --set-mark 5 --of-tomorrow",
        "-j ACCEPT --of-tomorrow 5",
        "-j CONNMARK --set-xmark 0x5/0xf --left-shift-mark 2",
    ],
)
def test_what_is_not_known_may_decide(spec: str) -> None:
    (unread,) = read(spec)
    assert isinstance(unread, Unread)
    assert unread.what.text == spec
