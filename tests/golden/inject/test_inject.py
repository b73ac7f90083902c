"""`headgate inject` on the shop: what is printed, and that it is what Kubernetes takes.

`make golden` writes the files anew: read the diff.
"""

import os
from pathlib import Path

import kubernetes_validate
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.inject.manifests import read

HERE = Path(__file__).parent
CASES = {
    "shop.native.yaml": ("shop.yaml",),
    "shop.policy.yaml": (
        "shop.yaml",
        "--config-map=mesh-policy",
        "--backend=iptables-legacy",
        "--image=mesh/headgate:2",
    ),
    "pod.native.json": ("pod.json",),
    "pod.ordinary.json": ("pod.json", "--kubernetes-version=1.28"),
}


@pytest.mark.parametrize("name", CASES)
def test_printed(name: str) -> None:
    source, *options = CASES[name]
    done = CliRunner().invoke(main, ["inject", *options, "-f", str(HERE / source)])
    if os.environ.get("REFRESH_GOLDEN"):
        (HERE / name).write_text(done.stdout)
    assert (done.exit_code, done.stdout) == (0, (HERE / name).read_text())


@pytest.mark.parametrize("name", CASES)
def test_taken_out_again(name: str) -> None:
    done = CliRunner().invoke(main, ["inject", "--uninject", "-f", str(HERE / name)])
    assert (done.exit_code, done.stdout) == (0, (HERE / CASES[name][0]).read_text())


@pytest.mark.parametrize("version", ["1.29", "1.30", "1.37"])
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    for value in read((HERE / name).read_text()).values:
        for one in value.get("items", [value]):
            kubernetes_validate.validate(one, version, strict=True)
