"""The wishes that the golden files of all backends render: none, and every one that there is."""

from ipaddress import ip_address, ip_network
from typing import Final

from agent.plan import PlanSettings, ProbeSettings, Steering
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Owners, UdpPolicy, VirtualInterface

NODE: Final = PlanSettings()
PROBED_NODE: Final = PlanSettings(probes=ProbeSettings())
SIDECAR: Final = PlanSettings(owners=Owners(uids=Ranges.of(1337)))
SIDECAR_OF_MANY: Final = PlanSettings(owners=Owners(Ranges.of(1337, (2000, 2002)), Ranges.of(1337)))
TRANSPARENT_SIDECAR: Final = PlanSettings(owners=Owners(uids=Ranges.of(1337)), passthrough=False)

DEFAULT: Final = Steering()
EVERYTHING: Final = Steering(
    include_inbound_ports=Ranges.of(8080, (9000, 9100)),
    exclude_inbound_ports=Ranges.of(9090, (3000, 3005)),
    exclude_inbound_networks=(ip_network("10.9.0.0/16"), ip_network("192.0.2.1/32"), ip_network("2001:db8:9::/48")),
    include_outbound=Included(Ranges.of(80, (8000, 8100)), (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    exclude_outbound_ports=Ranges.of(5432, (3000, 3005)),
    exclude_outbound_networks=(ip_network("10.1.0.0/16"), ip_network("10.3.0.0/16"), ip_network("fd01::/16")),
    exclude_uids=Ranges.of(2500, (3000, 3010)),
    include_gids=Ranges.of(10, 20, (30, 40)),
    exclude_owner_ports=(
        OwnerPorts(frozenset({Protocol.TCP}), Ranges.of(53, (3000, 3005)), Ranges.of((2000, 2010))),
        OwnerPorts(frozenset(Protocol), Ranges.of(53), Ranges.of(5)),
    ),
    exclude_interfaces=("net1", "multus+"),
    virtual_interfaces=(VirtualInterface("br+", (ip_network("172.17.0.0/16"),)), VirtualInterface("k6t-eth0")),
    dns=DnsCapture((ip_address("10.96.0.10"), ip_address("127.0.0.53"), ip_address("fd00::a")), over_loopback=True),
    udp=UdpPolicy.DENY_443,
    drop_invalid=True,
)
"""`exclude_gids` cannot stand beside `include_gids`, and `families` would hide half of the rest."""
