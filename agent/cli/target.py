"""Where a verb acts: on a pod, through the agent; or on a network namespace, by itself."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from agent.cli.client import PodName

if TYPE_CHECKING:
    from agent.kernel.netns import OpenNetns
    from agent.pods import NetnsId

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
    """A network namespace of this machine; path None: the caller's own.

    Which one that is, is settled when it is first entered: a pid or a name may pass to another pod while a verb is at
    work, and what was found in one namespace must not be done to another.
    """

    path: Path | None
    _entered: "list[NetnsId]" = field(default_factory=list, compare=False, repr=False)

    @property
    def name(self) -> str:
        return "this network namespace" if self.path is None else f"network namespace {self.path}"

    def identity(self) -> str:
        """As str(NetnsId). ClickException when there is none."""
        from agent.kernel.netns import host_netns_id

        if self.path is None:
            return str(host_netns_id())
        with self._opened() as netns:
            return str(netns.id)

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function inside, on a thread that ends there; its result or exception. Commands that it runs and sockets
        that it makes are of the namespace. ClickException when that cannot be entered."""
        if self.path is None:
            return function(*args, **kwargs)
        from agent.kernel.scratch import inside

        with self._opened() as netns:
            return inside(netns.fd, function, *args, **kwargs)

    def _opened(self) -> "OpenNetns":
        from agent.kernel.netns import NetnsRefused, open_netns

        assert self.path is not None
        try:
            netns = open_netns(self.path, self._entered[0] if self._entered else None, allow_own=True)
        except NetnsRefused as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"{self.name}: {error.strerror}") from error
        self._entered[:] = [netns.id]
        return netns


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
    except BrokenPipeError:
        raise  # `… | head`: nothing of the place; click ends the command quietly
    except KernelRefused as error:
        _fail(f"{where.name}: {error}", status)
    except OSError as error:
        needed = "; needs root, or CAP_NET_ADMIN there (CAP_SYS_ADMIN to enter it)"
        _fail(f"{where.name}: {error}{needed if isinstance(error, PermissionError) else ''}", status)


def _fail(reason: str, status: int) -> None:
    click.echo(f"Error: {reason}", err=True)
    sys.exit(status)
