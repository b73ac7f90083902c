"""B53: others' rules that write the bits of a mark that ours go by are found, by whichever tool they were made."""

from collections.abc import Callable

import pytest

from agent.kernel import held, iproute, nft
from agent.lab.namespaces import Netns
from agent.plan import PlanSettings, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.render.nft import install_script

PLAN = plan_of(Steering(), PlanSettings())


def _nft(rule: str, chain_type: str = "filter", hook: str = "output") -> list[str]:
    head = f"type {chain_type} hook {hook} priority 10;"
    return ["nft", f"table ip others {{ chain theirs {{ {head}\n{rule}\n}}\n}}"]


def _iptables(*words: str) -> list[str]:
    return ["iptables-nft", "-t", "mangle", "-A", "OUTPUT", *words]


def _foreign(netns: Netns) -> tuple[str, ...]:
    netns.call(iproute.ensure_return_path, PLAN.return_path)
    netns.call(nft.apply, install_script(PLAN, (), replace=False))
    found = netns.call(held.compare, held.expectation(PLAN, Form.STEERING))
    assert found.changes == ()
    return found.foreign


@pytest.mark.parametrize(
    ("command", "told"),
    [
        pytest.param(_nft("meta mark set 0x10000"), "0xfff of the packet mark", id="nft-set"),
        pytest.param(_nft("meta mark set meta mark | 0x10"), "0x10 of the packet mark", id="nft-or"),
        pytest.param(_nft("meta mark set meta mark & 0xfffff0ff"), "0xf00 of the packet mark", id="nft-and"),
        pytest.param(_nft("ct mark set ct mark ^ 0x1"), "0x1 of the connection mark", id="nft-connection"),
        pytest.param(_nft("ct mark set meta mark"), "0xfff of the connection mark", id="nft-copy"),
        pytest.param(_iptables("-j", "MARK", "--set-xmark", "0x539/0xfff"), "0xfff of the packet mark", id="iptables"),
        pytest.param(
            _iptables("-j", "CONNMARK", "--set-xmark", "0x111/0xff0"), "0xff1 of the connection mark", id="iptables-ct"
        ),
        pytest.param(
            _iptables("-j", "CONNMARK", "--restore-mark", "--nfmask", "0xff", "--ctmask", "0xff"),
            "0xff of the packet mark",
            id="iptables-restore",
        ),
    ],
)
def test_b53_who_writes_our_bits_is_told(make_netns: Callable[[], Netns], command: list[str], told: str) -> None:
    netns = make_netns()
    netns.run(command)
    (conflict,) = _foreign(netns)
    assert conflict.startswith("table ip ") and f"writes bits {told}" in conflict


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(_nft("meta mark set meta mark | 0x10000"), id="nft-upper-bits"),
        pytest.param(_nft("meta mark & 0xfff == 0x539 counter accept"), id="nft-looks"),
        pytest.param(_nft("ct mark set ct mark & 0x00000fff | 0xab000"), id="nft-keeps"),
        pytest.param(_iptables("-j", "MARK", "--set-xmark", "0x4000/0x4000"), id="iptables-upper-bits"),
        pytest.param(_iptables("-m", "mark", "--mark", "0x539/0xfff", "-j", "ACCEPT"), id="iptables-looks"),
    ],
)
def test_b53_who_writes_other_bits_or_only_looks_is_not(make_netns: Callable[[], Netns], command: list[str]) -> None:
    netns = make_netns()
    netns.run(command)
    assert _foreign(netns) == ()
