"""`headgate events`: what happened to the node's pods, as `kubectl get events` tells it."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from agent.cli.client import PodName, ask, output_option, pod_path, run_dir_option, show, table

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@click.command()
@click.argument("pod", type=PodName(), required=False)
@run_dir_option
@output_option
def events(pod: tuple[str | None, str] | None, run_dir: Path, output: str) -> None:
    """Show what happened to the node's pods, or to POD, the newest last: drift and its healing, a full conntrack
    table. The agent keeps the last 1,000 in memory, also of pods that are gone."""
    answer = ask(run_dir, "/events" if pod is None else f"/events/{pod_path(run_dir, pod)}")
    if output != "table":
        show(answer, output)
        return
    now_s = time.time()
    rows = [_row(event, now_s) for event in answer["items"]]
    if not rows:
        click.echo("no events", err=True)
        return
    click.echo(table(("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"), rows))


def _row(event: dict[str, Any], now_s: float) -> tuple[str, ...]:
    last_s, first_s = (_seconds(event[name]) for name in ("lastTimestamp", "firstTimestamp"))
    seen = age(now_s - last_s)
    if event["count"] > 1:
        seen += f" (x{event['count']} over {age(now_s - first_s)})"
    involved = event["involvedObject"]
    where = f"pod/{involved['name']}.{involved['namespace']}"
    return (seen, event["type"], event["reason"], where, event["message"])


def _seconds(timestamp: str) -> float:
    return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def age(seconds: float) -> str:
    """`5s`, `3m12s`, `2h5m`, `4d1h`: the two largest units, as kubectl (duration.ShortHumanDuration)."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts[:2]) or "0s"
