"""Whatever sockets, conntrack and a proxy say, in whatever combination: no socket is lost, none makes two rows."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from agent.connections.datagrams import join_udp
from agent.connections.join import Sources, join_tcp
from agent.connections.values import Connection, End, Path, Place, Process, ProxyConnection, Way
from agent.kernel.flow_table import Flow
from agent.kernel.socket_table import HeldSocket
from agent.plan import FlowKey
from proxy.api.constants import PROXY_MARK

# Few, so that they meet.
ADDRESSES = tuple(map(ip_address, ("10.0.0.5", "10.0.0.7", "127.0.0.1")))
PORTS = (80, 4000, 4001, 15001, 15006, 4140)

places: st.SearchStrategy[Place] = st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(PORTS))
keys: st.SearchStrategy[FlowKey] = st.tuples(places, places).map(lambda ends: (*ends[0], *ends[1]))
states = st.sampled_from(["established", "fin-wait-2", "syn-sent"])
marks = st.sampled_from([None, 0, PROXY_MARK])
inodes = st.integers(0, 5)
connected = st.builds(
    lambda key, state, inode, mark: HeldSocket(*key, state, 0, inode, mark, 1.0), keys, states, inodes, marks
)
listening = st.builds(lambda place, inode: HeldSocket(*place, None, 0, "listen", 0, inode), places, inodes)
flows = st.builds(Flow, st.sampled_from([6, 17]), keys, keys, st.booleans(), st.booleans(), st.sampled_from([0, 1]))
proxys = st.builds(
    ProxyConnection,
    pod=st.just("uid"),
    netns_cookie=st.just(1),
    way=st.sampled_from([Way.OUTBOUND, Way.INBOUND]),
    path=st.sampled_from([Path.HTTP, Path.TCP, Path.IDLE]),
    original=places,
    client=st.none() | places,
    listener=st.none() | places,
    upstream_from=st.none() | places,
    upstream=st.none() | places,
)


def by_key(held: HeldSocket) -> tuple[object, ...]:
    return held.local, held.local_port, held.remote, held.remote_port


sources = st.builds(
    Sources,
    tcp=st.lists(connected | listening, max_size=12, unique_by=by_key).map(tuple),
    udp=st.lists(listening, max_size=4).map(tuple),
    flows=st.lists(flows, max_size=8).map(tuple),
    proxys=st.lists(proxys, max_size=4).map(tuple),
    owners=st.just({inode: Process(inode, f"p{inode}") for inode in range(1, 5)}),
    addresses=st.just(frozenset(ADDRESSES[:1])),
    now_s=st.just(10.0),
)


def shows(one: Connection, held: HeldSocket) -> bool:
    """As an end of it, or as the listener's or the upstream's."""
    place = held.local, held.local_port
    own = [one.source, one.destination, *(End(*found) for found in (one.upstream_from, one.upstream) if found)]
    return place in [(end.address, end.port) for end in own] or one.listener == held.local_port


@given(sources)
def test_no_socket_is_lost_and_there_are_no_more_connections_than_sockets(told: Sources) -> None:
    living = [held for held in told.tcp if held.remote is not None]
    rows = join_tcp(told)
    assert len(rows) <= len(living) + len(told.proxys)
    for held in living:
        assert any(shows(one, held) for one in rows), held


@given(sources)
def test_each_datagram_flow_is_told_once(told: Sources) -> None:
    assert len(join_udp(told)) == sum(flow.protocol == 17 for flow in told.flows)
