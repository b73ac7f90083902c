"""A certificate authority of a test's own, made by openssl(1)."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agent.kube.access import ClientCertificate, Pem


@dataclass(frozen=True, slots=True)
class Signed:
    certificate: Path
    key: Path

    def client(self) -> ClientCertificate:
        return ClientCertificate(Pem(file=self.certificate), Pem(file=self.key))


@dataclass(frozen=True, slots=True)
class Authority:
    directory: Path
    own: Signed

    def sign(self, name: str, names: str = "", group: str = "") -> Signed:
        """`name`: the subject; `names`: of a server, as openssl has them: `IP:127.0.0.1`; `group`: as an API server
        reads it, the organisation."""
        made = Signed(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        more = ("-addext", f"subjectAltName={names}") if names else ()
        by = ("-CA", str(self.own.certificate), "-CAkey", str(self.own.key))
        _request(made, name, group, *by, *more, "-addext", "basicConstraints=CA:FALSE")
        return made

    def server(self, signed: Signed, *, clients: bool = False, asks: bool = False) -> ssl.SSLContext:
        """`clients`: whether it wants to see their certificates, of this authority; `asks`: looks at what it is shown,
        and lets in who shows none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed.certificate, signed.key)
        if clients or asks:
            context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_OPTIONAL
            context.load_verify_locations(self.own.certificate)
        return context

    @property
    def pem(self) -> Pem:
        return Pem(file=self.own.certificate)


def authority(directory: Path) -> Authority:
    directory.mkdir()
    own = Signed(directory / "ca.crt", directory / "ca.key")
    _request(own, "test CA", "")
    return Authority(directory, own)


def _request(into: Signed, name: str, group: str, *words: str) -> None:
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    where = (
        "-subj",
        f"/O={group}/CN={name}" if group else f"/CN={name}",
        "-days",
        "2",
        "-out",
        str(into.certificate),
        "-keyout",
        str(into.key),
    )
    subprocess.run([*new, *where, *words], check=True, capture_output=True)
