"""Wrong options of `rules trace` and `capture` are named with their remedy, before anything is done."""

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.interrupt import interrupts


@pytest.mark.parametrize("verb", [("rules", "trace"), ("capture",)])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "web:80"), "names are not looked up"),
        (("--to", "10.0.0.1:70000"), "1 to 65535"),
        (("--from", "10.0.0.1", "--to", "fd00::1"), "both IPv4 or both IPv6"),
        (("--proto", "icmp", "--to", ":80"), "has no ports"),
        (("--proto", "http"), "give tcp, udp"),
        (("--iface", "a b"), "`ip link` lists them"),
        (("--for", "0s"), "as 10s, 500ms or 2m"),
        (("--for", "ever"), "as 10s, 500ms or 2m"),
        (("--for", "2d"), "as 10s, 500ms or 2m"),
        (("--for", "25h"), "up to 24h"),
        (("--count", "0"), "0 is not in the range"),
        (("--self", "--netns", "/x"), "give one of POD, --netns and --self"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(verb: tuple[str, ...], words: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(main, [*verb, *words])
    assert done.exit_code == 2 and told in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--mark", "x"), "give a mark"), (("--uid", "-1"), "not in the range"), (("--limit", "0"), "not in the range")],
)
def test_what_only_a_trace_can_ask_for_is_checked_too(words: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(main, ["rules", "trace", *words])
    assert done.exit_code == 2 and told in done.stderr


def test_a_path_that_is_no_namespace_is_a_clear_error(tmp_path: Path) -> None:
    for verb in (("rules", "trace"), ("capture",)):
        done = CliRunner().invoke(main, [*verb, "--netns", str(tmp_path)])
        assert done.exit_code == 1 and "a directory; give a name under /run/netns" in done.stderr


def test_an_interrupt_is_taken_note_of_once_and_the_next_acts_as_always() -> None:
    with interrupts() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
