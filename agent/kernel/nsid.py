"""Numbers by which the agent's own network namespace knows others (nsid): what a netlink message of another namespace
is told apart by. A number pins nothing, ends with its namespace, and is then given anew.

Numbers are of linux/net_namespace.h and linux/rtnetlink.h.
"""

import errno
import os
import socket
import struct
from typing import Final

from agent.kernel.netlink import Message, Netlink, attribute, attributes

_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_RTGENMSG: Final = bytes(4)  # struct rtgenmsg: AF_UNSPEC, padded
_S32: Final = struct.Struct("=i")
_NOT_ASSIGNED: Final = -1  # NETNSA_NSID_NOT_ASSIGNED; as a wish: any number that is free


def number_of(netns_fd: int) -> int:
    """The number that the calling thread's namespace has for the one of this descriptor; given if it has none yet.

    The kernel itself gives one when a veth pair's other end is told of, so many pods have theirs already. Raises
    OSError (EPERM: CAP_NET_ADMIN).
    """
    of_netns = attribute(_NETNSA_FD, _S32.pack(netns_fd))
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        wish = attribute(_NETNSA_NSID, _S32.pack(_NOT_ASSIGNED))
        (refused,) = netlink.commit([Message(_RTM_NEWNSID, 0, _RTGENMSG + wish + of_netns)])
        if refused not in (0, errno.EEXIST):
            raise OSError(refused, f"RTM_NEWNSID: {os.strerror(refused)}")
        answer = attributes(netlink.ask(Message(_RTM_GETNSID, 0, _RTGENMSG + of_netns))[len(_RTGENMSG) :])
    (number,) = _S32.unpack(answer[_NETNSA_NSID])
    if number == _NOT_ASSIGNED:
        raise OSError(errno.ENOENT, "RTM_GETNSID: the namespace has no number")
    return int(number)
