"""The node's rules for probes (agent.plan.node_rules), in the namespace that the calling thread is in: the node's.

Blocking; one at a time. Raises KernelRefused, then nothing is changed; OSError when the namespace cannot be read.
"""

import contextlib
import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from agent.kernel import nft
from agent.kernel.refused import KernelRefused
from agent.plan import ProbeSettings
from agent.plan.node_rules import SETS, TABLE, Pods, change_script, install_script, remove_script
from agent.pods import IPAddress


@dataclass(frozen=True, slots=True)
class Held:
    """`whole`: sets and chains are as planned, whatever the sets hold: `pods`. `there`: a table of ours is."""

    there: bool
    whole: bool
    pods: Pods


def read(probes: ProbeSettings) -> Held:
    """Some 7 ms of a core with 250 pods of both families. The node's ruleset generation would be no sign of whether to
    look: kube-proxy moves it all the time."""
    listing = nft.list_table(TABLE)
    if listing is None:
        return Held(there=False, whole=False, pods={})
    whole = listing == nft.expected_listing(install_script(probes, {}), TABLE)
    pods: dict[IPAddress, str] = {}
    for name in SETS.values():
        pods.update(_elements(nft.list_json("set", "inet", TABLE, name)))
    return Held(True, whole, pods)


def put(probes: ProbeSettings, held: Held, wanted: Pods) -> None:
    """One transaction, from what was read to what is wanted; none where nothing differs. Refused, and to be read anew,
    where somebody changed it meanwhile."""
    script = change_script(held.pods, wanted) if held.whole else install_script(probes, wanted)
    if script:
        nft.apply(script)


def remove() -> bool:
    """Whether there was something. Makes no table in order to delete it: a node without nf_tables is left as it is."""
    try:
        there = TABLE in nft.tables()
    except PermissionError:
        raise
    except OSError:
        return False
    if there:
        nft.apply(remove_script())
    return there


def _elements(listed: str | None) -> dict[IPAddress, str]:
    """A set of another make, whose elements may be no addresses, shows in the listing: the table is made anew then."""
    found: dict[IPAddress, str] = {}
    try:
        items = json.loads(listed)["nftables"] if listed is not None else ()
    except ValueError as error:
        raise KernelRefused(f"nft list set inet {TABLE}", f"no JSON: {error}", "see nft's version") from error
    for item in items:
        for element in item.get("set", {}).get("elem", ()):
            with contextlib.suppress(ValueError):
                address, tag = _element(element)
                found[address] = tag
    return found


def _element(element: Any) -> tuple[IPAddress, str]:
    """Raises ValueError. An element without a comment is told as its bare value."""
    held = element.get("elem", {}) if isinstance(element, dict) else {"val": element}
    return ip_address(str(held.get("val"))), str(held.get("comment", ""))
