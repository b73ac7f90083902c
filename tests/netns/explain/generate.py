"""Rulesets and packets, all of one seed: the same on every machine and in every run."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from agent.explain.packet import Packet
from agent.plan import IPFamily, PlanSettings, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.ranges import Ranges
from agent.plan.render import iptables, nft
from agent.plan.steering import Owners
from tests.netns.explain.generate_iptables import IptablesText
from tests.netns.explain.generate_nft import NftTable
from tests.netns.explain.universe import packet

PEERS: Final = Path(__file__).parent / "peers"
PACKETS: Final = 25
"""A ruleset's: its loading takes as long as some hundred packets."""
_KINDS: Final = ("nft", "iptables-nft", "iptables-legacy", "mixture")
_SHARES: Final = (35, 25, 22, 18)
_OURS: Final = {
    "headgate_node": PlanSettings(),
    "headgate_sidecar": PlanSettings(owners=Owners(uids=Ranges.of(1337))),
}
_EACH: Final = 4
"""Every fourth ruleset is a peer's."""


@dataclass(frozen=True, slots=True)
class Script:
    """`tool`: nft, or the one whose `-restore` takes the text."""

    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """`maker`: of whose kind the rules are, as the tally counts them."""

    seed: int
    maker: str
    scripts: tuple[Script, ...]
    packets: tuple[Packet, ...]


def case(seed: int) -> Case:
    rng = Random(seed)
    if seed % _EACH == 0:
        maker, scripts, zoned = _peers(seed // _EACH)
    else:
        maker, scripts, zoned = _made(rng, rng.choices(_KINDS, _SHARES)[0])
    return Case(seed, maker, scripts, tuple(packet(rng, established=not zoned) for _ in range(PACKETS)))


def _made(rng: Random, kind: str) -> tuple[str, tuple[Script, ...], bool]:
    scripts: list[Script] = []
    zoned = False
    if kind in ("nft", "mixture"):
        for number in range(rng.choice((1, 1, 2)) if kind == "nft" else 1):
            family = rng.choices(("inet", "ip", "ip6"), (60, 25, 15))[0]
            table = NftTable(rng, family, f"t{number}", catching=1.0)
            zoned |= table.zoned
            scripts.append(Script("nft", table.text))
    for make in ("nft", "legacy"):
        if kind not in (f"iptables-{make}", "mixture") or (kind == "mixture" and rng.random() < 0.4):
            continue
        for version, tool in ((4, "iptables"), (6, "ip6tables")):
            text = IptablesText(rng, version, catching=1.0 if kind != "mixture" else 0.5)
            zoned |= text.zoned
            scripts.append(Script(f"{tool}-{make}", text.text))
    return kind, tuple(scripts), zoned


def peers() -> tuple[str, ...]:
    """Ours among them."""
    files = {file.stem for file in PEERS.iterdir() if file.suffix in (".nft", ".iptables")}
    return (*_OURS, *sorted(files))


def _ours(name: str, make: str) -> tuple[str, tuple[Script, ...], bool]:
    settings = _OURS[name]
    plan = plan_of(Steering(), settings)
    if make == "nft":
        return f"{name} (nft)", (Script("nft", nft.install_script(plan, (), replace=False)),), False
    scripts = tuple(
        Script(
            f"{tool}-{make.partition('-')[2]}", iptables.restore_text(iptables.tables_of(plan, Form.STEERING, family))
        )
        for tool, family in (("iptables", IPFamily.IPV4), ("ip6tables", IPFamily.IPV6))
    )
    return f"{name} ({make})", scripts, False


def _peers(turn: int) -> tuple[str, tuple[Script, ...], bool]:
    """One peer's rules as they are, IPv6's beside IPv4's where it has some; each in turn, with each tool in turn."""
    names = peers()
    name = names[turn % len(names)]
    if name in _OURS:
        return _ours(name, ("nft", "iptables-nft", "iptables-legacy")[turn // len(names) % 3])
    files = sorted(PEERS.glob(f"{name}.*"))
    tables = [file for file in files if file.suffix == ".nft"]
    texts = [file for file in files if file.suffix != ".nft"]
    makes = ["nft"] * bool(tables) + ["iptables-nft", "iptables-legacy"] * bool(texts)
    make = makes[turn // len(names) % len(makes)]
    if make == "nft":
        return f"{name} (nft)", (Script("nft", tables[0].read_text()),), False
    scripts = tuple(Script(f"{file.suffix[1:]}-{make.partition('-')[2]}", file.read_text()) for file in texts)
    return f"{name} ({make})", scripts, False
