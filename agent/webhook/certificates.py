"""Our own authority and what it signs (X.509, RFC 5280): P-256, made and read by `cryptography`.

Keys are PEM text in memory: they come from a Secret and go to one, and to OpenSSL without a file.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.printable import printable
from agent.webhook.rotation import AUTHORITY_LIFE_S, BACKDATED_S, SERVING_LIFE_S, Held, Span

MAX_AUTHORITIES: Final = 4
"""In the bundle: one signs, one ends; more come from authorities that were lost within their year."""
_PEM_LIMIT: Final = 64 << 10


class InvalidCertificates(ValueError):
    """What is held cannot be used: which part, why. New ones have to be made."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts. `authorities`: certificates, the first one signs, with `authority_key`."""

    authorities: tuple[str, ...]
    authority_key: str = field(repr=False)
    serving: str
    serving_key: str = field(repr=False)

    @property
    def bundle(self) -> str:
        """Whom an API server is to believe (caBundle)."""
        return "".join(self.authorities)


def fresh(name: str, now_s: float, still_valid: Sequence[str] = ()) -> Certificates:
    """All of them new. `still_valid`: authorities of which other replicas may serve something yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(key, now_s)
    authorities = (_text(authority), *still_valid)[:MAX_AUTHORITIES]
    return _served(authorities, authority, key, name, now_s)


def with_new_authority(held: Certificates, now_s: float) -> Certificates:
    """Published, and what is served stays as it is. The old authority's key is gone: it signs no more."""
    key = ec.generate_private_key(ec.SECP256R1())
    authorities = (_text(_authority(key, now_s)), *valid(held.authorities, now_s))[:MAX_AUTHORITIES]
    return Certificates(authorities, _key_text(key), held.serving, held.serving_key)


def with_new_serving(held: Certificates, name: str, now_s: float) -> Certificates:
    """Signed by the newest authority."""
    first, *others = held.authorities
    authorities = (first, *valid(others, now_s))
    return _served(authorities, x509.load_pem_x509_certificate(first.encode()), _key(held.authority_key), name, now_s)


def valid(authorities: Sequence[str], now_s: float) -> tuple[str, ...]:
    """Those that have not ended."""
    return tuple(one for one in authorities if span(x509.load_pem_x509_certificate(one.encode())).ends_s > now_s)


def read(held: Certificates) -> Held:
    """Raises InvalidCertificates for what does not belong together."""
    authorities = tuple(_certificate("ca.crt", one) for one in held.authorities)
    if not authorities:
        raise InvalidCertificates("ca.crt: holds no certificate")
    serving = _certificate("tls.crt", held.serving)
    if _identifier(authorities[0]) is None:
        raise InvalidCertificates("ca.crt: its first certificate has no key identifier: nothing can be signed by it")
    _belongs("ca.key", held.authority_key, authorities[0])
    _belongs("tls.key", held.serving_key, serving)
    signer = next((place for place, one in enumerate(authorities) if _signed(serving, one)), None)
    return Held(tuple(map(span, authorities)), span(serving), signer, _names(serving))


def separate(bundle: str) -> tuple[str, ...]:
    """One PEM text a certificate. Raises InvalidCertificates."""
    return tuple(_text(one) for one in certificates_in(bundle.encode("ascii", "replace")))


def certificates_in(pem: bytes) -> list[x509.Certificate]:
    """Raises InvalidCertificates."""
    if len(pem) > _PEM_LIMIT:
        raise InvalidCertificates(f"{len(pem)} bytes are no bundle of ours")
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError) as error:
        raise InvalidCertificates(f"is no bundle of certificates: {printable(str(error), 100)}") from error


def span(certificate: x509.Certificate) -> Span:
    """Raises InvalidCertificates: `cryptography` reads a date when it is asked for."""
    try:
        return Span(certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
    except ValueError as error:
        raise InvalidCertificates(f"a certificate's dates are none: {printable(str(error), 100)}") from error


# ── Making ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _authority(key: ec.EllipticCurvePrivateKey, now_s: float) -> x509.Certificate:
    name = _named("headgate webhook authority")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _begun(name, name, key, now_s, now_s + AUTHORITY_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _served(
    authorities: tuple[str, ...], authority: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: str, now_s: float
) -> Certificates:
    own = ec.generate_private_key(ec.SECP256R1())
    ends_s = min(now_s + SERVING_LIFE_S, span(authority).ends_s)
    identifier = _identifier(authority)
    assert identifier is not None
    made = (
        _begun(_named("headgate webhook"), authority.subject, own, now_s, ends_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificates(authorities, _key_text(key), _text(made), _key_text(own))


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now_s: float, ends_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now_s - BACKDATED_S))
        .not_valid_after(_utc(ends_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _named(name: str) -> x509.Name:
    """Authorities differ by their key identifiers: one name serves all."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _utc(time_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(time_s), datetime.UTC)


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _certificate(what: str, pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (ValueError, TypeError) as error:
        raise InvalidCertificates(f"{what}: is no certificate: {printable(str(error), 100)}") from error


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    found = load_pem_private_key(pem.encode("ascii"), None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve's")
    return found


def _belongs(what: str, pem: str, certificate: x509.Certificate) -> None:
    """No word of the key itself gets into an error."""
    try:
        public = _key(pem).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidCertificates(f"{what}: is no private key of ours") from None
    plain = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*plain) != certificate.public_key().public_bytes(*plain):
        raise InvalidCertificates(f"{what}: is another certificate's key")


def _identifier(authority: x509.Certificate) -> x509.SubjectKeyIdentifier | None:
    try:
        return authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    return frozenset(found.value.get_values_for_type(x509.DNSName))
