"""What the peers' usual command lines install, word for word, and the tables of docs/migrate-*.md, flag by flag.

`make golden` writes both anew: read the diff.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.init import istio, kuma, linkerd
from agent.init.argv import Fate, Flag
from agent.init.kuma_flags import FLAGS as KUMA_FLAGS
from agent.init.request import Surroundings, families_of
from agent.plan import plan_of
from agent.plan.render.document import IPTABLES, JSON, NFT, plan_text
from tests.unit.agent.init import test_istio, test_kuma, test_linkerd

HERE = Path(__file__).parent / "init"
DOCS = Path(__file__).parents[3] / "docs"
NOWHERE = Surroundings()

REQUESTS = {
    "istio": istio.request(test_istio.TEMPLATE, {}, NOWHERE),
    "istio-dns": istio.request([*test_istio.TEMPLATE, "--redirect-dns", "--capture-all-dns", "-u", "3,4"], {}, NOWHERE),
    "linkerd": linkerd.request(test_linkerd.TEMPLATE.split(), NOWHERE),
    "kuma": kuma.request(test_kuma.TEMPLATE.split(), {}, NOWHERE),
}
FILES = {f"{name}.{output}": (request, output) for name, request in REQUESTS.items() for output in (NFT, IPTABLES)}
FILES["istio.json"] = (REQUESTS["istio"], JSON)
TABLES = {"istio": istio.FLAGS, "linkerd": linkerd.FLAGS, "kuma": KUMA_FLAGS}
BEGIN, END = "<!-- flags: written by `make golden` -->\n", "<!-- /flags -->\n"


def golden(path: Path, text: str) -> str:
    if os.environ.get("REFRESH_GOLDEN"):
        path.write_text(text)
    return path.read_text()


@pytest.mark.parametrize("file", FILES)
def test_the_usual_command_line(file: str) -> None:
    request, output = FILES[file]
    families = families_of(request.families, ())
    text = plan_text(plan_of(replace(request.steering, families=families), request.settings), output, families)
    assert text == golden(HERE / file, text)


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in HERE.iterdir()} == set(FILES)


@pytest.mark.parametrize("peer", TABLES)
def test_the_documentation_says_of_every_flag_what_the_code_does(peer: str) -> None:
    path = DOCS / f"migrate-{peer}.md"
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    text = f"{before}{BEGIN}{table(TABLES[peer])}{END}{after}"
    assert text == golden(path, text)


def table(flags: tuple[Flag, ...]) -> str:
    head = "| flag | variable, key | | here |\n|---|---|---|---|\n"
    return head + "".join(f"| {names(flag)} | {sources(flag)} | {FATES[flag.fate]} | {flag.how} |\n" for flag in flags)


FATES = {Fate.HONOURED: "honoured", Fate.NOTED: "accepted, nothing to do", Fate.REFUSED: "refused"}


def names(flag: Flag) -> str:
    return ", ".join(f"`{name}`" for name in (flag.short, flag.name) if name.startswith("-")) or "none"


def sources(flag: Flag) -> str:
    return ", ".join(f"`{name}`" for name in (*flag.variables, flag.config) if name) or ""
