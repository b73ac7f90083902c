"""A grpcio server or client without generated code: bytes in, bytes out. The client prints one JSON object."""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    """Unary and streaming echo, the caller's address, and a call that only its caller's leaving ends."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/peer/Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "/peer/Who": grpc.unary_unary_rpc_method_handler(lambda request, context: context.peer().encode()),
            "/peer/Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "/peer/Wait": grpc.unary_unary_rpc_method_handler(self._wait),
            "/peer/Left": grpc.unary_unary_rpc_method_handler(self._has_left),
            "/peer/Fail": grpc.unary_unary_rpc_method_handler(self._fail),
        }.get(details.method)

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = threading.Event()
        context.add_callback(ended.set)
        if ended.wait(20):
            self._left.set()
        return b""

    def _has_left(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        told = self._left.wait(5)
        self._left.clear()
        return b"yes" if told else b"no"

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


def serve(port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Echo()])
    assert server.add_insecure_port(f"[::]:{port}")
    server.start()
    server.wait_for_termination()


def call(target: str) -> dict[str, object]:
    options = [("grpc.max_receive_message_length", 1 << 25), ("grpc.max_send_message_length", 1 << 25)]
    with grpc.insecure_channel(target, options) as channel:

        def unary(method: str, request: bytes = b"", timeout: float = 8) -> bytes:
            answer = channel.unary_unary(f"/peer/{method}")(request, timeout=timeout)
            assert isinstance(answer, bytes)
            return answer

        def status(method: str, timeout: float) -> str:
            try:
                unary(method, timeout=timeout)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
            return "OK"

        large = bytes(range(256)) * 16384
        return {
            "who": unary("Who").decode(),
            "many": sum(unary("Unary", b"%d" % number) == b"%d" % number for number in range(200)),
            "large": unary("Unary", large) == large,
            "chat": [part.decode() for part in channel.stream_stream("/peer/Chat")(iter([b"a", b"b"]), timeout=8)],
            "failure": status("Fail", 8),
            "deadline": status("Wait", 0.3).partition(":")[0],
            "server was told": unary("Left").decode(),
        }


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    print(json.dumps(call(sys.argv[2])))
