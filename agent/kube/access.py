"""Where an API server is and who the agent is there. Values; reading files and running programs is others' work."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate or key: as text, or in a file that may be replaced while the agent runs."""

    text: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: as text, or in a file that the kubelet renews (the projected one before its hour is over)."""

    text: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    certificate: Pem
    key: Pem


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A program that prints an ExecCredential (client.authentication.k8s.io): `aws`, `gke-gcloud-auth-plugin` …

    `command` with a slash is relative to the kubeconfig's directory, as kubectl has it. `hint`: installHint.
    """

    command: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    api_version: str
    hint: str = ""
    gives_cluster: bool = False


Credentials = Token | ClientCertificate | ExecPlugin | None
"""None: anonymous."""


@dataclass(frozen=True, slots=True)
class Access:
    """`server`: https://HOST[:PORT][/PATH]. `ca` None: the machine's own roots. `server_name`: for the certificate,
    when it is not the host's. `origin`: in words, for messages."""

    server: str
    credentials: Credentials
    ca: Pem | None = None
    server_name: str = ""
    insecure: bool = False
    namespace: str = "default"
    origin: str = ""
