"""What a kubelet asks a runtime for: values, as the CRI's messages have them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.netns.containerd import image


@dataclass(frozen=True, slots=True)
class Pod:
    """`attempt`: of the same pod the sandboxes are counted (B48). `log_directory`: of its containers; none without.
    `systemd`: its cgroups are named as that driver of the kubelet's does it."""

    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0
    host_network: bool = False
    log_directory: str = ""
    systemd: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """`follows`: HostToContainer, what is mounted there later is seen too."""

    host: str
    at: str
    readonly: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Security:
    """Of a container: by default as restricted as one is that asks for nothing. `user`: None is the image's."""

    user: int | None = None
    capabilities: tuple[str, ...] = ()
    drop_all: bool = False
    readonly_root: bool = False
    no_new_privs: bool = False
    seccomp: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """`words`: its command and arguments; empty is the image's own, with `arguments` behind it."""

    name: str
    words: tuple[str, ...]
    image: str = image.NAME
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    security: Security = Security()


@dataclass(frozen=True, slots=True)
class Sandbox:
    id: str
    addresses: tuple[str, ...]
