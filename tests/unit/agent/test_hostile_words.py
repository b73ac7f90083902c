"""Words that a shell, nft, iptables or a terminal would read something into, at every door: no rule, no raw byte.

Each door is tried with names of interfaces, and with everything else that takes a list; what comes out is a refusal
that names the door's key and shows the value, escaped.
"""

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.plan import InvalidPlan, PlanSettings, Steering, plan_of
from agent.plan.annotation_keys import FAMILIES
from agent.plan.annotations import steering_of
from agent.plan.render.iptables_match import ways
from agent.plan.render.nft import install_script
from agent.plan.rules import OnInterfaces
from agent.plan.steering import VirtualInterface

HOSTILE = (
    'eth0" counter drop comment "',
    "eth0; flush ruleset",
    "eth0 } } table inet x {",
    "eth0\n-A OUTPUT -j ACCEPT",
    "eth0 -j ACCEPT",
    "$(reboot)",
    "`reboot`",
    "eth0\\",
    "eth0'",
    "@set",
    "-j",
    "--modprobe=/x",
    "*",
    "a/b",
    "a:b",
    "eth0\x00x",
    "\x1b[2Jeth0",
    "\u202eeth0",
    "a" * 16,
    "eth0++",
    "+",
    "..",
    "ｅｔｈ０",
    "١٢٣",
)
NEITHER_NAMES_NOR_TEXT = tuple(value for value in HOSTILE if value not in ("*", "a:b", "@set"))
TAKES_A_LIST = [key.name for family in FAMILIES for key in family.keys]


def is_clean(text: str) -> bool:
    """Fit for a terminal, line for line."""
    return all(line.isprintable() for line in text.split("\n")) and "\x1b" not in text


def refused_by(*arguments: str, env: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """What `headgate` says, which must be wrong usage; nothing is printed as a plan."""
    done = CliRunner().invoke(main, list(arguments), env=env or {}, input=stdin)
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    assert done.stdout == "" and is_clean(done.stderr)
    return done.stderr


@pytest.mark.parametrize("value", NEITHER_NAMES_NOR_TEXT)
@pytest.mark.parametrize("key", TAKES_A_LIST)
def test_annotations(key: str, value: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        steering_of(((key, value),), Steering())
    assert key in refused.value.field and is_clean(str(refused.value))


@pytest.mark.parametrize("value", [value for value in HOSTILE if value not in ("@set", "..")])
@pytest.mark.parametrize("field", ["exclude_interfaces", "virtual_interfaces"])
def test_values_that_came_through_no_door_are_refused_when_planned(field: str, value: str) -> None:
    name = (value,) if field == "exclude_interfaces" else (VirtualInterface(value),)
    with pytest.raises(InvalidPlan) as refused:
        plan_of(Steering(**{field: name}), PlanSettings())  # type: ignore[arg-type]
    assert is_clean(str(refused.value))


@pytest.mark.parametrize("value", [value for value in HOSTILE if value not in ("@set", "a:b", "..")])
def test_and_again_when_written_for_iptables(value: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        ways(OnInterfaces((value,)))
    assert is_clean(str(refused.value))


DOORS: dict[str, Callable[[str], str]] = {
    "--exclude-interfaces": lambda value: refused_by("init", "--dry-run", f"--exclude-interfaces={value}"),
    "--virtual-interfaces": lambda value: refused_by("init", "--dry-run", f"--virtual-interfaces={value}"),
    "--exclude-interfaces ": lambda value: refused_by("rules", "plan", f"--exclude-interfaces={value}"),
    "-c": lambda value: refused_by("init", "istio", "-n", "-i", "*", f"-c={value}"),
    "--istio-exclude-interfaces": lambda value: refused_by(
        "init", "istio", "-n", f"--istio-exclude-interfaces={value}"
    ),
    "-k": lambda value: refused_by("init", "istio", "-n", "-i", "*", f"-k={value}"),
    "--vnet": lambda value: refused_by("init", "kuma", "--dry-run", f"--vnet={value}"),
    "-u": lambda value: refused_by("init", "istio", "-n", f"-u={value}"),
    "-o": lambda value: refused_by("init", "istio", "-n", f"-o={value}"),
    "-x": lambda value: refused_by("init", "istio", "-n", f"-x={value}"),
    "--proxy-uid": lambda value: refused_by(
        "init", "linkerd", "-p", "4143", "-o", "4140", "--simulate", f"--proxy-uid={value}"
    ),
    "--outbound-ports-to-ignore": lambda value: refused_by(
        "init", "linkerd", "-p", "4143", "-o", "4140", "-u", "2102", "--simulate", f"--outbound-ports-to-ignore={value}"
    ),
    "--subnets-to-ignore": lambda value: refused_by(
        "init", "linkerd", "-p", "4143", "-o", "4140", "-u", "2102", "--simulate", f"--subnets-to-ignore={value}"
    ),
    "--kuma-dp-user": lambda value: refused_by("init", "kuma", "--dry-run", f"--kuma-dp-user={value}"),
    "--exclude-outbound-ports-for-uids": lambda value: refused_by(
        "init", "kuma", "--dry-run", f"--exclude-outbound-ports-for-uids={value}"
    ),
}


@pytest.mark.parametrize("value", NEITHER_NAMES_NOR_TEXT)
@pytest.mark.parametrize("flag", DOORS)
def test_options_and_the_peers_flags(flag: str, value: str) -> None:
    assert flag.strip() in DOORS[flag](value)


VARIABLES = {
    "HEADGATE_EXCLUDE_INTERFACES": ("init", "--dry-run"),
    "HEADGATE_VIRTUAL_INTERFACES": ("init", "--dry-run"),
    "ISTIO_EXCLUDE_INTERFACES": ("init", "istio", "-n"),
    "KUBE_VIRT_INTERFACES": ("init", "istio", "-n"),
    "ENVOY_USER": ("init", "istio", "-n"),
    "ISTIO_OUTBOUND_OWNER_GROUPS": ("init", "istio", "-n"),
    "KUMA_TRANSPARENT_PROXY_REDIRECT_VNET_NETWORKS": ("init", "kuma", "--dry-run"),
}


@pytest.mark.parametrize("value", [value for value in NEITHER_NAMES_NOR_TEXT if "\x00" not in value])
@pytest.mark.parametrize("variable", VARIABLES)
def test_the_environment(variable: str, value: str) -> None:
    told = refused_by(*VARIABLES[variable], env={variable: value})
    assert variable in told or variable.removeprefix("HEADGATE_").lower().replace("_", "-") in told


@pytest.mark.parametrize("value", [value for value in NEITHER_NAMES_NOR_TEXT if value.isprintable()])
def test_kumas_configuration(value: str) -> None:
    quoted = value.replace("'", "''")
    config = f"redirect:\n  vnet:\n    networks:\n    - '{quoted}'\n"
    told = refused_by("init", "kuma", "--dry-run", "--transparent-proxy-config", "-", stdin=config)
    assert "redirect.vnet.networks" in told


def test_an_at_sign_alone_names_no_set_of_nfts() -> None:
    """A name that the kernel takes, and that nft would read as a set if it were not quoted."""
    script = install_script(plan_of(Steering(exclude_interfaces=("@set",)), PlanSettings()), (), replace=False)
    assert '"@set"' in script and script.count("@set") == script.count('"@set"')
