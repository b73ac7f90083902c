"""From what iptables-save showed to what is wanted: text for iptables-restore --noflush, one transaction a table.

Only our chains and our jumps are named: what others have in the same tables is neither read back nor written. A table
in which nothing differs is left out, so that its counters go on.
"""

from collections.abc import Iterable, Mapping, Sequence

from agent.plan.iptables_saved import (
    SavedTable,
    is_of_guard,
    of_our_words,
    ours,
    same,
    same_entries,
    without_guard,
)
from agent.plan.render.iptables import Chain, Entry, Table, entry_lines

_EMPTY = Table("", (), ())


def change_text(wanted: Sequence[Table], saved: Mapping[str, SavedTable], *, rewrite: bool = False) -> str:
    """All of ours but the guard becomes what is wanted. `rewrite`: also where the meaning is the same, which is for
    putting back the connections that are older than the rules."""
    expected = {table.name: table for table in wanted}
    texts = []
    for name in dict.fromkeys((*expected, *saved)):
        found = without_guard(ours(saved[name])) if name in saved else Table(name, (), ())
        want = expected.get(name, Table(name, (), ()))
        if rewrite or not same(want, found):
            texts.append(_table_text(want, found))
    return "".join(texts)


def guard_text(guard: Table, saved: Mapping[str, SavedTable]) -> str:
    """The guard, in place of whatever is left of another one."""
    return _table_text(guard, _guard_in(saved)) if guard.chains else ""


def unguard_text(saved: Mapping[str, SavedTable]) -> str:
    """Nothing is left of any guard."""
    return _table_text(Table("filter", (), ()), _guard_in(saved))


def _guard_in(saved: Mapping[str, SavedTable]) -> Table:
    found = ours(saved["filter"]) if "filter" in saved else _EMPTY
    rest = without_guard(found)
    chains = tuple(chain for chain in found.chains if chain not in rest.chains)
    return Table("filter", chains, tuple(entry for entry in found.entries if is_of_guard(entry)))


def _table_text(want: Table, found: Table) -> str:
    """Chains first, because jumps name them; old jumps go before the chains that they lead to."""
    obsolete = [chain.name for chain in found.chains if chain.name not in {chain.name for chain in want.chains}]
    keep = _kept(want.entries, found.entries)
    lines = [
        *(f":{name} - [0:0]\n" for name in (*(chain.name for chain in want.chains), *obsolete)),
        *_rules(want.chains),
        *(f"-D {entry.builtin} {entry.spec}\n" for entry in found.entries if entry.builtin not in keep),
        *entry_lines(entry for entry in want.entries if entry.builtin not in keep),
        *(f"-X {name}\n" for name in obsolete),
    ]
    return f"*{want.name}\n{''.join(lines)}COMMIT\n" if lines else ""


def _rules(chains: Iterable[Chain]) -> list[str]:
    """When what was there is put back, what somebody else had put into a chain of ours is not."""
    return [f"-A {chain.name} {rule}\n" for chain in chains for rule in chain.rules if of_our_words(rule)]


def _kept(want: Sequence[Entry], found: Sequence[Entry]) -> set[str]:
    """Built-in chains whose jumps stay where they are, before or behind other people's rules."""
    builtins = {entry.builtin for entry in (*want, *found)}
    return {
        builtin
        for builtin in builtins
        if same_entries(
            (entry for entry in want if entry.builtin == builtin),
            (entry for entry in found if entry.builtin == builtin),
        )
    }
