"""The mix as bytes."""

from collections import Counter

from tests.bench.mix import BODY, as_file, mix, small

HOST = "10.96.0.10:80"


def test_the_mix_holds_each_kind_that_issue_2_names() -> None:
    assert Counter(one.name for one in mix(HOST, close=False)) == {
        "GET": 4,
        "POST 1 KiB": 2,
        "POST 1 KiB chunked": 1,
        "GET 20 headers": 2,
        "GET 64 KiB": 1,
    }


def test_each_kind_is_what_its_name_says() -> None:
    kinds = {one.name: one for one in mix(HOST, close=False)}
    headers = kinds["GET 20 headers"].payload.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert len(headers) == 1 + 20
    head, _, body = kinds["POST 1 KiB"].payload.partition(b"\r\n\r\n")
    assert b"Content-Length: 1024" in head.split(b"\r\n")
    assert body == BODY
    head, _, body = kinds["POST 1 KiB chunked"].payload.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head.split(b"\r\n")
    assert body == b"200\r\n" + BODY[:512] + b"\r\n200\r\n" + BODY[512:] + b"\r\n0\r\n\r\n"
    assert kinds["GET 64 KiB"].answer_bytes == 65536


def test_with_close_every_request_says_so_and_without_none() -> None:
    assert all(b"\r\nConnection: close\r\n" in one.payload for one in mix(HOST, close=True))
    assert not any(b"Connection" in one.payload for one in mix(HOST, close=False))


def test_the_file_gives_back_the_requests_as_the_script_reads_them() -> None:
    requests = mix(HOST, close=True)
    left, found = as_file(requests), []
    while left:
        length, _, left = left.partition(b"\n")
        found.append(left[: int(length)])
        assert left[int(length) : int(length) + 1] == b"\n"
        left = left[int(length) + 1 :]
    assert found == [one.payload for one in requests]


def test_a_small_request_is_what_wrk_sends() -> None:
    assert small(HOST).payload == b"GET / HTTP/1.1\r\nHost: 10.96.0.10:80\r\n\r\n"
