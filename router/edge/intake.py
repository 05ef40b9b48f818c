"""Step 1: one message as the parser tells it, in bounds: its head field by field, and its body a segment at a time.

A body in tiny chunks comes as many thousand pieces a segment; they are put together before anything else is done with
them. What comes after the last message that is taken is not even parsed: a flood would keep the loop from everybody for
as long as it takes to read. The failures to survive: a head without an end, or a trailer, which the parser keeps until
it is whole; such a body, and such a flood.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.admission.request import KEPT
from router.errors import HeadTooLarge, RouterError, UrlTooLong

MOST_HEADERS = 100
LONGEST_HEAD = 64 << 10  # bytes of a request that are no body: its head, and what stands between and behind its chunks
LONGEST_URL = 8 << 10  # bytes


class Enough(Exception):
    """Nothing more is taken in: the parser stops here."""


class Intake(HttpToolsProtocol):
    """Of one connection. `_deaf`: nothing more is taken in."""

    __slots__ = (
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

    def _take_in(self) -> None:
        """Begin."""
        self._deaf = self._in_message = self._in_head = self._upgrading = False
        self._messages = self._bodiless = self._body_bytes = 0
        self._kept: list[tuple[bytes, bytes]] = []  # the fields of the head that are read
        self._pieces: list[bytes] = []  # of the body, of this segment

    def _refuse(self, error: RouterError, *, known: bool = False) -> None:
        raise NotImplementedError

    def on_message_begin(self) -> None:
        if self._deaf:
            raise Enough
        self._in_message = self._in_head = True
        self._messages += 1
        self._bodiless = self._body_bytes = 0
        self.url, self.headers, self._kept = b"", [], []

    def on_url(self, url: bytes) -> None:
        if self._deaf:
            raise Enough
        self.url += url
        if len(self.url) > LONGEST_URL:
            self._refuse(UrlTooLong(f"The URL is longer than {LONGEST_URL} bytes. Send parameters in the body."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._deaf:
            raise Enough
        if not self._in_head:  # a trailer
            return
        if len(self.headers) >= MOST_HEADERS:
            self._refuse(HeadTooLarge(f"The request has more than {MOST_HEADERS} headers. Send fewer."))
            return
        self.headers.append(field := (name.lower(), value))
        if field[0] in KEPT:
            self._kept.append(field)

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            raise Enough
        if not self._upgrading:
            self._pieces.append(body)

    def _body(self) -> bytes:
        """What has come of it since this was last asked."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._body_bytes += len(body)
        return body

    def _count(self, size: int, *, body: bool) -> None:
        """A segment has ended, and the message is not whole. `body`: there was some in it, and it counts as that."""
        self._bodiless = 0 if body else self._bodiless + size
        if self._bodiless > LONGEST_HEAD:
            self._refuse(
                HeadTooLarge(
                    f"The request's head, or what follows its last chunk, is longer than {LONGEST_HEAD} bytes. Send less."
                )
            )
