"""A request put into effect, in the network namespace that the calling thread is in. Blocking."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.init.places import NET_ADMIN, NET_RAW, lacking, node_instead_of_pod
from agent.init.request import Action, InitRequest, families_of
from agent.kernel import backends
from agent.kernel.backends import Backend, Choice
from agent.kernel.iproute import read_addresses
from agent.kernel.refused import KernelRefused
from agent.plan import RedirectPlan, plan_of
from agent.plan.render.document import IPTABLES, NFT, plan_text
from agent.plan.steering import Steering
from agent.ruleset.clean import Removal, removal
from agent.ruleset.read import inventory
from agent.ruleset.remove import remove

_CLOSE_WAIT: Final = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")
_NEEDS: Final = {
    Backend.NFTABLES: (NET_ADMIN,),
    Backend.IPTABLES_NFT: (NET_ADMIN,),
    Backend.IPTABLES_LEGACY: (NET_ADMIN, NET_RAW),  # iptables(8) speaks through a raw socket: libiptc.c, TC_INIT
}


class InitFailed(Exception):
    """What was attempted, what was in the way, what to do. Nothing was half-applied; follow the remedy and retry."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what}: {where}; {remedy}")


@dataclass(frozen=True, slots=True)
class Done:
    """What is so now, in a line for people, and more lines that are worth knowing."""

    said: str
    notes: tuple[str, ...] = ()


def steering_here(request: InitRequest) -> Steering:
    """With the families that are steered in this namespace. Raises OSError when its addresses cannot be read."""
    return replace(request.steering, families=families_of(request.families, read_addresses()))


def dry_run(request: InitRequest, output: str | None) -> str:
    """The plan as text, or what would go; nothing is changed. `output` None: as the backend that would be used has it.

    Raises InvalidPlan, and what reading the namespace raises.
    """
    if request.action is Action.REMOVE:
        return "".join(f"would remove: {words}\n" for words in removal(inventory()).words)
    steering = steering_here(request)
    return plan_text(plan_of(steering, request.settings), output or _form(request.backend), steering.families)


def _form(wanted: Backend | None) -> str:
    if wanted is None:
        try:
            wanted = backends.choose(None).backend
        except (KernelRefused, OSError):  # who may change nothing may read the plan all the same
            return NFT
    return NFT if wanted is Backend.NFTABLES else IPTABLES


def perform(request: InitRequest, *, force: bool = False) -> Done:
    """Raises InvalidPlan, InitFailed, KernelRefused, OSError: whoever was steered before still is, as before."""
    if request.action is Action.NOTHING:
        return Done("no rule was touched, as was asked")
    if request.action is Action.REMOVE:
        return _removed(request)
    plan = plan_of(steering_here(request), request.settings)
    _refuse_node(force)
    _refuse_without((NET_ADMIN,) if request.backend is None else _NEEDS[request.backend])
    choice = backends.choose(request.backend)
    if request.close_wait_s is not None:
        _set_close_wait(request.close_wait_s)
    return _installed(plan, request, choice)


def _installed(plan: RedirectPlan, request: InitRequest, choice: Choice) -> Done:
    installed = backends.install(plan, request.settings, choice.backend)
    state = "installed" if installed.changed else "already in force"
    rules = f"{len(plan.all_rules)} rules, {choice.backend.value} ({choice.reason})"
    notes = (f"{family.value} is not steered: {reason}" for family, reason in installed.absent)
    return Done(f"{state}: {rules}", tuple(notes))


def _removed(request: InitRequest) -> Done:
    """In whichever backend, made by whichever words: what is ours, and nothing else."""
    _refuse_without((NET_ADMIN,))  # who may not look everywhere would say that nothing is there
    found = removal(inventory())
    remove(found)
    words = _in_short(found)
    for backend in sorted(backends.held(), key=lambda one: one.value):  # what only root is told of: legacy tables
        backends.remove(request.settings, backend)
        words.append(f"{backend.value} rules")
    said = f"removed: {'; '.join(words)}" if words else "nothing to remove: no rule of headgate's is here"
    return Done(said, tuple(f"kept: {what}" for what in found.kept))


def _in_short(found: Removal) -> list[str]:
    """`headgate init --cleanup --dry-run` tells it rule by rule."""
    tables = [f"nft table {family} {name}" for family, name in found.nft_tables]
    rest = ["return path"] if found.return_path else []
    return [
        *tables,
        *(f"{tool.value} rules" for tool in found.iptables),
        *rest,
        *(f"{address} on lo" for address in found.loopback_addresses),
    ]


# ── What must be so before anything is done ────────────────────────────────────────────────────────────────────────
def _refuse_node(force: bool) -> None:
    why = None if force else node_instead_of_pod()
    if why is not None:
        raise InitFailed(
            "refused to install rules",
            f"this network namespace is a node's, not a pod's: {why}",
            "a hostNetwork pod cannot be steered; on a machine that is meant as a whole, `headgate init --force`",
        )


def _refuse_without(capabilities: tuple[str, ...]) -> None:
    missing = lacking(capabilities)
    if missing:
        names = " and ".join(missing)
        raise InitFailed(
            "cannot change rules",
            f"this process lacks {names}",
            "add NET_ADMIN and NET_RAW to the init container's securityContext.capabilities; a user other than root "
            "has them only if the program's file or the runtime gives them (setcap, ambient capabilities)",
        )


def _set_close_wait(seconds: int) -> None:
    try:
        _CLOSE_WAIT.write_text(f"{seconds}\n")
    except OSError as error:
        raise InitFailed(
            f"cannot set net.netfilter.nf_conntrack_tcp_timeout_close_wait to {seconds}",
            error.strerror or str(error),
            "the init container must run as root and privileged, for /proc/sys to be writable; or leave the flag out",
        ) from None
