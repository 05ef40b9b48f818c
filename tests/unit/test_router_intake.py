"""Step 1: what comes in of a message is bounded, and what comes after the last one that is taken is not parsed."""

from __future__ import annotations

import httptools
import pytest

from router.edge.intake import LONGEST_HEAD, LONGEST_URL, MOST_HEADERS, Enough, Intake
from router.errors import HeadTooLarge, RouterError, UrlTooLong

PAGE = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"


class Taken(Intake):
    """Takes so many messages."""

    def __init__(self, most: int = 1000) -> None:
        self._begin_intake()
        self._receiving = self
        self.left, self.begun = most, 0
        self.bodies: list[bytes] = []
        self.refused: list[RouterError] = []
        self.feed = httptools.HttpRequestParser(self).feed_data

    def _refuse(self, error: RouterError, *, known: bool = False) -> None:
        self._deaf = True
        self.refused.append(error)

    def on_message_begin(self) -> None:
        self.begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.left -= 1
        self._deaf = not self.left

    def add(self, body: bytes) -> bool:
        self.bodies.append(body)
        return True

    def on_message_complete(self) -> None:
        self._receive_body()


@pytest.mark.parametrize(
    "rest",
    [PAGE * 1000, b"x: y\r\n" * 1000, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000],
)
def test_the_parser_stops_after_the_last_message_that_is_taken(rest: bytes) -> None:
    taken = Taken(2)
    with pytest.raises(httptools.HttpParserCallbackError) as stopped:
        taken.feed(PAGE * 2 + b"GET /b HTTP/1.1\r\nhost: x\r\n" + rest)
    assert isinstance(stopped.value.__context__, Enough)
    assert taken.begun == 3 and not taken.refused


def test_a_body_whose_message_is_refused_amid_is_not_parsed_on() -> None:
    taken = Taken(1)
    with pytest.raises(httptools.HttpParserCallbackError) as stopped:
        taken.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000)
    assert isinstance(stopped.value.__context__, Enough) and not taken._pieces


def test_a_body_is_one_piece_however_it_came() -> None:
    taken = Taken()
    taken.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 3)
    taken._receive_body()
    assert taken.bodies.pop() == b"ababab" and not taken._pieces
    taken.feed(b"1\r\nc\r\n0\r\nx-trailer: y\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nwhol")
    taken.feed(b"e")
    assert taken.bodies == [b"c", b"whole"]
    assert taken.headers == [(b"content-length", b"5")], "a trailer is no header"


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"GET /" + b"x" * LONGEST_URL + b" HTTP/1.1\r\n\r\n", UrlTooLong),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (MOST_HEADERS + 2), HeadTooLarge),
    ],
)
def test_a_head_has_bounds(head: bytes, error: type[RouterError]) -> None:
    taken = Taken()
    taken.feed(head)
    assert [type(each) for each in taken.refused] == [error]


def test_a_head_in_many_segments_has_a_bound() -> None:
    taken = Taken()
    for _ in range(LONGEST_HEAD >> 10):
        taken._count(1 << 10, body=False)
    assert not taken.refused
    taken._count(1, body=False)
    assert len(taken.refused) == 1
