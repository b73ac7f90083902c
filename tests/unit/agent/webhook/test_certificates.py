"""What is made is what OpenSSL and an API server take; what is read is believed only where it belongs together."""

import base64
import datetime
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.webhook.certificates import (
    MAX_AUTHORITIES,
    Certificates,
    InvalidCertificates,
    fresh,
    read,
    valid,
    with_new_authority,
    with_new_serving,
)
from agent.webhook.rotation import AUTHORITY_LIFE_S, BACKDATED_S, DAY_S, SERVING_LIFE_S
from agent.webhook.secret import held_in, still_valid, trusting, with_certificates
from agent.webhook.tls import Presented

_HOST = "headgate-webhook.headgate-system.svc"
_NOW_S = 1_800_000_000.0


@pytest.fixture(scope="module")
def made() -> Certificates:
    return fresh(_HOST, _NOW_S)


def _verified(held: Certificates, at: Path, now_s: float, host: str = _HOST) -> str:
    """What openssl(1) says of the served certificate."""
    (at / "ca.pem").write_text(held.bundle)
    (at / "tls.pem").write_text(held.serving)
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(now_s))]
    done = subprocess.run(
        [*words, "-verify_hostname", host, "-CAfile", str(at / "ca.pem"), str(at / "tls.pem")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_openssl_verifies_what_is_made(made: Certificates, tmp_path: Path) -> None:
    assert "tls.pem: OK" in _verified(made, tmp_path, _NOW_S)
    assert "hostname mismatch" in _verified(made, tmp_path, _NOW_S, "other.svc")
    assert "has expired" in _verified(made, tmp_path, _NOW_S + SERVING_LIFE_S + 1)


def test_it_is_valid_for_who_is_an_hour_behind(made: Certificates, tmp_path: Path) -> None:
    assert "tls.pem: OK" in _verified(made, tmp_path, _NOW_S - BACKDATED_S + 1)


def test_what_is_made_is_read_back(made: Certificates) -> None:
    held = read(made)
    assert [one.ends_s for one in held.authorities] == [_NOW_S + AUTHORITY_LIFE_S]
    assert held.serving.ends_s == _NOW_S + SERVING_LIFE_S
    assert (held.signer, held.names) == (0, frozenset({_HOST}))


def test_nothing_served_outlives_its_authority(made: Certificates) -> None:
    late = with_new_serving(made, _HOST, _NOW_S + AUTHORITY_LIFE_S - DAY_S)
    assert read(late).serving.ends_s == read(made).authorities[0].ends_s


def test_a_year_of_rotation_is_trusted_by_the_bundle_at_every_step(made: Certificates, tmp_path: Path) -> None:
    """Old authority → both, the old one's certificate → both, the new one's."""
    second_s = _NOW_S + 280 * DAY_S
    held = with_new_serving(made, _HOST, second_s - DAY_S)
    both = with_new_authority(held, second_s)
    assert (both.serving, read(both).signer) == (held.serving, 1)
    assert "OK" in _verified(both, tmp_path, second_s)
    after = with_new_serving(both, _HOST, second_s + DAY_S)
    assert read(after).signer == 0
    assert "OK" in _verified(after, tmp_path, second_s + DAY_S)
    assert after.authorities == both.authorities
    assert "OK" in _verified(replace(after, authorities=held.authorities, serving=held.serving), tmp_path, second_s)


def test_an_authority_that_has_ended_leaves_the_bundle(made: Certificates) -> None:
    both = with_new_authority(made, _NOW_S + 280 * DAY_S)
    assert len(with_new_serving(both, _HOST, _NOW_S + 364 * DAY_S).authorities) == 2
    assert len(with_new_serving(both, _HOST, _NOW_S + 366 * DAY_S).authorities) == 1
    assert valid(both.authorities, _NOW_S + 366 * DAY_S) == both.authorities[:1]


def test_the_bundle_does_not_grow_without_end(made: Certificates) -> None:
    held = made
    for _ in range(MAX_AUTHORITIES + 2):
        held = with_new_authority(held, _NOW_S)
    assert len(held.authorities) == MAX_AUTHORITIES


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"authorities": ()}, "ca.crt: holds no certificate"),
        ({"serving": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "tls.crt: is no certificate"),
        ({"serving_key": "no key"}, "tls.key: is no private key of ours"),
        ({"authority_key": ""}, "ca.key: is no private key of ours"),
    ],
)
def test_what_cannot_be_used_is_named(made: Certificates, change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidCertificates, match=told):
        read(replace(made, **change))


def test_an_authority_of_somebody_elses_making_that_cannot_sign_is_told(made: Certificates) -> None:
    """RFC 5280, 4.2.1.2, wants an identifier in each; an authority made by hand may have none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    bare = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.datetime.fromtimestamp(_NOW_S, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(_NOW_S + DAY_S, datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    authority = bare.public_bytes(Encoding.PEM).decode()
    own_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(InvalidCertificates, match=r"ca\.crt: its first certificate has no key identifier"):
        read(replace(made, authorities=(authority, *made.authorities), authority_key=own_key))


def test_another_ones_key_is_found(made: Certificates) -> None:
    other = fresh(_HOST, _NOW_S)
    with pytest.raises(InvalidCertificates, match=r"tls\.key: is another certificate's key") as caught:
        read(replace(made, serving_key=other.serving_key))
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(InvalidCertificates, match=r"ca\.key: is another certificate's key"):
        read(replace(made, authority_key=other.authority_key))
    assert read(replace(made, authorities=other.authorities, authority_key=other.authority_key)).signer is None


def test_keys_are_not_in_what_a_log_would_show(made: Certificates) -> None:
    assert "PRIVATE" not in repr(made)


# ── In a Secret and a configuration ────────────────────────────────────────────────────────────────────────────────
def test_a_secret_gives_back_what_was_put_in(made: Certificates) -> None:
    empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "resourceVersion": "7"}, "type": "Opaque"}
    full = with_certificates(empty, made)
    assert held_in(empty) is None
    assert held_in(full) == made
    assert full["metadata"] == empty["metadata"]  # its version is the condition


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"ca.crt": "AAAA"}, "ca.key: is not there"),
        ({"ca.crt": "%%%"}, "ca.crt: is no base64 of PEM"),
        ({"ca.crt": 7}, "ca.crt: is no base64 of PEM"),
        (["ca.crt"], "data: is no map"),
        (dict.fromkeys(("ca.crt", "ca.key", "tls.crt", "tls.key"), "AAAA"), "is no bundle of certificates|no base64"),
        (
            dict.fromkeys(("ca.crt", "ca.key", "tls.crt", "tls.key"), base64.b64encode(b"x" * 70000).decode()),
            "no bundle",
        ),
    ],
)
def test_a_secret_that_somebody_else_wrote_is_told(data: Any, told: str) -> None:
    with pytest.raises(InvalidCertificates, match=told):
        held_in({"data": data})


def test_authorities_are_saved_from_a_secret_that_is_broken(made: Certificates) -> None:
    broken = with_certificates({}, made)
    broken["data"]["tls.key"] = "AAAA"
    assert still_valid(broken, _NOW_S) == made.authorities
    assert still_valid(broken, _NOW_S + AUTHORITY_LIFE_S + 1) == ()
    assert still_valid({"data": {"ca.crt": "%"}}, _NOW_S) == still_valid({}, _NOW_S) == ()


def test_every_webhook_of_a_configuration_gets_the_bundle_and_nothing_else_changes(made: Certificates) -> None:
    before: dict[str, Any] = {
        "metadata": {"resourceVersion": "5"},
        "webhooks": [
            {"name": "a", "clientConfig": {"service": {"name": "x"}}, "failurePolicy": "Fail"},
            {"name": "b", "clientConfig": {"service": {"name": "x"}, "caBundle": "b2xk"}},
        ],
    }
    after = trusting(before, made.bundle)
    assert after is not None
    bundles = [one["clientConfig"].pop("caBundle") for one in after["webhooks"]]
    assert [base64.b64decode(one).decode() for one in bundles] == [made.bundle] * 2
    assert after["webhooks"][0] == before["webhooks"][0]
    assert after["metadata"] == {"resourceVersion": "5"}


def test_a_configuration_that_trusts_us_is_left_alone(made: Certificates) -> None:
    after = trusting({"webhooks": [{"name": "a", "clientConfig": {}}]}, made.bundle)
    assert after is not None
    assert trusting(after, made.bundle) is None


# ── Presented ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _seen_by_a_client(presented: Presented, trusted: Certificates) -> bytes | None:
    """A handshake in memory; the certificate that the client was shown."""
    client_context = ssl.create_default_context(cadata=trusted.bundle)
    client_context.verify_mode = ssl.CERT_REQUIRED
    client_context.verify_flags |= ssl.VerifyFlags(
        0x200000
    )  # X509_V_FLAG_NO_CHECK_TIME: the test has a time of its own
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=_HOST)
    server = presented.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True)


def test_a_certificate_is_exchanged_without_another_listener(made: Certificates) -> None:
    presented = Presented()
    presented.load(made.serving, made.serving_key)
    assert _seen_by_a_client(presented, made) == ssl.PEM_cert_to_DER_cert(made.serving)
    renewed = with_new_serving(made, _HOST, _NOW_S + DAY_S)
    presented.load(renewed.serving, renewed.serving_key)
    assert _seen_by_a_client(presented, made) == ssl.PEM_cert_to_DER_cert(renewed.serving)


def test_one_that_cannot_be_presented_changes_nothing(made: Certificates) -> None:
    presented = Presented()
    presented.load(made.serving, made.serving_key)
    other = fresh(_HOST, _NOW_S)
    with pytest.raises(InvalidCertificates):
        presented.load(other.serving, made.serving_key)
    with pytest.raises(InvalidCertificates):
        presented.load("no certificate", made.serving_key)
    assert _seen_by_a_client(presented, made) == ssl.PEM_cert_to_DER_cert(made.serving)
