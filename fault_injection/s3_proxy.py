"""A loopback HTTP proxy in front of a real S3 server that makes some calls fail.

The Host header is forwarded unchanged, so that signatures stay valid. Which calls fail, and how, is
drawn from a seed or decided by a function of the test.
"""

import contextlib
import http.client
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("slow_down", "hang", "cut", "short", "lost", "slow")
"""In this order: 503 SlowDown without effect; no response at all; the connection is dropped within
the response; a well-formed response with less than the requested content; the call takes effect but
its response is dropped; a delayed response. There are also ``damage``, which flips a bit of the
request body, and the error responses below."""
Plan = Callable[[str, str], str]
"""Maps method and path of a call to its fault, or to an empty string."""

_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "full": (507, "InsufficientStorage"),
    "quota": (403, "QuotaExceeded"),
    "denied": (403, "AccessDenied"),
    "conflict": (409, "ConditionalRequestConflict"),
}
_PER_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_MAX_HANG_S = 60.0
_SLOW_S = 0.2


def at_random(share: float, seed: int, faults: tuple[str, ...] = FAULTS) -> Plan:
    """Makes this share of the calls fail, each fault equally often: draws from shuffled decks."""
    deck = [*faults, *[""] * round(len(faults) / share - len(faults))]
    draw, left = random.Random(seed), list[str]()

    def plan(method: str, path: str) -> str:
        if not left:
            left.extend(draw.sample(deck, len(deck)))
        return left.pop()

    return plan


def first(fault: str, method: str, times: int = 1, within: str = "") -> Plan:
    """Makes the first calls of one method whose path contains ``within`` fail."""
    left = [times]

    def plan(called: str, path: str) -> str:
        if called != method or within not in path or not left[0]:
            return ""
        left[0] -= 1
        return fault

    return plan


class S3Proxy(ThreadingHTTPServer):
    """Listens as soon as it is created; serves calls within ``running``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()
        self.conditional_writes = threading.Lock()
        """Serializes conditional writes."""
        self.reset()

    def reset(self) -> None:
        """Forgets all calls and stops injecting faults."""
        self.plan: Plan = lambda method, path: ""
        self.calls: list[tuple[str, str]] = []
        """Method and path of every call."""
        self.injected: Counter[str] = Counter()
        """Number of calls by injected fault."""

    def next_fault(self, method: str, path: str) -> str:
        """Records a call and returns its fault.

        Recorded before the fault happens: with a slow server, a client may time out and retry
        before then.
        """
        with self._lock:
            self.calls.append((method, path))
            fault = self.plan(method, path)
            if fault:
                self.injected[fault] += 1
            return fault

    def recount(self, fault: str, happened: str) -> None:
        """Counts an injected fault as another one."""
        with self._lock:
            self.injected[fault] -= 1
            self.injected[happened] += 1

    def transfer(self, direction: str, size: int) -> None:
        """Called before ``size`` bytes are sent "to" or "from" the server; for subclasses."""

    @property
    def share(self) -> float:
        """Share of the calls that failed, not counting slow ones."""
        return (self.injected.total() - self.injected["slow"]) / max(1, len(self.calls))

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores disconnected clients, which some faults cause."""

    @contextlib.contextmanager
    def running(self) -> Iterator["S3Proxy"]:
        thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: S3Proxy

    def handle_call(self) -> None:
        body = self._body()
        fault = self.server.next_fault(self.command, self.path)
        if fault == "hang":
            select.select([self.connection], [], [], _MAX_HANG_S)  # until the client disconnects
            self.close_connection = True
        elif fault in _ANSWERS:
            status, code = _ANSWERS[fault]
            content = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._answer(status, [("Content-Type", "application/xml")], content)
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_call

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _forward(self, body: bytes, fault: str) -> None:
        if fault == "slow":
            time.sleep(_SLOW_S)
        if fault == "damage" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        conditional = "If-Match" in self.headers or "If-None-Match" in self.headers
        # moto checks and then writes, in a thread per call: two could pass the check at once.
        with self.server.conditional_writes if conditional else contextlib.nullcontext():
            self.server.transfer("to", len(body))
            answer, content = self._ask(body)
            self.server.transfer("from", len(content))
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _PER_HOP]
        is_object = self.command == "GET" and "xml" not in (answer.getheader("Content-Type") or "")
        if fault == "short" and not (is_object and answer.status in (200, 206)):
            self.server.recount(fault, "lost")
            fault = "lost"
        if fault == "lost":
            self.close_connection = True
            return
        content = content[: len(content) // 2] if fault == "short" else content
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, content, length, cut=fault == "cut")

    def _ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Forwards the call and returns the server's response and its body."""
        upstream = http.client.HTTPConnection(urlsplit(self.server.server).netloc, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _PER_HOP:
                    upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != http.client.NO_CONTENT:
            self.send_header("Content-Length", length or str(len(content)))
        if cut and not (content and self.command != "HEAD"):
            self.close_connection = True  # truncated headers
            head = b"".join(self._headers_buffer)
            self._headers_buffer.clear()
            self.wfile.write(head[: len(head) // 2])
            return
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""
