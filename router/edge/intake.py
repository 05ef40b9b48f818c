"""Reads what a client sends: each message's head field by field, and its body a segment at a time, in bounds. Step 1.

A body in tiny chunks comes as many thousand pieces a segment. They are put together before anything else is done with
them. What comes after the last message that is taken is not even parsed: a flood would keep the loop from everybody.
The failures to survive: such a body, such a flood, and a head or trailer without an end. The parser keeps those until
they are complete.
"""

from __future__ import annotations

from typing import Protocol

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.admission.request import KEPT
from router.admission.target import without_offer
from router.errors import BadRequest, HeadTooLarge, RouterError, UrlTooLong, WrongMethod

MOST_HEADERS = 100
LONGEST_HEAD = 64 << 10  # bytes of a request that are no body: its head, and what stands between and behind its chunks
LONGEST_URL = 8 << 10  # bytes

log = structlog.get_logger()


class Enough(Exception):
    """Nothing more is taken in: the parser stops here."""


class Body(Protocol):
    """Who gets a body."""

    def add(self, body: bytes) -> bool:
        """More of it. Returns False when nothing more is to be read. Raises RouterError where it is too much."""


class Intake(HttpToolsProtocol):
    """Of one connection. `_deaf`: nothing more is taken in. `_receiving` gets the body that is coming."""

    __slots__ = (
        "_at_once",
        "_bodiless",
        "_body_bytes",
        "_deaf",
        "_in_head",
        "_in_message",
        "_kept",
        "_messages",
        "_pieces",
        "_upgrading",
    )

    _deaf: bool
    _receiving: Body | None

    def _begin_intake(self) -> None:
        self._deaf = False
        self._in_message = False
        self._in_head = False
        self._upgrading = False
        self._messages = 0  # begun so far
        self._at_once = 0  # requests of this segment whose turn came at once
        self._bodiless = 0  # bytes since the last of a body
        self._body_bytes = 0  # of this message
        self._kept: list[tuple[bytes, bytes]] = []  # the fields of the head that are read
        self._pieces: list[bytes] = []  # of the body, of this segment

    def _refuse(self, error: RouterError, *, known: bool = False) -> None:
        """Nothing more is taken in; this is the last answer."""
        raise NotImplementedError

    def _await_rest(self, size: int) -> None:
        """A segment of so many bytes has ended, and the message is not whole."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        """Parse a segment."""
        self._at_once = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Enough):
                log.error("a request could not be taken in", action="protocol", exc_info=error.__context__)
                self.transport.abort()
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(BadRequest(f"This is not HTTP/1.1 as we know it: {error}."))
        else:
            if self._in_message and not self._deaf:  # else it came whole: the way of nearly all
                self._await_rest(len(data))

    def _without_upgrade(self, rest: bytes) -> None:
        """The client offers another protocol (h2c, WebSocket): we go on with this one, as we may. httptools takes the
        body for the other's.
        """
        method = self.parser.get_method()
        self._upgrading = False
        if method == b"CONNECT":
            self._refuse(WrongMethod("This is no proxy. Send requests for paths of this server."))
            return
        self.parser = httptools.HttpRequestParser(self)
        self._feed(without_offer(method, self.url, self.headers) + rest)

    def on_message_begin(self) -> None:
        if self._deaf:
            raise Enough
        self._in_message = self._in_head = True
        self._messages += 1
        self._bodiless = self._body_bytes = 0
        self.url = b""
        self.headers = []
        self._kept = []

    def on_url(self, url: bytes) -> None:
        if self._deaf:
            raise Enough
        self.url += url
        if len(self.url) > LONGEST_URL:
            self._in_head = False  # its fields are not read
            self._refuse(UrlTooLong(f"The URL is longer than {LONGEST_URL} bytes. Send parameters in the body."))

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self.headers
        if not self._in_head or len(headers) >= MOST_HEADERS:
            self._header_too_many()
            return
        name = name.lower()
        field = (name, value)
        headers.append(field)
        if name in KEPT:
            self._kept.append(field)

    def _header_too_many(self) -> None:
        """Of a head that is refused, a trailer, or beyond the bound."""
        if self._deaf:
            raise Enough
        if self._in_head:
            self._refuse(HeadTooLarge(f"The request has more than {MOST_HEADERS} headers. Send fewer."))

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            raise Enough
        if not self._upgrading:
            self._pieces.append(body)

    def _receive_body(self) -> None:
        """What has come of it since this was last called."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._body_bytes += len(body)
        if self._deaf or self._receiving is None:
            return
        try:
            self._deaf = not self._receiving.add(body)
        except RouterError as error:
            self._refuse(error)

    def _count(self, size: int, *, body: bool) -> None:
        """A segment has ended, and the message is not whole. `body`: there was some in it, and it counts as that."""
        self._bodiless = 0 if body else self._bodiless + size
        if self._bodiless > LONGEST_HEAD:
            self._refuse(
                HeadTooLarge(
                    f"The request's head, or what follows its last chunk, is longer than {LONGEST_HEAD} bytes. Send less."
                )
            )
