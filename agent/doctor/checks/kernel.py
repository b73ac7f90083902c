"""What the kernel must be able to do, what it may be able to do, and what is done instead. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import NODE, Facts, Features, Modules, Tried
from agent.doctor.findings import Finding, Severity

IDS: Final = {
    "nft-expressions": "nft expressions that redirection needs",
    "nft-optional": "nft expressions that some features need",
    "bpf": "bpf program types, sockmap",
    "cgroup-v2": "the unified cgroup tree",
}


def check(facts: Facts) -> Iterator[Finding]:
    features = facts.features
    if features is None:
        return
    yield from _needed(features)
    missing = [tried for tried in features.nft if not tried.needed and tried.complaint is not None]
    if missing:
        yield Finding(
            "nft-optional",
            Severity.INFO,
            NODE,
            f"nftables does without {_named(missing)}",
            f"not available: {'; '.join(dict.fromkeys(tried.purpose for tried in missing))}",
            _how_to_get(missing, features.modules),
        )
    yield from _bpf(features)
    if features.cgroup2 is None:
        yield Finding(
            "cgroup-v2",
            Severity.INFO,
            NODE,
            "no cgroup v2 tree is mounted",
            "bpf programs hang on it, and rules that match a cgroup: the paths `observe` and `splice` are not taken",
            "mount it (mount -t cgroup2 none /sys/fs/cgroup/unified), or boot with systemd.unified_cgroup_hierarchy=1",
        )


def _needed(features: Features) -> Iterator[Finding]:
    missing = [tried for tried in features.nft if tried.needed and tried.complaint is not None]
    usable = [name for name, reason in features.backends if reason is None]
    if missing:
        told = "; ".join(f"{tried.name}: {tried.complaint}" for tried in missing)
        instead = f"rules are made by {usable[0]} instead" if usable else "no backend is left: no pod can be steered"
        yield Finding(
            "nft-expressions",
            Severity.WARNING if usable else Severity.SERIOUS,
            NODE,
            f"nftables refuses what redirection needs ({told})",
            instead,
            _how_to_get(missing, features.modules),
        )
    elif not usable:
        told = "; ".join(f"{name}: {reason}" for name, reason in features.backends)
        yield Finding(
            "nft-expressions",
            Severity.SERIOUS,
            NODE,
            f"no backend can be used here ({told})",
            "no pod can be steered",
            "grant CAP_NET_ADMIN, load nf_tables on the node, or install iptables",
        )


def _bpf(features: Features) -> Iterator[Finding]:
    missing = [tried for tried in features.bpf if tried.complaint is not None]
    if not missing:
        return
    reasons = "; ".join(dict.fromkeys(str(tried.complaint) for tried in missing))
    yield Finding(
        "bpf",
        Severity.INFO,
        NODE,
        f"the kernel takes no {_named(missing)} ({reasons})",
        "the same policy, decided the same way, on the next dearer path: what could be measured or spliced in the "
        "kernel (`observe`, `splice`) is relayed by the proxy (`http`, `tcp`)",
        f"{_configs(missing)}; CAP_BPF and CAP_NET_ADMIN for the proxy; see kernel lockdown (/sys/kernel/security)",
    )


def _named(missing: list[Tried]) -> str:
    return ", ".join(tried.name for tried in missing)


def _how_to_get(missing: list[Tried], modules: Modules) -> str:
    """Modules that are there and only not loaded, else another kernel."""
    wanted = list(dict.fromkeys(tried.module for tried in missing))
    there = [name for name in wanted if name in modules.known]
    if there:
        return f"on the node: modprobe {' '.join(there)} (a container may not load them; see /etc/modules-load.d)"
    absent = "no module can be loaded for this kernel" if not modules.loadable else "no such module is installed"
    return f"{absent}: take a kernel with {_configs(missing)}"


def _configs(missing: list[Tried]) -> str:
    return ", ".join(dict.fromkeys(tried.config for tried in missing))
