"""Receivers of notifications as real servers in a thread: HTTP, and SMTP with and without a login."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpReceiver:
    """Keeps what it was sent. `answers`: (status, headers) of the next requests; then 200 to all."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.bodies: list[Any] = []
        """Of requests that were answered 200."""
        self.headers: list[dict[str, str]] = []
        """Of all requests."""
        self.answers: list[tuple[int, dict[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                if status == 200:
                    receiver.bodies.append(json.loads(body))
                self.send_response(status)
                for name, value in {**headers, "content-length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self._server.server_port}/hook"

    @contextmanager
    def running(self) -> Iterator[HttpReceiver]:
        """Answers until the end of the `with`."""
        with _served(self._server):
            yield self


class SmtpReceiver:
    """Speaks as much SMTP (RFC 5321), AUTH PLAIN (RFC 4954) and STARTTLS (RFC 3207) as a client needs; keeps the mails.

    `refuse`: what a command is answered instead, by its verb, once. With `tls` it is offered, and nobody heard without;
    `at_once`: from the first byte on (RFC 8314)."""

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        at_once: bool = False,
    ) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refuse: dict[str, str] = {}
        receiver = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def secure(self) -> None:
                assert tls is not None
                self.request = tls.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

            def handle(self) -> None:
                try:
                    self.talk()
                except OSError:  # a client that does not trust the certificate leaves
                    return

            def greet(self, secured: bool) -> None:
                self.say("250-here")
                if not secured:
                    self.say("250-STARTTLS")
                elif user is not None:
                    self.say("250-AUTH PLAIN")
                self.say("250 SIZE 1000000")

            def talk(self) -> None:
                if at_once:
                    self.secure()
                self.say("220 here")
                known, to, secured = user is None, list[str](), tls is None or at_once
                while line := self.rfile.readline():
                    command, _, rest = line.decode().strip().partition(" ")
                    command = command.upper()
                    if command in receiver.refuse:
                        self.say(receiver.refuse.pop(command))
                    elif command == "EHLO":
                        self.greet(secured)
                    elif command == "STARTTLS" and not secured:
                        self.say("220 go on")
                        self.secure()
                        secured = True
                    elif command == "AUTH":
                        given = base64.b64decode(rest.partition(" ")[2]).split(b"\0")[1:]
                        known = given == [(user or "").encode(), (password or "").encode()]
                        self.say("235 known" if known else "535 unknown")
                    elif command in ("MAIL", "RCPT") and not (known and secured):
                        self.say("530 who are you")
                    elif command == "RCPT":
                        to.append(rest.partition(":")[2].strip("<>"))
                        self.say("250 well")
                    elif command == "DATA":
                        self.say("354 go on")
                        receiver._keep(self.read_data(), to)
                        self.say("250 taken")
                    elif command == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 well")

            def read_data(self) -> bytes:
                kept = b""
                while (line := self.rfile.readline()) != b".\r\n":
                    kept += line.removeprefix(b".") if line.startswith(b"..") else line
                return kept

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def _keep(self, data: bytes, to: list[str]) -> None:
        self.mails.append(message_from_bytes(data, policy=policy.default))
        self.recipients.append(to)

    @contextmanager
    def running(self) -> Iterator[SmtpReceiver]:
        """Answers until the end of the `with`."""
        with _served(self._server):
            yield self


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
