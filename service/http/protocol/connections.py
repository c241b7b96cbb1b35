"""The limits on connections, before any key or path is looked at.

How many there are, in all and of one address; how many bytes a request has in its headers; how long they may
take; and how long a client may leave an answer lying. The rate of bodies is the middleware's.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api_schemas.http.problem import PROBLEM_MEDIA_TYPE
from service.errors.problems import BODY_TIMEOUT, HEADERS_TOO_LARGE, OVERLOADED, ProblemKind, write_problem
from service.http.protocol.load_gate import LoadGate
from service.http.protocol.whole_answer import WholeAnswer
from service.settings import ServiceSettings
from service.telemetry.prometheus import CONNECTIONS, count_rejection

# descriptors for files, databases and sockets that are not clients
OWN_DESCRIPTORS = 128
SWEEP_SECONDS = 0.5
# of chunk sizes and trailers, a byte of body
FRAMING = 8
# a refusal for load is sent after this long, times the refusals that wait to be sent: a thousand a second,
# a tenth of the event loop, however many clients ask again at once
REFUSAL_SECONDS, MOST_REFUSAL_SECONDS = 0.001, 1.0
# a paused answer is this much, and has these seconds at any rate
_UNSENT_BYTES, _UNSENT_SECONDS = 400_000, 5.0


class ConnectionTable:
    """The open connections of a process.

    A connection over a limit takes the place of the one that has been idle for longest, or else of the one
    whose body has been on its way for longest: first of the same address, and for the limit on all of the
    address that has most. Where every other is being answered it is closed with 429.

    Args:
        settings: the limits.
        gate: what refuses searches and matches for load.
    """

    def __init__(self, settings: ServiceSettings, gate: LoadGate | None = None) -> None:
        self.settings = settings
        self.gate = gate
        self._most = min(settings.max_connections, _raise_descriptor_limit(settings.max_connections))
        self._most_per_address = min(settings.max_connections_per_address, self._most)
        self._open: set[LimitedProtocol] = set()
        self._of_address: Counter[str] = Counter()
        # connections with no request in progress, in the order in which they became idle
        self._idle: dict[LimitedProtocol, None] = {}
        # and those whose body is on its way, in the order in which it began
        self._reading: dict[LimitedProtocol, None] = {}
        # refusals for load that wait to be sent
        self._refusals = 0
        self._sweeping: asyncio.TimerHandle | None = None

    def add(self, connection: LimitedProtocol) -> bool:
        """Count a connection; False if there is no room for it."""
        address = connection.address
        if self._of_address[address] >= self._most_per_address and not self._make_room(address):
            return False
        if len(self._open) >= self._most:
            (greediest, _), *_ = self._of_address.most_common(1)
            if not self._make_room(greediest) and not self._make_room(None):
                return False
        self._open.add(connection)
        self._of_address[address] += 1
        self._idle[connection] = None
        CONNECTIONS.set(len(self._open))
        if self._sweeping is None:
            self._schedule_sweep()
        return True

    def remove(self, connection: LimitedProtocol) -> None:
        """Forget a closed connection."""
        self._idle.pop(connection, None)
        self._reading.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]
            CONNECTIONS.set(len(self._open))

    def mark_reading(self, connection: LimitedProtocol) -> None:
        """The headers of a request are here."""
        self._idle.pop(connection, None)
        if connection in self._open:
            self._reading[connection] = None

    def mark_read(self, connection: LimitedProtocol) -> None:
        """A request is here, and is being answered."""
        self._reading.pop(connection, None)

    def mark_idle(self, connection: LimitedProtocol) -> None:
        """No request is in progress any more."""
        if connection in self._open:
            self._reading.pop(connection, None)
            self._idle[connection] = None

    def schedule_refusal(self, send: Callable[[], None]) -> None:
        """Call ``send`` after a while, the longer the more refusals wait for that."""
        self._refusals += 1
        seconds = min(REFUSAL_SECONDS * self._refusals, MOST_REFUSAL_SECONDS)
        asyncio.get_running_loop().call_later(seconds, self._send_refusal, send)

    def _send_refusal(self, send: Callable[[], None]) -> None:
        self._refusals -= 1
        send()

    def _make_room(self, address: str | None) -> bool:
        for connection in chain(self._idle, self._reading):
            if address is None or connection.address == address:
                self.remove(connection)
                connection.transport.abort()
                return True
        return False

    def _schedule_sweep(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close connections whose headers, or whose taking of an answer, takes too long."""
        self._sweeping = None
        if not self._open:
            return
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            connection.check_time(now)
        self._schedule_sweep()


class Refusal(NamedTuple):
    """An answer, and whether the connection closes after it."""

    answer: bytes
    is_last: bool


class LimitedProtocol(HttpToolsProtocol):
    """One connection: uvicorn's, with the limits of the table it belongs to."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.table: ConnectionTable = app_state["connections"]
        settings = self.table.settings
        self._header_limit, self._header_timeout = settings.max_header_bytes, settings.header_timeout
        self._unsent_timeout = _UNSENT_SECONDS + _UNSENT_BYTES / settings.min_body_rate
        self.address = ""
        self._in_headers = True
        self._is_refused = False  # the body of the request that is on its way is left out
        self._refusal: Refusal | None = None  # the answer to it, until that is sent
        self._header_bytes = self._framing_bytes = self._body_bytes = 0
        # when the first byte of a message came that is not complete, when the connection had nothing in
        # progress for the first time since, and when an answer began to wait for its client
        self._begun: float | None = None
        self._idle_since = self.loop.time()
        self._unsent_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or answer 429 and close it."""
        super().connection_made(transport)
        self.address = "" if self.client is None else self.client[0]
        self._begun = self._idle_since
        if not self.table.add(self):
            self._refuse(OVERLOADED, "Too many connections are open (LIMEN_MAX_CONNECTIONS).")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.table.remove(self)
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.scope.get("state", {}).get("on_disconnect", lambda: None)()

    def data_received(self, data: bytes) -> None:
        """Feed the parser while the request's headers are within their limit."""
        if self.transport.is_closing():
            return
        if self._begun is None:
            self._begun = self.loop.time()
        if self._in_headers:
            room = self._header_limit - self._header_bytes
            self._header_bytes += len(data)
            if len(data) > room:
                super().data_received(data[:room])
                if self._in_headers and not self.transport.is_closing():
                    self._refuse(
                        HEADERS_TOO_LARGE,
                        f"The first line and the headers may have {self._header_limit} bytes "
                        "(LIMEN_MAX_HEADER_BYTES).",
                    )
                data = data[room:]
        else:
            self._framing_bytes += len(data)
        if data and not self.transport.is_closing():
            super().data_received(data)
        if self._framing_bytes > self._header_limit + FRAMING * self._body_bytes:
            self._refuse(HEADERS_TOO_LARGE, "The sizes and trailers of the body's chunks are too large.")

    def on_message_begin(self) -> None:
        """The first byte of a request is here, perhaps behind the last of another."""
        if self._begun is None:
            self._begun = self.loop.time()
        self._header_bytes = max(1, self._header_bytes)
        # a request that came with one that is refused, whose answer comes first
        self._send_refusal()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, which follow a body, are left out."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless there is too much to do for that."""
        self._in_headers = False
        self.table.mark_reading(self)
        gate, answer = self.table.gate, None
        if gate is not None and self._is_idle() and self.parser.get_method() == b"POST":
            answer = gate.refuse(self.url, self.headers)
        if answer is None:
            super().on_headers_complete()
            return
        self._is_refused, self._refusal = True, Refusal(answer, not self.parser.should_keep_alive())
        self.flow.pause_reading()
        self.table.schedule_refusal(self._send_refusal)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, WholeAnswer(app, cycle))  # type: ignore[arg-type]

    def _send_refusal(self) -> None:
        """Send the refusal that waits for it, if there is one, and read on."""
        refusal, self._refusal = self._refusal, None
        if refusal is None or self.transport.is_closing():
            return
        self.transport.write(refusal.answer)
        if refusal.is_last:
            self.transport.close()
        else:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Close the connection when what is in progress is answered."""
        self._send_refusal()
        super().shutdown()

    def _is_idle(self) -> bool:
        """True if the app is not answering a request."""
        return self.cycle is None or self.cycle.response_complete

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._framing_bytes -= len(body)
        self._body_bytes += len(body)
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; what follows is another."""
        self._in_headers, self._begun = True, None
        self._header_bytes = self._framing_bytes = self._body_bytes = 0
        self.table.mark_read(self)
        if not self._is_refused:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._is_refused, self._idle_since = False, self.loop.time()
            self.table.mark_idle(self)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Nothing is in progress, unless another request has arrived meanwhile."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._idle_since = self.loop.time()
            self.table.mark_idle(self)

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it is written."""
        self._unsent_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has taken what was written."""
        self._unsent_since = None
        super().resume_writing()

    def check_time(self, now: float) -> None:
        """Close the connection if its client takes too long."""
        if self._unsent_since is not None and now - self._unsent_since > self._unsent_timeout:
            self.transport.abort()
        elif self.transport.is_closing():
            # what was refused, or answered for the last time, has as long as headers have
            if now - self._idle_since > self._header_timeout:
                self.transport.abort()
        elif (
            self._is_idle()
            and self._begun is not None
            and now - max(self._begun, self._idle_since) > self._header_timeout
        ):
            if self._is_refused:
                self.transport.close()
            elif self._header_bytes:
                seconds = f"{self._header_timeout:g} s (LIMEN_HEADER_TIMEOUT)"
                self._refuse(BODY_TIMEOUT, f"The headers did not arrive within {seconds}.")
            else:
                self.transport.close()

    def _refuse(self, kind: ProblemKind, detail: str) -> None:
        """Answer with a problem, unless another answer has begun, and close the connection."""
        count_rejection(kind.slug)
        self._idle_since = self.loop.time()
        if self._is_idle():
            self._send_refusal()
            body = write_problem(kind, detail, "/", "-")
            head = (
                f"HTTP/1.1 {kind.status} {kind.title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _raise_descriptor_limit(connections: int) -> int:
    """Let the process open as many files as it needs; the connections for which they suffice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OWN_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(8, soft - OWN_DESCRIPTORS)
