"""The HTTP side of the local Hub (`http.server`, loopback only)."""

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from .api import HubError, answer
from .faults import Fault
from .store import HubStore


@dataclass
class Request:
    """What the server saw of one request; kept in `HubServer.log`."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0

    @property
    def token(self) -> str | None:
        """The access token sent along, if any."""
        value = self.headers.get("authorization", "")
        return value.removeprefix("Bearer ") if value else None

    @property
    def parts(self) -> list[str]:
        """The path's segments; a slash inside a segment (a branch named a/b) stays in it."""
        return [unquote(part) for part in self.path.strip("/").split("/")]

    def json(self) -> dict:
        """The body as JSON."""
        return json.loads(self.body)


class HubServer:
    """A Hub on a free loopback port; a context manager.

    `tokens` maps access tokens to (user, "write" | "read"). `log` lists the requests, `faults` what shall go wrong.
    """

    def __init__(self, tokens: dict[str, tuple[str, str]] | None = None) -> None:
        self.store = HubStore(users=dict(tokens or {}))
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=10)

    def clear(self) -> None:
        """Forget the log and the faults; the repositories stay."""
        with self.lock:
            self.log.clear()
            self.faults.clear()

    def environment(self, cache: str, token: str | None = None) -> dict[str, str]:
        """Environment variables for a process whose client shall talk to this server only."""
        found = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": cache,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if token is not None:
            found["HF_TOKEN"] = token
        return found


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 30
    # Headers and body in one packet: otherwise every answer waits 40 ms for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr; the log is `HubServer.log`."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, url.path, parse_qs(url.query), headers)
        with self.hub.lock:
            index = len(self.hub.log)
            self.hub.log.append(request)
            fault = next((f for f in self.hub.faults if f.strikes(request.method, request.path, index)), None)
        if fault is not None and fault.action == "drop":
            return self._hang_up()
        length = int(headers.get("content-length") or 0)
        if fault is not None and fault.action == "half" and length:
            self.rfile.read(length // 2)
            return self._hang_up()
        request.body = self._chunks() if headers.get("transfer-encoding") == "chunked" else self.rfile.read(length)
        if fault is not None and fault.action == "status":
            return self._send(request, fault.status, fault.headers, json.dumps({"error": fault.message}).encode())
        if fault is not None and fault.action == "echo":
            text = json.dumps({"error": f"token {request.token} refused"}).encode()
            return self._send(request, fault.status, {"X-Error-Message": f"token {request.token} refused"}, text)
        if fault is not None and fault.action == "html":
            page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
            return self._send(request, 502, {"Content-Type": "text/html"}, page)
        try:
            with self.hub.lock:
                status, extra, body = answer(self.hub.store, request, self.hub.url)
        except HubError as error:
            text = json.dumps({"error": error.message}).encode()
            status, extra, body = error.status, {"X-Error-Code": error.code, "X-Error-Message": error.message}, text
        if fault is not None and fault.action == "lost":
            return self._hang_up()
        cut = fault is not None and fault.action == "half"
        return self._send(request, status, extra, body, cut=cut)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, request: Request, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        request.status = status
        headers = {"Content-Type": "application/json", **headers}
        headers.setdefault("Content-Length", str(len(body)))
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            self._hang_up()
