"""Checks what the messages of a chat carry besides text: images, audio, video, tensors. Step 3; pure.

A media part has the engine fetch an address of the caller's choice, and run a decoder over whatever is there. So it is
off unless an endpoint allows it (`allow = ["media"]`), and addresses only of the hosts that the endpoint names
(`media_hosts`). Else the bytes come along, in a `data:` URL. The failure to survive is a part that the engine takes for
media and we for text. vLLM goes by `type`, or by the names of a part's fields where there is none. So here whatever is
not text in both ways counts as media. The engine is given the same hosts, follows no redirects, and so has the last
word.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from router.admission.fields import Wants, refuse, short, takes

MOST_MESSAGES = 10_000  # in one body
MOST_PARTS = 10_000  # of one message
MOST_MEDIA = 64  # parts of one body
TEXTS = frozenset(
    {"text", "input_text", "output_text", "reasoning_text", "summary_text", "refusal", "thinking", "redacted_thinking", "tool_reference",
     "tool_use", "tool_result"}
)  # fmt: skip
EMBEDDINGS = frozenset({"prompt_embeds", "image_embeds", "audio_embeds", "video_embeds", "image_pil"})
MEDIA = frozenset({"image_url", "input_image", "audio_url", "input_audio", "video_url", "image", "source"})
LONGEST_URL = 2048  # characters, of one that is fetched


@takes({"type": "array", "minItems": 1, "maxItems": MOST_MESSAGES, "items": {"type": "object"}})
def messages(value: Any, name: str, wants: Wants) -> None:
    """A rule: a list of messages, each an object."""
    if not isinstance(value, list) or not value:
        raise refuse(name, "must be a list of at least one message")
    if len(value) > MOST_MESSAGES:
        raise refuse(name, f"has {len(value)} messages; at most {MOST_MESSAGES} are taken")
    _check_each(value, name, ("content",), wants)


@takes(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "maxItems": MOST_MESSAGES, "items": {"type": "object"}},
        ]
    }
)
def items(value: Any, name: str, wants: Wants) -> None:
    """A rule: a text, or a list of what a response goes on from: messages, calls of tools and what they gave."""
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not value:
        raise refuse(name, "must be a string or a list of at least one item")
    if len(value) > MOST_MESSAGES:
        raise refuse(name, f"has {len(value)} items; at most {MOST_MESSAGES} are taken")
    _check_each(value, name, ("content", "output"), wants)


@takes({"anyOf": [{"type": "string"}, {"type": "array", "maxItems": MOST_PARTS}]})
def system(value: Any, name: str, wants: Wants) -> None:
    """A rule: a text or a list of parts."""
    if isinstance(value, list):
        _parts(value, name, wants)
    elif not isinstance(value, str):
        raise refuse(name, "must be a string or a list of text parts")


def _check_each(values: list[Any], name: str, keys: tuple[str, ...], wants: Wants) -> None:
    found = 0
    for number, message in enumerate(values):
        if not isinstance(message, dict):
            raise refuse(
                name, "has something in it that is no message: each must be an object with 'role' and 'content'"
            )
        for key in keys:
            content = message.get(key)
            if isinstance(content, list):
                found += _parts(content, f"{name}[{number}].{key}", wants)
    if found > MOST_MEDIA:
        raise refuse(name, f"has {found} images, sounds or videos; at most {MOST_MEDIA} are taken")


def _parts(parts: list[Any], name: str, wants: Wants) -> int:
    """How many of them are media."""
    if len(parts) > MOST_PARTS:
        raise refuse(name, f"has {len(parts)} parts; at most {MOST_PARTS} are taken")
    return sum(_part(part, f"{name}[{number}]", wants) for number, part in enumerate(parts))


def _part(part: Any, name: str, wants: Wants) -> bool:
    """Whether it is media.

    1. Tensors: never.
    2. Text by its `type` and by its fields' names; what a tool has answered may have parts of its own.
    3. Media by either; what is neither is refused, for it would be media to another engine.
    """
    if isinstance(part, str):
        return False
    if not isinstance(part, dict):
        raise refuse(name, "must be a string or an object with a 'type'")
    kind = part.get("type", "text" if "text" in part else None)
    if not isinstance(kind, str | None) or kind in EMBEDDINGS or not EMBEDDINGS.isdisjoint(part):  # 1
        raise refuse(
            name, "carries tensors or has no 'type', which is not served: send text, or an image as a data: URL"
        )
    media = MEDIA.intersection(part)
    if kind in TEXTS and not media:  # 2
        inner = part.get("content")
        return isinstance(inner, list) and _parts(inner, f"{name}.content", wants) > 0
    if kind not in MEDIA and not (media and (kind is None or kind in TEXTS)):  # 3
        raise refuse(name, f"is of the type {short(kind)}, which is not served: send text, or an image as a data: URL")
    wants.allowances.setdefault("media", name)
    for key in media:
        _address(part[key], f"{name}.{key}", wants)
    return True


def _address(value: Any, name: str, wants: Wants) -> None:
    """Where the media is: in the request itself, or behind a URL, whose host is noted."""
    url = value.get("url", value.get("file_url")) if isinstance(value, dict) else value
    if url is None:
        return  # bytes beside it, or an upload's id, which the engine refuses
    if not isinstance(url, str):
        raise refuse(name, "must have its URL as a string")
    if url[:5].lower() == "data:":
        return
    if len(url) > LONGEST_URL:
        raise refuse(name, f"has a URL of {len(url)} characters; at most {LONGEST_URL} are taken, or a data: URL")
    wants.hosts.setdefault(host_of(url, name), name)


def host_of(url: str, name: str) -> str:
    """The host that is asked for, as the engine will read it. Raises BadRequest for what is no plain http(s) URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    odd = any(character in url for character in "\\@ \t\r\n#") or not url.isascii() or not url.isprintable()
    if parts.scheme not in ("http", "https") or not host or odd or port not in (None, 80, 443):
        raise refuse(
            name, f"has a URL that is not fetched: send a data: URL, or a plain https://HOST/PATH, not {short(url)}"
        )
    return host
