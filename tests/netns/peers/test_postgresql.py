"""PostgreSQL: a client that speaks first, in binary, to a server that waits for it."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.node import Lab

BINARIES = Path("/usr/lib/postgresql/15/bin")
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@pytest.fixture(scope="module")
def database(lab: Lab) -> Iterator[Lab]:
    """A cluster of its own in the server's pod, run as PostgreSQL's user, ended and removed afterwards."""
    data = Path(tempfile.mkdtemp(prefix="hg-postgresql-"))
    shutil.chown(data, "postgres", "postgres")
    log = data / "log"
    try:
        make = [str(BINARIES / "initdb"), "-D", str(data / "data"), "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run([*AS_POSTGRES, *make], check=True, capture_output=True, timeout=60, cwd="/")
        with (data / "data" / "pg_hba.conf").open("a") as access:
            access.write("host all all all trust\n")
        settings = ["listen_addresses=*", "port=5432", "unix_socket_directories=", "fsync=off"]
        command = [str(BINARIES / "postgres"), "-D", str(data / "data"), *(f"-c{one}" for one in settings)]
        with log.open("wb") as output:
            server = lab.pod("server").popen([*AS_POSTGRES, *command], stdout=output, stderr=output, cwd="/")
        try:
            ready = ["pg_isready", "-q", "-h", str(lab.pod("server").address4)]
            lab.wait("PostgreSQL", lambda: lab.pod("server").run(ready, check=False).returncode == 0)
            yield lab
        finally:
            server.send_signal(signal.SIGINT)  # "fast": ends its sessions, and leaves no shared memory behind
            server.wait(timeout=20)
    finally:
        shutil.rmtree(data)


@pytest.fixture(params=[5432, 86], ids=["opaque port", "detected"])
def port(request: pytest.FixtureRequest) -> int:
    """5432 is opaque by default; on 86 the first bytes decide."""
    return int(request.param)


def psql(lab: Lab, host: str, port: int, *statements: str) -> str:
    commands = [word for statement in statements for word in ("-c", statement)]
    options = ["-h", host, "-p", str(port), "-U", "postgres", "-X", "-q", "-t", "-A"]
    return lab.pod("client").run(["psql", *options, *commands], environment={"PGCONNECT_TIMEOUT": "5"}).stdout


def test_postgresql_answers_and_sees_the_clients_address(
    database: Lab, vip: str, port: int, client_address: str
) -> None:
    assert psql(database, vip, port, "select host(inet_client_addr()), 6 * 7") == f"{client_address}|42\n"


def test_postgresql_rows_pass_both_ways(database: Lab, vip: str, port: int) -> None:
    out = psql(
        database,
        vip,
        port,
        "create temp table t as select g as n, repeat('x', 100) as pad from generate_series(1, 50000) g",
        "select count(*), sum(n), sum(length(pad)) from t",
        "select md5(string_agg(n::text, ',' order by n)) = md5((select string_agg(n::text, ',' order by n) from t)) "
        "from t",
        "select n from t order by n",
    ).splitlines()
    assert out[:2] == ["50000|1250025000|5000000", "t"]
    assert out[2:] == [str(number) for number in range(1, 50001)]


def test_postgresql_bulk_load_from_the_client(database: Lab, vip: str, port: int, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("".join(f"{number}\t{'y' * 90}\n" for number in range(100_000)))
    out = psql(
        database,
        vip,
        port,
        "create temp table t (n int, pad text)",
        f"\\copy t from {rows}",
        "select count(*), min(n), max(n), sum(length(pad)) from t",
    )
    assert out.splitlines()[-1] == "100000|0|99999|9000000"


def test_postgresql_a_killed_client_ends_its_session_at_the_server(database: Lab, vip: str, port: int) -> None:
    name = f"hg{port}{'6' if ':' in vip else '4'}"
    options = ["-h", vip, "-p", str(port), "-U", "postgres", "-X", "-q"]
    sleeper = database.pod("client").popen(
        ["psql", *options, "-c", "set client_connection_check_interval = 50", "-c", "select pg_sleep(60)"],
        env={"PGAPPNAME": name, "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
    )

    def sessions() -> int:
        query = f"select count(*) from pg_stat_activity where application_name = '{name}' and query like '%pg_sleep%'"
        return int(psql(database, vip, port, query))

    try:
        database.wait("the session to begin", lambda: sessions() == 1)
    finally:
        sleeper.kill()
        sleeper.wait()
    database.wait("the session to end", lambda: sessions() == 0, timeout_s=5)
