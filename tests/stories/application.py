"""The applications of the stories: `application.py NAME KIND ...`, called NAME as ps(1) shows it.

answers PORT [mended]
                  HTTP: 200 and a line; keeps connections; at /report it ends the connection without an answer,
                  unless it is mended
listens PORT      says what it hears
talks ADDR PORT   keeps a connection there and says a line each second; opens it anew when it ends
"""

import ctypes
import socket
import sys
import threading
import time
from collections.abc import Callable

PR_SET_NAME = 15  # prctl(2)


def answers(sock: socket.socket, name: str, mended: bool) -> None:
    with sock, sock.makefile("rb") as reader:
        while request := reader.readline():
            while reader.readline().strip():
                pass
            if b"/report" in request and not mended:
                print(f"{name}: /report: out of memory, connection dropped", flush=True)
                return
            body = f"{name}: here you are\n".encode()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def keeps(sock: socket.socket) -> None:
    with sock:
        while said := sock.recv(4096):
            sock.sendall(said)


def serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    while True:
        threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()


def talks(address: str, port: int) -> None:
    while True:
        try:
            with socket.create_connection((address, port)) as sock:
                sock.sendall(b"select 1;\n")
                while sock.recv(4096):
                    time.sleep(0.2)
                    sock.sendall(b"select 1;\n")
        except OSError:
            time.sleep(0.1)


def main() -> None:
    name, kind, *words = sys.argv[1:]
    name = name.partition("-")[0]
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    if kind == "talks":
        talks(words[0], int(words[1]))
    listener = socket.create_server(("::", int(words[0])), family=socket.AF_INET6, dualstack_ipv6=True)
    serve(listener, keeps if kind == "listens" else lambda sock: answers(sock, name, "mended" in words))


main()
