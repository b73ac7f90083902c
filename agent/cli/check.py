"""`headgate check`: whether a cluster fits headgate, whether headgate works there. Needs neither Linux nor a node."""

import asyncio
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agent.cli.access import access_of, access_options
from agent.cli.install import OVERLAYS, rendered
from agent.cli.names import label
from agent.cli.progress import Progress
from agent.manifests.documents import NAMESPACE

if TYPE_CHECKING:
    from agent.check.lines import Line
    from agent.kube.access import Access
    from agent.kube.client import ApiClient

_FAILED: Final = 1
_AGAIN_S: Final = 2.0
"""Between two looks of --wait."""


@click.command()
@access_options
@click.option("--pre", is_flag=True, help="Before an installation: whether it would work.")
@click.option(
    "--namespace", default=NAMESPACE, show_default=True, callback=label, help="Where headgate is, or is to be."
)
@click.option(
    "--overlay", type=click.Choice(OVERLAYS), help="With --pre: what is to be installed, as `headgate install`."
)
@click.option("--webhook", is_flag=True, help="With --pre: the webhook, too.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    metavar="SECONDS",
    help="Look again for so long, until nothing fails and no pod is pending.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    kubeconfig: Path | None,
    context: str | None,
    pre: bool,
    namespace: str,
    overlay: str | None,
    webhook: bool,
    wait_s: float,
    output: str,
) -> None:
    """Check a cluster before an installation (--pre), or headgate in it: nodes, agents, CNI chain, every selected pod's
    proofs, the webhook's certificates, versions, other meshes. Changes nothing. Exit 1 when something fails."""
    import json

    from agent.check import view
    from agent.check.lines import Level

    if (overlay or webhook) and not pre:
        raise click.UsageError("--overlay and --webhook need --pre")
    manifests = rendered(overlay, (), pod_monitor=False, webhook=webhook) if pre else ""
    lines = asyncio.run(_lines(access_of(kubeconfig, context), namespace, manifests, wait_s))
    click.echo(json.dumps(view.as_json(lines), indent=2) if output == "json" else view.text(lines))
    if any(line.level is Level.FAILED for line in lines):
        sys.exit(_FAILED)


async def _lines(access: "Access", namespace: str, manifests: str, wait_s: float) -> "tuple[Line, ...]":
    """The last look's."""
    from agent.kube.client import ApiClient

    until_s = time.monotonic() + wait_s
    progress, what = Progress(), "asking the cluster"
    client = ApiClient(access, time.monotonic, time.time)
    try:
        while True:
            progress.say(what)
            lines = await _look(client, namespace, manifests)
            if _is_settled(lines) or time.monotonic() >= until_s:
                return lines
            what = f"waiting: {sum(map(_is_open, lines))} of {len(lines)} checks fail or are pending"
            progress.say(what)
            await asyncio.sleep(min(_AGAIN_S, max(0.0, until_s - time.monotonic())))
    finally:
        progress.end()
        await client.close()


async def _look(client: "ApiClient", namespace: str, manifests: str) -> "tuple[Line, ...]":
    import yaml

    from agent.check.after import after
    from agent.check.before import before
    from agent.check.gather import Gathering
    from agent.check.needs import needs_of
    from agent.manifests.documents import Choice, InvalidChoice, installed

    gathering = Gathering(client, namespace, version("headgate"), time.time())
    if not manifests:
        return after(await gathering.after())
    try:
        chosen = installed(manifests, Choice(namespace=namespace))
    except InvalidChoice as error:
        raise click.UsageError(str(error)) from error
    return before(await gathering.before(needs_of(yaml.safe_load_all(chosen))))


def _is_settled(lines: "tuple[Line, ...]") -> bool:
    return not any(map(_is_open, lines))


def _is_open(line: "Line") -> bool:
    from agent.check.lines import Level
    from agent.check.selected import PENDING

    return line.level is Level.FAILED or line.id == PENDING
