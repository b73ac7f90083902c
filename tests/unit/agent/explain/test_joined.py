"""iptables-nft's own text over what nft could not tell of its tables."""

from dataclasses import replace

from agent.explain.iptables_text import tables
from agent.explain.joined import join, unsaved
from agent.explain.statements import Opaque, Perhaps
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule, Table, Tool
from tests.unit.agent.explain.iptables_rules import table_of

TEXT = """\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A OUTPUT -m owner --uid-owner 1337 -j RETURN
-A MINE -j RETURN
COMMIT
"""
OPAQUE = Rule(1, (Perhaps(Opaque("xt match owner")),), handle=7)
HANGS = Base(ChainType.NAT, Hook.OUTPUT, -105)
NFT = Table(
    Tool.NFT,
    "ip",
    "nat",
    {"OUTPUT": Chain("OUTPUT", (OPAQUE,), HANGS, handle=3), "MINE": Chain("MINE", (OPAQUE,), handle=4)},
    {},
    handle=2,
)
FOREIGN = replace(NFT, family="inet", name="docker")
SAVED = table_of(TEXT, tool=Tool.IPTABLES_NFT)


class Unasked(tuple[Rule, ...]):
    """Rules that nobody may read."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        raise AssertionError("a chain was read")

    __getitem__ = __len__ = __iter__  # type: ignore[assignment]


def test_the_rules_are_the_texts_and_where_they_hang_is_nfts() -> None:
    (joined,) = join((NFT,), (SAVED,))
    assert (joined.tool, joined.handle, list(joined.chains)) == (Tool.IPTABLES_NFT, 2, ["OUTPUT", "MINE"])
    output = joined.chains["OUTPUT"]
    assert (output.base, output.handle) == (HANGS, 3)
    assert [rule.text for rule in output.rules] == ["-m owner --uid-owner 1337 -j RETURN"]


def test_nothing_is_read_while_joining() -> None:
    unread = replace(NFT, chains={name: replace(chain, rules=Unasked()) for name, chain in NFT.chains.items()})
    join((unread,), (SAVED,))


def test_other_tables_stay_as_they_are() -> None:
    legacy = tables(TEXT, Tool.IPTABLES_LEGACY, "ip")
    of_ipv6 = replace(NFT, family="ip6")
    assert join((FOREIGN, of_ipv6), legacy) == (FOREIGN, of_ipv6, *legacy)


def test_a_chain_that_one_side_lacks_is_kept() -> None:
    """Somebody made it in between; a text's built-in chain that the kernel does not have hangs nowhere."""
    late = replace(NFT, chains={**NFT.chains, "LATE": Chain("LATE", (OPAQUE,))})
    (joined,) = join((late,), (SAVED,))
    assert list(joined.chains["LATE"].rules) == [OPAQUE]
    early = replace(NFT, chains={"OUTPUT": NFT.chains["OUTPUT"]})
    (joined,) = join((early,), (SAVED,))
    assert set(joined.chains) == {"OUTPUT", "MINE"}


def test_what_was_saved_and_not_listed_is_kept() -> None:
    assert join((), (SAVED,)) == (SAVED,)


def test_a_table_that_iptables_would_not_print_is_told() -> None:
    assert unsaved((NFT, FOREIGN), ()) == ("table ip nat: iptables cannot list it, since nft's own rules are in it",)
    assert unsaved((NFT, FOREIGN), (SAVED,)) == ()
    legacy = tables(TEXT, Tool.IPTABLES_LEGACY, "ip")
    assert len(unsaved((NFT,), legacy)) == 1
