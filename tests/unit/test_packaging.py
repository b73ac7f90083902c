"""DESIGN 3, packaging: what is shipped, and where what we import comes from."""

import json
import subprocess
import sys
from importlib.metadata import distribution

_LOADED = """
import json, sys
import agent.lab.demo, agent.supervisor.service, proxy.supervisor.service, proxy.worker
files = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps(sorted(name for name, file in files.items() if "/dist-packages/" in file)))
"""


def test_only_the_bindings_of_the_distribution_load_from_the_distribution() -> None:
    """A distribution's aiohttp or yaml in place of the locked one would be another program than the tested one."""
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["nftables"]


def test_three_packages_are_shipped_and_no_tests() -> None:
    names = distribution("headgate").read_text("top_level.txt")
    assert names is not None
    assert names.split() == ["agent", "bpf", "proxy"]
