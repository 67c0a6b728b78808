"""A server on loopback that speaks the Hub's protocol to unmodified clients.

Standard library and memory only. `api.py` answers the requests, `store.py` keeps the repositories,
`faults.py` spoils answers and logs requests; here is the HTTP around them. A large file is served by
a redirect to a second host name, as the Hub does, so that a token that leaks across it is seen.
"""

import json
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from .api import Api
from .call import Answer, Call
from .faults import Fault, Faults, Request
from .store import Refused, Store, User


class HubServer:
    """A running Hub. `endpoint` is its address, `store` its content, `faults` what it does wrong."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}"  # another host to a client, the same socket
        self.api = Api(self.store, self.endpoint, self.storage)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add_user(self, name: str, *, token: str, orgs: tuple[str, ...] = (), can_write: bool = True) -> None:
        self.store.users[token] = User(name, orgs, can_write)

    def fail(self, pattern: str = "", **fault: Any) -> Fault:
        """Arm a fault for the next request that matches `pattern`; see `Fault` for the ways."""
        return self.faults.arm(Fault(pattern, **fault))

    def asked(self, pattern: str = "") -> list[str]:
        return self.faults.asked(pattern)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is the purpose of some tests; anything else is a bug of this server."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server.hub
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        fault = hub.faults.take(request)
        body = self._read_body()
        if body is None:  # the client died while sending: nothing was asked
            self.close_connection = True
            return
        request.body_bytes = len(body)
        if fault and fault.action:
            fault.action()
        if fault and fault.delay_seconds:
            time.sleep(fault.delay_seconds)
        if fault and fault.cut and not fault.after:
            self._hang_up()
            return
        if fault and fault.status and not fault.after:
            answer = Answer({"error": f"injected {fault.status}"}, fault.status)
        else:
            answer = self._answer(body, request)
        if fault and fault.after and fault.cut:
            self._hang_up()
            return
        if fault and fault.after and fault.status:
            answer = Answer({"error": f"injected {fault.status}"}, fault.status)
        if fault and fault.retry_after is not None:
            answer.headers["Retry-After"] = fault.retry_after
        request.status = answer.status
        self._send(answer, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, body: bytes, request: Request) -> Answer:
        hub = self.server.hub
        parts = urlsplit(self.path)
        try:
            user = self._user(request)
            query = parse_qs(parts.query, keep_blank_values=True)
            path = re.sub("%2F", "\0", parts.path, flags=re.IGNORECASE)  # a quoted "/" belongs to a name
            return hub.api.answer(Call(self.command, unquote(path), query, request.headers, body, user))
        except Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            if refused.commit:
                headers["X-Repo-Commit"] = refused.commit
            return Answer({"error": refused.message}, refused.status, headers)

    def _user(self, request: Request) -> User | None:
        authorization = request.headers.get("authorization")
        if request.headers.get("host", "").startswith("localhost"):
            if authorization:
                raise Refused(400, "A token was sent to the storage host")
            return None
        if authorization is None:
            return None
        user = self.server.hub.store.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    def _read_body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while True:
                line = self.rfile.readline()
                if not line.endswith(b"\r\n"):
                    return None
                size = int(line.split(b";")[0], 16)
                chunk = self.rfile.read(size)
                if len(chunk) < size:
                    return None
                self.rfile.readline()
                if size == 0:
                    return b"".join(chunks)
                chunks.append(chunk)
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **answer.headers}
        length = int(headers["Content-Length"])
        if fault and fault.flip_byte is not None and len(body) > fault.flip_byte:
            body = body[: fault.flip_byte] + bytes([body[fault.flip_byte] ^ 1]) + body[fault.flip_byte + 1 :]
        if fault and fault.dribble_seconds and fault.dribble_headers:
            self.wfile = _Dribbling(self.wfile, fault.dribble_seconds)
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.dribble_seconds and not fault.dribble_headers:
            self.wfile = _Dribbling(self.wfile, fault.dribble_seconds)
        if self.command == "HEAD":
            return
        if fault and fault.keep_bytes is not None and fault.keep_bytes < length:
            self.wfile.write(body[: fault.keep_bytes])
            self._hang_up()
            return
        self.wfile.write(body)
        if len(body) < length:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class _Dribbling:
    """A connection on which each byte takes its time."""

    def __init__(self, file: Any, seconds: float) -> None:
        self.file, self.seconds = file, seconds

    def write(self, content: bytes) -> None:
        for byte in content:
            self.file.write(bytes([byte]))
            self.file.flush()
            time.sleep(self.seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
