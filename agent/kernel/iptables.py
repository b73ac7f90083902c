"""A plan put in force by iptables-restore, inside the namespace that the calling thread is in. Blocking.

iptables is atomic within one table of one family. A plan has four tables of two families, so what the plan would
capture is dropped meanwhile by a guard chain, which goes when all has been read back and found as it is to be:

    guard v4, v6 → older connections read → rules v4 → rules v6 → read back, compared → guard away

Refused anywhere: everything of ours is put back as it was, then the guard goes. Killed anywhere: the guard stays, the
namespace fails closed, and the next change begins from what it finds. What others have in the tables is never written.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.kernel import iproute, iptables_base, iptables_tools
from agent.kernel.iptables_base import Present
from agent.kernel.iptables_tools import Variant
from agent.kernel.netns_lock import locked
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.plan import FlowKey, IPFamily, RedirectPlan
from agent.plan.drift import Form, describe_return_path, limited
from agent.plan.iptables_saved import SavedTable, describe, holds_ours, ours, parse, rule_id, without_guard
from agent.plan.render.iptables import ENTRY_WORD, Table, guard_of, tables_of, with_older
from agent.plan.render.iptables_change import change_text, guard_text, unguard_text

Saved = Mapping[str, SavedTable]
Step = Callable[[str], None]

_TOOL: Final = {IPFamily.IPV4: "iptables", IPFamily.IPV6: "ip6tables"}
_NOTHING: Final = Present(frozenset(), {}, frozenset())


@dataclass(frozen=True, slots=True)
class Applied:
    """`absent`: families that this machine or namespace cannot have, and why."""

    changed: bool
    absent: tuple[tuple[IPFamily, str], ...]


def no_step(name: str) -> None:
    """Called before each step that changes something; tests end the process there."""


def apply(
    variant: Variant,
    plan: RedirectPlan,
    form: Form,
    grandfathered: Callable[[], Collection[FlowKey]],
    step: Step = no_step,
) -> Applied:
    """Puts that form of the plan in force; what is in force already is not touched, counters and all.

    `grandfathered` is asked while the guard stands: nothing that would be captured can open in between.
    Raises KernelRefused: everything is as it was. OSError when the namespace cannot be read.
    """
    absent = _absent(variant)
    with locked() as lock:
        before = {family: read(variant, family) for family in IPFamily if family not in absent}
        if not _differences(plan, form, before):
            return Applied(False, tuple(absent.items()))
        change = _Change(variant, plan, form, before, _present(variant), lock, step)
        try:
            change.make(grandfathered)
        except BaseException as error:
            trouble = change.undo()
            if trouble is None or not isinstance(error, KernelRefused):
                raise
            told = f"{error.stderr}; and it could not be undone ({trouble}): new connections are dropped until it is"
            raise KernelRefused(error.command, told, f"{error.remedy}; then try again") from error
    return Applied(True, tuple(absent.items()))


def remove(variant: Variant, step: Step = no_step) -> None:
    """All rules of ours go; absence is no error. Raises KernelRefused; repeat then."""
    with locked() as lock:
        for family in IPFamily:
            saved = read(variant, family)
            text = change_text((), saved) + unguard_text(saved)
            if text:
                step(f"remove {_TOOL[family]}")
                iptables_tools.restore(variant, family, text, lock)
                step(f"sweep {_TOOL[family]}")
                _sweep(variant, family, (saved,), {})


def changes(variant: Variant, plan: RedirectPlan, form: Form = Form.STEERING) -> tuple[str, ...]:
    """What differs from the plan, in words; empty when it is in force. Raises KernelRefused or OSError."""
    absent = _absent(variant)
    return _differences(plan, form, {family: read(variant, family) for family in IPFamily if family not in absent})


def counters(variant: Variant) -> tuple[RuleCounter, ...]:
    """By rule of the plan, both families and all parts of it together; in the order in which they are met."""
    totals: dict[str, tuple[int, int]] = {}
    for family in IPFamily:
        for table in read(variant, family, counters=True).values():
            for rule in table.rules:
                identity = rule_id(rule.spec)
                if identity is not None and not identity.startswith(ENTRY_WORD):
                    packets, octets = totals.get(identity, (0, 0))
                    totals[identity] = packets + rule.packets, octets + rule.bytes
    return tuple(RuleCounter(identity, *total) for identity, total in totals.items())


def held(variant: Variant) -> bool:
    """Whether something of ours is there; nothing is loaded or made to find out, but by who may not read which legacy
    tables there are (no root): better empty tables than two sets of rules. Raises KernelRefused or OSError."""
    if variant is Variant.NFT:
        try:
            return bool(iptables_base.present().ours)
        except PermissionError:
            raise
        except OSError:  # no nf_tables in this kernel
            return False
    used = [family for family in IPFamily if iptables_tools.legacy_used(family) is not False]
    return any(holds_ours(read(variant, family)) for family in used)


def read(variant: Variant, family: IPFamily, *, counters: bool = False) -> dict[str, SavedTable]:
    """All tables by name; none where the family's tools are missing. Raises KernelRefused."""
    return parse(iptables_tools.save(variant, family, counters=counters) or "")


class _Change:
    """One change under way: what was there before, and what of it has been begun."""

    __slots__ = ("_before", "_form", "_lock", "_plan", "_step", "_there", "_variant")

    def __init__(
        self,
        variant: Variant,
        plan: RedirectPlan,
        form: Form,
        before: Mapping[IPFamily, Saved],
        there: Present,
        lock: int,
        step: Step,
    ) -> None:
        self._variant = variant
        self._plan = plan
        self._form = form
        self._before = before
        self._there = there
        self._lock = lock
        self._step = step

    def make(self, grandfathered: Callable[[], Collection[FlowKey]]) -> None:
        if self._form is Form.STEERING:
            for family, saved in self._before.items():
                guard = self._noted((guard_of(self._plan, family),), family)[0]
                self._restore("guard", family, guard_text(guard, saved))
        # The return path before the marks that need it.
        self._step("return path")
        iproute.ensure_return_path(self._plan.return_path)
        flows = grandfathered() if self._form is Form.STEERING else ()
        for family, saved in self._before.items():
            wanted = self._noted(with_older(tables_of(self._plan, self._form, family), flows, family), family)
            self._restore("rules", family, change_text(wanted, saved))
        after = {family: read(self._variant, family) for family in self._before}
        self._step("compare")
        self._compare(after)
        for family, saved in after.items():
            self._finish(family, saved, saved)

    def undo(self) -> str | None:
        """As it was. Returns why not; then the guard stays, and the namespace is closed."""
        try:
            for family, saved in self._before.items():
                now = read(self._variant, family)
                then = tuple(ours(table) for table in saved.values())
                self._restore("undo", family, change_text(then, now, rewrite=True))
                self._finish(family, now, read(self._variant, family))
            if not any(map(holds_ours, self._before.values())):
                iproute.remove_return_path(self._plan.return_path)
        except (KernelRefused, OSError) as error:
            return str(error)
        return None

    def _compare(self, after: Mapping[IPFamily, Saved]) -> None:
        found: list[str] = []
        for family, saved in after.items():
            wanted = tables_of(self._plan, self._form, family)
            found += describe(wanted, saved, _TOOL[family], guard_stands=True)
        if found:
            name = f"iptables-{self._variant.value}-save"
            told = f"the rules read back are not those that were written: {'; '.join(limited(found))}"
            raise KernelRefused(name, told, "somebody else changes the tables at the same time, or a fault of the plan")

    def _finish(self, family: IPFamily, most: Saved, now: Saved) -> None:
        """The guard goes, and what was made for jumps that are gone: those before the change, and when most stood."""
        self._restore("unguard", family, unguard_text(now))
        left = {name: without_guard(ours(table)) for name, table in now.items()}
        _sweep(self._variant, family, (self._before[family], most), left)

    def _restore(self, what: str, family: IPFamily, text: str) -> None:
        if text:
            self._step(f"{what} {_TOOL[family]}")
            iptables_tools.restore(self._variant, family, text, self._lock)

    def _noted(self, tables: Sequence[Table], family: IPFamily) -> tuple[Table, ...]:
        if self._variant is Variant.LEGACY:
            return tuple(tables)
        return iptables_base.noted(tables, family, self._before[family], self._there)


def _absent(variant: Variant) -> dict[IPFamily, str]:
    """Raises KernelRefused when IPv4 is among them: nothing can be done then."""
    absent = {family: why for family in IPFamily if (why := iptables_tools.missing(variant, family)) is not None}
    if IPFamily.IPV4 in absent:
        name = f"iptables-{variant.value}"
        raise KernelRefused(
            name, absent[IPFamily.IPV4], "install the iptables package in the image, or use --backend nft"
        )
    return absent


def _present(variant: Variant) -> Present:
    return iptables_base.present() if variant is Variant.NFT else _NOTHING


def _differences(plan: RedirectPlan, form: Form, saved: Mapping[IPFamily, Saved]) -> tuple[str, ...]:
    found: list[str] = []
    for family, tables in saved.items():
        found += describe(tables_of(plan, form, family), tables, _TOOL[family])
    found += describe_return_path(plan.return_path, iproute.missing_return_path(plan.return_path))
    return limited(found)


def _sweep(variant: Variant, family: IPFamily, earlier: Sequence[Saved], left: Mapping[str, Table]) -> None:
    """Takes away what was made for jumps that stood there earlier and no longer do. `left`: what is ours now."""
    if variant is Variant.LEGACY:
        return
    kept = {(name, one.builtin) for name, table in left.items() for one in table.entries}
    gone = {(name, one) for saved in earlier for name, table in saved.items() for one in table.our_entries}
    iptables_base.sweep(family, [(name, one) for name, one in gone if (name, one.builtin) not in kept])
