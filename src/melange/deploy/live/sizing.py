"""The size of a request, as far as a balancer can know it in advance."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def _refuse(name: str) -> None:
    raise ValueError(name)


# Bytes at the start of a prompt that distinguish conversations and documents. Chosen by judgment: a system prompt may
# be longer.
_KEY_LETTERS = 4096
_DECODER = json.JSONDecoder(parse_constant=_refuse)


class BadRequestError(Exception):
    """A request that is not sent to a replica; its text is for the client."""


@dataclass(slots=True)  # not frozen: creating a frozen one would take as long as the policy's choice of a type
class Size:
    """A request as seen by the policy.

    Parameters
    ----------
    input_tokens
        Prompt length, at least 1 [tokens].
    max_tokens
        Longest completion that the client allows [tokens]; 0 if it sets no limit.
    is_stream
        Whether the client wants tokens as a stream.
    key
        A number in [0, 1) that is equal for requests of one conversation or user.
    class_place
        Index of its class in the plan; 0 if there are no classes.
    """

    input_tokens: int
    max_tokens: int
    is_stream: bool
    key: float = field(default=0.0, repr=False, compare=False)
    class_place: int = field(default=0, repr=False, compare=False)


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises
    ------
    BadRequestError
        The body is anything else, including JSON that only Python accepts (``NaN``, other encodings than UTF-8).
    """
    try:
        text = body.decode("utf-8").strip(" \t\n\r")
        content, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body must be a JSON object") from error
    if not isinstance(content, dict) or end != len(text):
        raise BadRequestError("the body must be a JSON object")
    return content


def with_priority(body: bytes, content: dict[str, Any], priority: int) -> bytes:
    """A request's body with the given priority instead of the client's.

    >>> with_priority(b'{"prompt": "a"} ', {"prompt": "a"}, 5)
    b'{"prompt": "a", "priority": 5}'
    """
    if "priority" in content:
        return json.dumps(content | {"priority": priority}).encode()
    return b'%b, "priority": %d}' % (body[: body.rindex(b"}")], priority)


def tokens_of(content: dict[str, Any], names: tuple[str, ...]) -> int:
    """Longest response that a request allows [tokens]; 0 if there is no limit.

    Raises
    ------
    BadRequestError
        The limit is not a whole number >= 1.
    """
    for name in names:
        asked = content.get(name)
        if asked is not None:
            if type(asked) is not int or not 0 < asked < 2**31:
                raise BadRequestError(f"{names[-1]} must be a whole number >= 1")
            return asked
    return 0


def key_of(content: dict[str, Any], said: Callable[[dict[str, Any]], Any]) -> float:
    """A number in [0, 1) that is equal for requests that share more than a system prompt.

    It is a hash of the client's ``prompt_cache_key``, or of a conversation's first user message, which all its turns
    repeat, or of the start of a prompt.

    >>> len({key_of({"prompt": "Hello"}, lambda content: content["prompt"]) for _ in range(2)})
    1
    """
    text: Any = content.get("prompt_cache_key")
    if type(text) is not str:
        text = said(content)
        text = text if type(text) is str else repr(text)
    return zlib.crc32(text[:_KEY_LETTERS].encode("utf-8", "surrogatepass")) / 2**32


def prompt_of(prompt: Any, name: str) -> tuple[int, int]:
    """Token ids and text bytes of one or several prompts in a field of that name."""
    if type(prompt) is str:
        return 0, _bytes(prompt)
    if type(prompt) is not list or not prompt:
        raise BadRequestError(f"{name} must be a string or a list of token ids")
    if type(prompt[0]) is int:
        if not all(type(one) is int for one in prompt):
            raise BadRequestError(f"{name} must be a string or a list of token ids")
        return len(prompt), 0
    if not all(type(one) is str or (type(one) is list and one and type(one[0]) is int) for one in prompt):
        raise BadRequestError(f"{name} must be a string or a list of token ids")
    several = [prompt_of(one, name) for one in prompt]
    return sum(one[0] for one in several), sum(one[1] for one in several)


def messages_of(messages: Any) -> tuple[int, int]:
    """Text bytes of a conversation; content that is not text is not counted."""
    if type(messages) is not list or not messages:
        raise BadRequestError("messages must be a list of messages")
    total = 0
    for message in messages:
        if type(message) is not dict:
            raise BadRequestError("messages must be a list of messages")
        total += texts_of(message.get("content"))
    return 0, total


def texts_of(content: Any) -> int:
    """Bytes of a text, or of the texts in a list of parts; parts that are not text are not counted.

    Raises
    ------
    BadRequestError
        The value is neither, nor null.
    """
    if type(content) is str:
        return _bytes(content)
    if type(content) is list:
        texts = (part.get("text") for part in content if type(part) is dict)
        return sum(_bytes(text) for text in texts if type(text) is str)
    if content is not None:
        raise BadRequestError("the content of a message must be a string or a list of parts")
    return 0


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
