"""A process in a pod as a peer's sidecar or a hostile application is one: `stranger.py COMMAND UID [LISTEN] TO PORT`.

Calls itself COMMAND (hexadecimal bytes) and becomes UID; with LISTEN it accepts one connection on 127.0.0.1 there
first. Then connects to TO, says `ready`, and waits for the end of its input.
"""

import ctypes
import os
import socket
import sys

PR_SET_NAME = 15


def main() -> None:
    command, uid, *listen, to, port = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_NAME, bytes.fromhex(command), 0, 0, 0)
    held: list[socket.socket] = []
    if listen:
        held.append(socket.create_server(("127.0.0.1", int(listen[0]))))
    os.setgid(int(uid))
    os.setuid(int(uid))
    print("listens", flush=True)
    if listen:
        held.append(held[0].accept()[0])
    held.append(socket.create_connection((to, int(port))))
    print("ready", flush=True)
    sys.stdin.read()


main()
