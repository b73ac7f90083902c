"""DESIGN 7: the Service of a request is the owner of the address it was sent to; a Host that disagrees is counted."""

import pytest

from proxy.policy.host import names_another_service

OURS = "web.shop.svc.cluster.local"


@pytest.mark.parametrize("host", [b"api.shop.svc.cluster.local", b"web.blog.svc:8080", b"api.shop.svc."])
def test_another_services_full_name_is_another(host: bytes) -> None:
    assert names_another_service(host, OURS)


@pytest.mark.parametrize("host", [b"web.shop.svc.cluster.local", b"web.shop.svc:80", b"web.shop.svc.cluster.local.:80"])
def test_its_own_full_names_are_not(host: bytes) -> None:
    assert not names_another_service(host, OURS)


@pytest.mark.parametrize("host", [b"", b"web", b"api.shop", b"example.com", b"10.96.0.1:80", b"[fd96::1]:80"])
def test_a_name_that_may_be_anybodys_is_not(host: bytes) -> None:
    assert not names_another_service(host, OURS)
