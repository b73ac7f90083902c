"""Where a verb acts: on a pod, through the agent; or on a network namespace, by itself."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from agent.cli.client import PodName

P = ParamSpec("P")
T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

pod_argument = click.argument("pod", type=PodName(), required=False)
_netns_option = click.option(
    "--netns",
    type=click.Path(path_type=Path),
    help="Act on this network namespace: /run/netns/NAME or /proc/PID/ns/net.",
)
_self_option = click.option(
    "--self", "own", is_flag=True, help="Act on the network namespace that this command runs in; so without POD, too."
)


def namespace_options(command: Command) -> Command:
    """--netns and --self; the command gets `netns: Path | None` and `own: bool`, and `namespace_of` reads them."""
    return _netns_option(_self_option(command))


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace of this machine; path None: the caller's own."""

    path: Path | None

    @property
    def name(self) -> str:
        return "this network namespace" if self.path is None else f"network namespace {self.path}"

    def identity(self) -> str:
        """As str(NetnsId). ClickException when there is none."""
        from agent.pods import NetnsId

        try:
            status = Path("/proc/thread-self/ns/net" if self.path is None else self.path).stat()
        except OSError as error:
            raise click.ClickException(f"{self.name}: {error.strerror}") from error
        return str(NetnsId(status.st_dev, status.st_ino))

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function inside, on a thread that ends there; its result or exception. Commands that it runs and sockets
        that it makes are of the namespace. ClickException when that cannot be entered."""
        if self.path is None:
            return function(*args, **kwargs)
        from agent.kernel.netns import NetnsRefused, open_netns
        from agent.kernel.scratch import inside

        try:
            netns = open_netns(self.path, allow_own=True)
        except NetnsRefused as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"{self.name}: {error.strerror}") from error
        with netns:
            return inside(netns.fd, function, *args, **kwargs)


def namespace_of(pod: object | None, netns: Path | None, own: bool) -> Namespace | None:
    """None: a pod was named. Raises UsageError when several places were."""
    if sum((pod is not None, netns is not None, own)) > 1:
        raise click.UsageError("give one of POD, --netns and --self")
    return None if pod is not None else Namespace(netns)


@contextmanager
def failing(where: Namespace, status: int = 1) -> Iterator[None]:
    """What the kernel refuses is said with the place, and ends the command with `status`."""
    from agent.kernel.refused import KernelRefused

    try:
        yield
    except KernelRefused as error:
        _fail(f"{where.name}: {error}", status)
    except OSError as error:
        needed = "; needs root, or CAP_NET_ADMIN there (CAP_SYS_ADMIN to enter it)"
        _fail(f"{where.name}: {error}{needed if isinstance(error, PermissionError) else ''}", status)


def _fail(reason: str, status: int) -> None:
    click.echo(f"Error: {reason}", err=True)
    sys.exit(status)
