"""Which endpoint of a backend: LEAST_REQUEST, the better of two taken by chance (Istio's default; Envoy
source/extensions/load_balancing_policies/least_request). Weights of endpoints are equal."""


def less_loaded(one_active: int, other_active: int) -> bool:
    """Whether the first of two endpoints should be taken, by their requests in flight. A tie goes to the first, as in
    Envoy: which one came first was chance already."""
    return one_active <= other_active
