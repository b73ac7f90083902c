"""A mail server that speaks first, as SMTP's do (RFC 5321): as much of it as smtplib needs for a message."""

import socket
import socketserver
import sys


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._say("220 mail.test ready")
        for line in self.rfile:
            command = line.split()[0].upper()
            if command == b"EHLO":
                self._say(f"250 hello {self.client_address[0]}")
            elif command == b"DATA":
                self._say("354 go on")
                size = sum(len(part) for part in iter(self.rfile.readline, b".\r\n"))
                self._say(f"250 took {size} bytes")
            elif command == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = socket.AF_INET6  # takes IPv4 too


Server(("::", int(sys.argv[1])), Session).serve_forever()
