"""curl, against nginx."""

from pathlib import Path

from agent.lab.node import Lab


def curl(lab: Lab, *arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--globoff", "--max-time", "10", *arguments]
    return lab.pod("client").run(command).stdout


def test_curl_gets_an_answer_and_the_server_sees_who_asks(lab: Lab, url_host: str, client_address: str) -> None:
    answer = curl(lab, "-H", "X-Test: yes", f"http://{url_host}/")
    assert answer == f"GET HTTP/1.1 {client_address} {url_host} yes\n"


def test_curl_keeps_its_connection_over_many_requests(lab: Lab, url_host: str) -> None:
    urls = [f"http://{url_host}/{number}" for number in range(50)]
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    made = curl(lab, *outputs, "-w", "%{num_connects} %{http_code}\n", *urls).splitlines()
    assert made == ["1 200"] + ["0 200"] * 49


def test_curl_head_then_get_on_one_connection(lab: Lab, url_host: str) -> None:
    url = f"http://{url_host}/"
    answer = curl(lab, "--head", url, "--next", "--silent", "-w", "%{num_connects} new", url)
    head, _, body = answer.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert body.startswith("GET HTTP/1.1 ")
    assert body.endswith("\n0 new")


def test_curl_uploads_after_100_continue_and_chunked(lab: Lab, url_host: str, tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(bytes(range(256)) * 20_000)
    stored = lab.pod("server").directory / "nginx" / "files"
    host = url_host.strip("[]").replace(":", "-")
    curl(lab, "-T", str(file), "-H", "Expect: 100-continue", f"http://{url_host}/files/{host}-length")
    curl(lab, "-T", str(file), "-H", "Transfer-Encoding: chunked", f"http://{url_host}/files/{host}-chunked")
    for name in ("length", "chunked"):
        assert (stored / f"{host}-{name}").read_bytes() == file.read_bytes()
        curl(lab, "-o", str(tmp_path / name), f"http://{url_host}/files/{host}-{name}")
        assert (tmp_path / name).read_bytes() == file.read_bytes()


def test_curl_speaks_http_1_0(lab: Lab, url_host: str) -> None:
    answer = curl(lab, "--http1.0", "-H", "Connection: keep-alive", "-i", f"http://{url_host}/")
    assert answer.startswith("HTTP/1.1 200 OK\n")
    assert "GET HTTP/1.0 " in answer


def test_curl_speaks_http2_with_prior_knowledge_through_an_undeclared_port(
    lab: Lab, url_host: str, client_address: str
) -> None:
    answer = curl(lab, "--http2-prior-knowledge", "-w", "%{http_version}", f"http://{url_host}:85/")
    assert answer == f"GET HTTP/2.0 {client_address} {url_host}:85 \n2"


def test_curl_asking_to_upgrade_to_h2c_is_served_as_http_1_1(lab: Lab, url_host: str) -> None:
    answer = curl(lab, "--http2", "-w", "%{http_version}", f"http://{url_host}/")
    assert answer.startswith("GET HTTP/1.1 ")
    assert answer.endswith("\n1.1")
