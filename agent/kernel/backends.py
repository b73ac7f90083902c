"""One plan, put in force by whichever mechanism the kernel and the namespace have.

All act in the network namespace that the calling thread is in, one at a time there (agent.kernel.netns_lock), and
block. Raises, of all that change or read something: KernelRefused, with what was attempted and the remedy, when the
kernel or a tool refuses: nothing is half-applied then; OSError when the namespace cannot be read.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from agent.kernel import held as nft_held
from agent.kernel import held_here, iproute, iptables, iptables_tools, nft, outside
from agent.kernel.iptables_tools import Variant
from agent.kernel.netns_lock import locked
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import FlowKey, IPFamily, PlanSettings, RedirectPlan, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.iptables_saved import foreign_rules
from agent.plan.render.nft import (
    ANCHOR_TABLE,
    SLIPPED,
    TABLE,
    drain_script,
    grandfather_script,
    install_script,
    remove_script,
    set_names,
)


class Backend(Enum):
    """Values are what a flag says."""

    NFTABLES = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


_VARIANT: Final = {Backend.IPTABLES_NFT: Variant.NFT, Backend.IPTABLES_LEGACY: Variant.LEGACY}
_CAPABILITIES: Final = (("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13))  # linux/capability.h
_NFT_TABLES: Final = (ANCHOR_TABLE, TABLE)


@dataclass(frozen=True, slots=True)
class Choice:
    """`reason`: why this one, in an operator's words, and what is worth knowing beside."""

    backend: Backend
    reason: str


@dataclass(frozen=True, slots=True)
class Installed:
    """`changed` False: the plan was in force, and nothing was touched. `absent`: a family that this namespace or this
    machine cannot have, and why; it is not steered, and no error unless it was asked for."""

    changed: bool
    absent: tuple[tuple[IPFamily, str], ...] = ()


# ── Which one ──────────────────────────────────────────────────────────────────────────────────────────────────────
def choose(wanted: Backend | None = None) -> Choice:
    """`wanted`, if it can be used; else what holds rules of ours already; else the first that works of nft,
    iptables-nft, iptables-legacy. Raises KernelRefused when none does, or `wanted` does not, with the reasons."""
    candidates = tuple(Backend) if wanted is None else (wanted,)
    unusable = {backend: why for backend in candidates if (why := unusable_because(backend)) is not None}
    usable = [backend for backend in candidates if backend not in unusable]
    if not usable:
        told = "; ".join(f"{backend.value}: {why}" for backend, why in unusable.items())
        raise KernelRefused(
            "choosing a backend", told, "grant CAP_NET_ADMIN, load nf_tables on the node, or install iptables"
        )
    if wanted is not None:
        return Choice(wanted, "asked for")
    ours = held()
    for backend in usable:
        if backend in ours:
            return Choice(backend, f"{backend.value} holds rules of ours already{_beside(backend)}")
    passed_over = candidates[: candidates.index(usable[0])]
    reason = "; ".join(f"{backend.value} cannot be used: {unusable[backend]}" for backend in passed_over)
    return Choice(usable[0], f"{reason or 'the first that works'}{_beside(usable[0])}")


def unusable_because(backend: Backend) -> str | None:
    """Why the backend cannot be used here; None when it can, as far as can be told without changing anything."""
    if missing := _missing_capabilities(backend):
        return f"{missing} is missing"
    if backend is not Backend.NFTABLES:
        return iptables_tools.missing(_VARIANT[backend], IPFamily.IPV4) or _no_nf_tables(backend)
    return nft.complaint(install_script(plan_of(Steering(), PlanSettings()), (), replace=True))


def _missing_capabilities(backend: Backend) -> str:
    """Of the calling thread, in its own user namespace; legacy speaks to the kernel through a raw socket."""
    needed = _CAPABILITIES if backend is Backend.IPTABLES_LEGACY else _CAPABILITIES[:1]
    status = Path("/proc/thread-self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return ", ".join(name for name, bit in needed if not effective >> bit & 1)


def _no_nf_tables(backend: Backend) -> str | None:
    if backend is Backend.IPTABLES_LEGACY:
        return None
    try:
        nft.tables()
    except OSError as error:
        return f"nf_tables does not answer ({error.strerror})"
    return None


def _beside(backend: Backend) -> str:
    """Other people's rules in the tables of the old iptables, which meet each packet beside ours."""
    if backend is Backend.IPTABLES_LEGACY:
        return ""
    used = [family for family in IPFamily if iptables_tools.legacy_used(family)]
    number = sum(foreign_rules(iptables.read(Variant.LEGACY, family)) for family in used)
    return f"; {number} rules of others are in iptables-legacy" if number else ""


def held() -> frozenset[Backend]:
    """Which backends hold something of ours here. Makes nothing: a table of iptables-legacy, once asked for, stays."""
    found = {backend for backend, variant in _VARIANT.items() if iptables.held(variant)}
    return frozenset(found | {Backend.NFTABLES} if _nft_held() else found)


# ── Into force ─────────────────────────────────────────────────────────────────────────────────────────────────────
def install(
    plan: RedirectPlan,
    settings: PlanSettings,
    backend: Backend,
    grandfathered: Collection[FlowKey] | None = None,
    *,
    ipv6_required: bool = False,
) -> Installed:
    """Puts the plan in force, and takes away what another backend holds of ours.

    `grandfathered`: connections that are older than the rules and live on; None: whichever are found outside the mesh.
    `ipv6_required`: refused when IPv6 cannot be steered; else that is told in the result.
    """
    variant = _VARIANT.get(backend)
    if ipv6_required and variant is not None and (why := iptables_tools.missing(variant, IPFamily.IPV6)) is not None:
        raise KernelRefused(f"{backend.value} for IPv6", why, "install ip6tables, or do not ask for IPv6")

    others = held() - {backend}
    added = iproute.ensure_loopback_addresses(plan.loopback_addresses)
    try:
        if variant is None:
            installed = Installed(_install_nft(plan, settings, grandfathered))
        else:
            applied = iptables.apply(variant, plan, Form.STEERING, lambda: _older(settings, grandfathered))
            installed = Installed(applied.changed, applied.absent)
        for other in sorted(others, key=lambda other: other.value):
            remove_rules(other)
    except BaseException:
        iproute.remove_loopback_addresses(added)
        raise
    return Installed(installed.changed or bool(added or others), installed.absent)


def _older(settings: PlanSettings, told: Collection[FlowKey] | None) -> frozenset[FlowKey]:
    return outside.read(settings) if told is None else frozenset(told)


def _install_nft(plan: RedirectPlan, settings: PlanSettings, told: Collection[FlowKey] | None) -> bool:
    """Whether anything was changed. In the order of agent.supervisor.inside, which also counts what was lost meanwhile:
    the return path first, the sockets before and after the transaction."""
    with locked():
        there = bool(nft.tables() & set(_NFT_TABLES))
        if there and not _nft_changes(plan):
            return False
        iproute.ensure_return_path(plan.return_path)
        before = _older(settings, told)
        slipped = before & _nft_slipped()
        try:
            nft.apply(install_script(plan, before - slipped, replace=there, slipped=slipped))
        except BaseException:
            if not there:
                iproute.remove_return_path(plan.return_path)
            raise
        late = outside.read_later(before, settings) if told is None else frozenset()
        if late:
            nft.apply(grandfather_script(late))
    return True


def _nft_slipped() -> frozenset[FlowKey]:
    """Of the connections known to be outside, those that are no older than the rules."""
    found = ((nft.connections(name) or {}).items() for name in set_names())
    return frozenset(flow for flows in found for flow, comment in flows if comment == SLIPPED)


# ── Out of force ───────────────────────────────────────────────────────────────────────────────────────────────────
def remove(plan: RedirectPlan | PlanSettings, backend: Backend) -> None:
    """Takes away all that is ours in that backend, with the return path; what is absent is well."""
    if isinstance(plan, PlanSettings):
        plan = plan_of(plan.defaults, plan)
    remove_rules(backend)
    iproute.remove_return_path(plan.return_path)  # behind the rules, whose marks it serves
    iproute.remove_loopback_addresses(plan.loopback_addresses)


def drain(plan: RedirectPlan, backend: Backend) -> None:
    """Captures nothing more; living steered connections keep their translation."""
    variant = _VARIANT.get(backend)
    if variant is not None:
        iptables.apply(variant, plan, Form.DRAIN, frozenset)
        return
    with locked():
        if nft.tables() & set(_NFT_TABLES) and not _nft_changes(plan, Form.DRAIN):
            return
        iproute.ensure_return_path(plan.return_path)
        nft.apply(drain_script(plan))


def remove_rules(backend: Backend) -> None:
    """What that backend holds of ours, without the return path; what is absent is well."""
    variant = _VARIANT.get(backend)
    if variant is not None:
        iptables.remove(variant)
    elif _nft_held():
        with locked():
            nft.apply(remove_script())


# ── What there is ──────────────────────────────────────────────────────────────────────────────────────────────────
def in_force(plan: RedirectPlan, backend: Backend) -> bool:
    """The namespace holds exactly the plan, in its steering form."""
    return not changes(plan, backend)


def changes(plan: RedirectPlan, backend: Backend) -> tuple[str, ...]:
    """What differs from the plan in its steering form, in words; empty when it is in force."""
    variant = _VARIANT.get(backend)
    found = _nft_changes(plan) if variant is None else iptables.changes(variant, plan)
    missing = iproute.missing_loopback_addresses(plan.loopback_addresses)
    return (*found, *(f"address {address} of lo is missing" for address in missing))


def counters(backend: Backend) -> tuple[RuleCounter, ...]:
    """Of each rule of ours, by its id; what several rules of a backend make up together is added up."""
    variant = _VARIANT.get(backend)
    if variant is not None:
        return iptables.counters(variant)
    return tuple(counter for table in _NFT_TABLES for counter in nft.list_counters(table))


def _nft_held() -> bool:
    try:
        return bool(nft.tables() & set(_NFT_TABLES))
    except PermissionError:
        raise
    except OSError:  # no nf_tables in this kernel
        return False


def _nft_changes(plan: RedirectPlan, form: Form = Form.STEERING) -> tuple[str, ...]:
    try:
        return nft_held.compare(nft_held.expectation(plan, form)).changes
    except PermissionError:  # no namespace can be made to compare with
        return held_here.changes_here(plan, form)
    except FileNotFoundError:
        return ("a table went while it was read",)
