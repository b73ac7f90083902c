"""What this namespace holds beside what it is to hold, for who may not make another namespace to compare with.

An init container has CAP_NET_ADMIN in its own namespace and no CAP_SYS_ADMIN: unshare(2) is refused, and with it the
scratch namespace of agent.kernel.held. So the plan is loaded here, beside the tables in force, as a dormant copy under
other names, listed by the same tool and taken away: a dormant table hooks nothing (nf_tables_api.c:
nf_tables_table_disable), no packet meets it. Listings are compared, which a comment with a line break in it could
deceive; who may make a namespace compares the kernel's messages instead.
"""

from contextlib import suppress
from typing import Final

from agent.kernel import iproute, nft
from agent.kernel.refused import KernelRefused
from agent.plan import RedirectPlan
from agent.plan.drift import Form, describe, describe_return_path, limited
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, drain_script, install_script

COPIES: Final = {TABLE: "headgate-copy", ANCHOR_TABLE: "headgate-anchor-copy"}
"""By the table's own name. Made for the moment of a comparison; what a killed process left is ours, and harmless."""
_DORMANT: Final = "\tflags dormant\n"


def changes_here(plan: RedirectPlan, form: Form = Form.STEERING) -> tuple[str, ...]:
    """What differs from the plan, in words; empty when it is in force. Raises KernelRefused or OSError; what was in
    force stays so."""
    expected = _listings(install_script(plan, (), replace=False) if form is Form.STEERING else drain_script(plan))
    changes: list[str] = []
    for table, listing in expected.items():
        changes += describe(listing, nft.list_table(table), f"inet {table}")
    path = plan.return_path
    return limited((*changes, *describe_return_path(path, iproute.missing_return_path(path))))


def _listings(script: str) -> dict[str, str]:
    """How the tables that the script makes are listed, by their own names."""
    remove_copies()  # a killed process's: else this would append to them
    nft.apply(_as_copies(script))
    try:
        return {table: _as_itself(table, nft.list_table(copy) or "") for table, copy in COPIES.items()}
    finally:
        with suppress(KernelRefused):  # the reason for being here matters more; the next comparison removes them
            remove_copies()


def remove_copies() -> None:
    """Absence is no error. Raises KernelRefused."""
    nft.apply("".join(f"add table inet {copy}\ndelete table inet {copy}\n" for copy in COPIES.values()))


def _as_copies(script: str) -> str:
    """Only the definitions of the script's two tables: what it says of tables in force must not be done to them."""
    lines = [line for line in script.splitlines(keepends=True) if not line.startswith(("create ", "add ", "delete "))]
    body = "".join(lines)
    for table, copy in COPIES.items():
        body = body.replace(f"table inet {table} {{\n", f"table inet {copy} {{\n{_DORMANT}", 1)
    return body


def _as_itself(table: str, listing: str) -> str:
    return listing.replace(f"table inet {COPIES[table]} {{\n{_DORMANT}\n", f"table inet {table} {{\n", 1)
