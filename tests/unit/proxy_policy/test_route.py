"""Which rule serves a request."""

from proxy.model.address import SocketAddress
from proxy.policy.route import select_rule
from tests.unit.proxy_config.samples import MESH, compiled, route


def test_the_first_rule_that_matches_wins_and_later_ones_are_unreachable() -> None:
    text = route("{host: reviews, subset: v2}", more="  - route: [{destination: {host: reviews, subset: v1}}]\n")
    rules = compiled(*MESH, text).services[SocketAddress("10.96.0.10", 80)].rules
    assert len(rules) == 2
    assert select_rule(rules).backends[0].backend.subset == "v2"
