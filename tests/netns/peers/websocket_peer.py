"""A WebSocket server or client (package websockets). The client prints one JSON object."""

import json
import socket
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve


def converse(connection: ServerConnection) -> None:
    """Greets first, echoes, and closes when told to."""
    assert connection.request is not None
    connection.send(json.dumps({"client": connection.remote_address[0], "path": connection.request.path}))
    for message in connection:
        if message == "close":
            connection.close(4000, "as you wish")
            return
        connection.send(message)


def run_server(port: str) -> None:
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    with serve(converse, sock=listener, max_size=1 << 24) as server:
        server.serve_forever()


def talk(url: str) -> dict[str, object]:
    with connect(url, max_size=1 << 24, open_timeout=8, proxy=None) as connection:
        greeting = json.loads(connection.recv(8))
        connection.send("héllo")
        text = connection.recv(8)
        large = bytes(range(256)) * 8192
        connection.send(large)
        binary = connection.recv(8) == large
        pong = connection.ping().wait(8)
        many = 0
        for number in range(300):
            connection.send(str(number))
            many += connection.recv(8) == str(number)
        connection.send("close")
        try:
            connection.recv(8)
            closed = "not"
        except ConnectionClosed as error:
            closed = f"{error.rcvd.code} {error.rcvd.reason}" if error.rcvd else "without a word"
    return {**greeting, "text": text, "binary": binary, "pong": pong, "many": many, "closed": closed}


if sys.argv[1] == "serve":
    run_server(sys.argv[2])
else:
    print(json.dumps(talk(sys.argv[2])))
