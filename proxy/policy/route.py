"""Which rule serves a request."""

from proxy.model.routing import HttpRule


def select_rule(rules: tuple[HttpRule, ...]) -> HttpRule:
    """The first rule that matches (Istio: VirtualService `http`, in order). Every rule matches every request today, so
    it is the first; `rules` is never empty."""
    return rules[0]
