"""How many workers `headgate proxy` runs: what the machine allows, or what it is told."""

import os

import pytest
from click.testing import CliRunner

from proxy.cli import proxy
from proxy.settings import default_workers


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 8), (96, 8)])
def test_one_worker_a_core_this_process_may_run_on_and_eight_at_most(
    cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_workers() == workers


@pytest.mark.parametrize("given", ["0", "65", "-1", "all", "1.5"])
def test_another_number_is_wrong_usage_that_names_the_option(given: str) -> None:
    for options, environment in ((["--workers", given], {}), ([], {"HEADGATE_WORKERS": given})):
        result = CliRunner(env=environment).invoke(proxy, options)
        assert result.exit_code == 2
        assert "--workers" in result.output
