"""A namespace without rules again, whichever tool made them."""

from typing import Final

from tests.netns.kernel.scratch import Scratch

_CHAINS: Final = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}


def clear(pod: Scratch) -> None:
    """Policies of iptables-legacy, which cannot take its tables away, are ACCEPT again."""
    pod.shell("nft", "flush", "ruleset")
    for names, tool in (("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")):
        used = pod.shell("cat", f"/proc/net/{names}").split()
        lines = [
            line
            for table in used
            for line in (f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in _CHAINS[table]), "COMMIT")
        ]
        text = "\n".join(lines)
        pod.shell("sh", "-c", f"exec {tool}-restore <<'END'\n{text}\nEND\n")
