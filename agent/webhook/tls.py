"""The certificate that is presented, exchanged while connections live."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.webhook.certificates import InvalidCertificates

_NAME: Final = "headgate-webhook-certificate"


class Presented:
    """`context` stays the same: new connections take what was loaded last (SSL_CTX_use_certificate(3))."""

    def __init__(self) -> None:
        self.context = _context()

    def load(self, certificate: str, key: str) -> None:
        """Raises InvalidCertificates; what was presented before still is."""
        with _in_memory(certificate + key) as path:
            try:
                _context().load_cert_chain(path)  # tried, for half of a pair would stay
                self.context.load_cert_chain(path)
            except ssl.SSLError as error:
                raise InvalidCertificates(f"OpenSSL takes no such certificate: {error.reason}") from error


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """OpenSSL takes both from files only: one that no disk and no other process ever has (memfd_create(2))."""
    descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode("ascii"))
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
