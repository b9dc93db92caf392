"""Small servers on sockets, each in a thread: they answer as a test says, wrongly too."""

from __future__ import annotations

import socket
import threading


class LittleServer:
    """Answers each connection with `answer(connection, request)`; `request` is the bytes of head and body.

    `requests` keeps what came. With a `context` (ssl.SSLContext) it speaks TLS. Errors of the connection are the
    client's going away, and end that answer only.
    """

    def __init__(self, answer, context=None):
        self.requests: list[bytes] = []
        self._answer = answer
        self._context = context
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path="/", host="127.0.0.1"):
        """An address of this server."""
        return f"{'https' if self._context else 'http'}://{host}:{self.port}{path}"

    def close(self):
        """End it and its thread."""
        self._closing.set()
        self._listener.close()
        self._thread.join(5)

    def _serve(self):
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection):
        with connection:
            try:
                connection.settimeout(10)
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                request = _read_request(connection)
                if request:
                    self.requests.append(request)
                    self._answer(connection, request)
                connection.close()
            except OSError:
                pass


def _read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        data += part
        if not part or not data[:1].isalpha():  # the client has gone, or does not speak HTTP
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def reply(status="200 OK", body=b"", **headers):
    """An `answer` that sends a whole response; header names are written with `_` for `-`."""
    body = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def answer(connection, request):
        connection.sendall(whole)

    return answer
