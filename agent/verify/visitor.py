"""Somebody outside, for the packets that a namespace cannot send to itself: a second namespace behind a veth pair.

A flow that begins inside meets the OUTPUT rules only (reference/feasibility.md part 4); what arrives must come through
an interface. The pair goes with the second namespace: a process that is killed leaves nothing behind.
Numbers are of linux/rtnetlink.h, linux/if_link.h, linux/veth.h and linux/if_addr.h.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final, ParamSpec, Self, TypeVar

from agent.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, Netlink, attribute, attributes, nested
from agent.kernel.scratch import inside, make_scratch
from agent.plan import IPFamily
from agent.pods import IPAddress
from agent.verify.matrix import VISITOR_INTERFACE

P = ParamSpec("P")
T = TypeVar("T")

# RFC 5737 TEST-NET-3 and RFC 3849: nobody's. The even one is ours, the odd one the visitor's (RFC 3021, RFC 6164).
_HERE: Final[dict[IPFamily, IPAddress]] = {
    IPFamily.IPV4: IPv4Address("203.0.113.252"),
    IPFamily.IPV6: IPv6Address("2001:db8:ffff:ffff::252"),
}
THERE: Final[dict[IPFamily, IPAddress]] = {
    IPFamily.IPV4: IPv4Address("203.0.113.253"),
    IPFamily.IPV6: IPv6Address("2001:db8:ffff:ffff::253"),
}

_OUR_INDEX, _THEIR_INDEX = 20602, 20601
"""Not the same: for a veth whose ends have one number the kernel takes its time, up to a second, to set up the queue
(net/core/link_watch.c: linkwatch_urgent_event). Of both or of none (drivers/net/veth.c: veth_newlink)."""
_OUR_MAC, _THEIR_MAC = bytes.fromhex("026867000001"), bytes.fromhex("026867000002")  # locally administered
_LONGEST_START_S: Final = 1.0
_START_LOOK_S: Final = 0.001

_RTM_GETLINK, _RTM_NEWNEIGH = 18, 28
_NDMSG: Final = struct.Struct("=BxxxiHBB")  # linux/neighbour.h: family, index, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT: Final = 0x80
_IFLA_QDISC, _IFLA_OPERSTATE = 6, 16
_NO_QUEUE_YET: Final = b"noop\0"  # net/sched/sch_generic.c
_IF_OPER_UP: Final = b"\x06"  # linux/if.h: RFC 2863's states
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 17, 20, 24
_IFINFOMSG: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_U32: Final = struct.Struct("=I")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD: Final = 0x02
_IFF_UP: Final = 1
_RTM_GETROUTE: Final = 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTN_LOCAL = 254, 4, 1, 2
_FAMILIES: Final = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}


class Visitor:
    """Made, used and closed by a thread that is in the namespace to be visited. `families`: those that it can come by.

    Raises OSError when the kernel refuses: it takes CAP_NET_ADMIN here and CAP_SYS_ADMIN, and EEXIST says that
    somebody has an interface of that name.
    """

    def __init__(self, wanted: Sequence[IPFamily]) -> None:
        self._fd = make_scratch()
        try:
            _commit([_new_pair(self._fd)])
        except BaseException:
            os.close(self._fd)  # the interface of that name, if there is one, is another visitor's
            raise
        try:
            _commit([_up(_OUR_INDEX)])
            inside(self._fd, _commit, [_up(_THEIR_INDEX)])
            _wait_up(_OUR_INDEX)
            inside(self._fd, _wait_up, _THEIR_INDEX)
            self.families = tuple(family for family in wanted if _addressed(family, _HERE[family]))
            inside(self._fd, _address_there, self.families)
            _commit([_neighbour(THERE[family], _THEIR_MAC, _OUR_INDEX) for family in self.families])
            _wait_local([_HERE[family] for family in self.families])
            inside(self._fd, _wait_local, [THERE[family] for family in self.families])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In the visitor's namespace."""
        return inside(self._fd, function, *args, **kwargs)

    def close(self) -> None:
        """Closing twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            with Netlink(socket.NETLINK_ROUTE) as netlink:  # at once: the namespace's own end takes its time
                netlink.commit([Message(_RTM_DELLINK, 0, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, _OUR_INDEX, 0, 0))])
        except OSError:
            pass
        finally:
            os.close(fd)


def _wait_up(index: int) -> None:
    """Until the interface sends: a work item of the kernel (net/core/link_watch.c) finds it up and sets up its queue;
    what is sent before is dropped."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        _wait(lambda: _sends(netlink, index))


def _sends(netlink: Netlink, index: int) -> bool:
    data = netlink.ask(Message(_RTM_GETLINK, 0, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)))
    found = attributes(data[_IFINFOMSG.size :])
    return found.get(_IFLA_OPERSTATE) == _IF_OPER_UP and found.get(_IFLA_QDISC) != _NO_QUEUE_YET


def _wait_local(addresses: Sequence[IPAddress]) -> None:
    """Until what is sent to these addresses is delivered here: of IPv6 a work item of the kernel adds the route, also
    without duplicate address detection (net/ipv6/addrconf.c: addrconf_dad_work)."""
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        _wait(lambda: all(_is_local(netlink, address) for address in addresses))


def _is_local(netlink: Netlink, address: IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    question = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address.packed)
    try:
        answer = netlink.ask(Message(_RTM_GETROUTE, 0, question))
    except OSError:  # no route at all
        return False
    return int(_RTMSG.unpack_from(answer)[7]) == _RTN_LOCAL


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + _LONGEST_START_S
    while not is_so():
        if time.monotonic() >= until:
            raise OSError(errno.ETIMEDOUT, f"{VISITOR_INTERFACE} does not come up")
        time.sleep(_START_LOOK_S)


def _address_there(families: tuple[IPFamily, ...]) -> None:
    _commit([_new_address(family, THERE[family], _THEIR_INDEX) for family in families])
    _commit([_neighbour(_HERE[family], _OUR_MAC, _THEIR_INDEX) for family in families])
    _commit([_default_route(family, _THEIR_INDEX) for family in families])


def _addressed(family: IPFamily, address: IPAddress) -> bool:
    """False where new interfaces have no such family (net.ipv6.conf.default.disable_ipv6: EACCES)."""
    try:
        _commit([_new_address(family, address, _OUR_INDEX)])
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        return False
    return True


def _commit(messages: Sequence[Message]) -> None:
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        for number in netlink.commit(messages):
            if number:
                raise OSError(number, os.strerror(number))


def _new_pair(peer_netns: int) -> Message:
    """Both ends have the name: each is the only one in its namespace."""
    name = attribute(_IFLA_IFNAME, VISITOR_INTERFACE.encode() + b"\0")
    peer = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, _THEIR_INDEX, 0, 0) + name + attribute(_IFLA_ADDRESS, _THEIR_MAC)
    peer += attribute(_IFLA_NET_NS_FD, _U32.pack(peer_netns))
    info = nested(
        _IFLA_LINKINFO,
        attribute(_IFLA_INFO_KIND, b"veth\0"),
        nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer)),
    )
    payload = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, _OUR_INDEX, 0, 0) + name
    payload += attribute(_IFLA_ADDRESS, _OUR_MAC) + info
    return Message(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)


def _up(index: int) -> Message:
    return Message(_RTM_NEWLINK, 0, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP))


def _new_address(family: IPFamily, address: IPAddress, index: int) -> Message:
    payload = _IFADDRMSG.pack(_FAMILIES[family], address.max_prefixlen - 1, _IFA_F_NODAD, 0, index)
    payload += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    return Message(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload)


def _neighbour(address: IPAddress, mac: bytes, index: int) -> Message:
    """For good: nobody asks for it, so nothing waits for IPv6's multicast routes, which the kernel makes in its own
    time (net/ipv6/addrconf.c: addrconf_notify), nor for a second to ask again."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    payload = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
    payload += attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, mac)
    return Message(_RTM_NEWNEIGH, NLM_F_CREATE, payload)


def _default_route(family: IPFamily, index: int) -> Message:
    payload = _RTMSG.pack(_FAMILIES[family], 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0)
    payload += attribute(_RTA_GATEWAY, _HERE[family].packed) + attribute(_RTA_OIF, _U32.pack(index))
    return Message(_RTM_NEWROUTE, NLM_F_CREATE, payload)
