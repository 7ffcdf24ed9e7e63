"""The size of a request, as far as a balancer can know before it is served."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import Any


def _refuse(name: str) -> None:
    raise ValueError(name)


# Of a prompt's beginning that tell conversations and documents apart. A judgment: a system prompt may be longer.
_KEY_LETTERS = 4096
_DECODER = json.JSONDecoder(parse_constant=_refuse)


class BadRequestError(Exception):
    """A request that no replica needs to see; its text is for the client."""


@dataclass(slots=True)  # not frozen: that would take as long as the policy's choice of a type
class Size:
    """A request as the policy sees it.

    Parameters
    ----------
    input_tokens
        Prompt length, at least 1 [tokens].
    max_tokens
        Longest completion that the client allows [tokens]; 0 where it does not say.
    is_stream
        Whether it wants tokens as they come.
    key
        A number in [0, 1), the same for requests of one conversation or user.
    """

    input_tokens: int
    max_tokens: int
    is_stream: bool
    key: float = field(default=0.0, repr=False, compare=False)


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises
    ------
    BadRequestError
        Anything else, including JSON that only Python reads (``NaN``, other encodings than UTF-8).
    """
    try:
        text = body.decode("utf-8").strip(" \t\n\r")
        content, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body must be a JSON object") from error
    if not isinstance(content, dict) or end != len(text):
        raise BadRequestError("the body must be a JSON object")
    return content


def size_of(content: dict[str, Any], is_chat: bool, bytes_per_token: float, *, has_key: bool = True) -> Size:
    """The size of a request: token ids counted, text by its bytes; without ``has_key`` its key is 0.

    >>> size_of({"prompt": "What is a melange?", "max_tokens": 64}, False, 4.0)
    Size(input_tokens=5, max_tokens=64, is_stream=False)
    >>> size_of({"prompt": [11, 12, 13], "stream": True}, False, 4.0)
    Size(input_tokens=3, max_tokens=0, is_stream=True)

    Raises
    ------
    BadRequestError
        No prompt, or values of another kind than the API has.
    """
    asked = content.get("max_completion_tokens")
    if asked is None:
        asked = content.get("max_tokens")
    if asked is None:
        asked = 0
    elif type(asked) is not int or not 0 < asked < 2**31:
        raise BadRequestError("max_tokens must be a whole number >= 1")
    stream = content.get("stream")
    if stream is not None and type(stream) is not bool:
        raise BadRequestError("stream must be true or false")
    tokens, text_bytes = _messages(content.get("messages")) if is_chat else _prompt(content.get("prompt"))
    # A byte more than a whole number of tokens is a token more.
    key = key_of(content, is_chat) if has_key else 0.0
    return Size(max(1, tokens + int(-(-text_bytes // bytes_per_token))), asked, bool(stream), key)


def key_of(content: dict[str, Any], is_chat: bool) -> float:
    """A number in [0, 1), the same for requests that share more than a system prompt.

    Of what the client says (``prompt_cache_key``), or of the first user message of a conversation, which all of its
    turns repeat, or of the beginning of a prompt.

    >>> first = {"role": "user", "content": "Hello"}
    >>> turns = [[first], [first, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "How are you?"}]]
    >>> len({key_of({"messages": turn}, True) for turn in turns})
    1
    """
    said: Any = content.get("prompt_cache_key")
    if type(said) is not str:
        said = content.get("prompt")
        if is_chat:
            said = next((one.get("content") for one in content["messages"] if one.get("role") == "user"), "")
        said = said if type(said) is str else repr(said)
    return zlib.crc32(said[:_KEY_LETTERS].encode("utf-8", "surrogatepass")) / 2**32


def _prompt(prompt: Any) -> tuple[int, int]:
    """Token ids and text bytes of a prompt, or of several."""
    if type(prompt) is str:
        return 0, _bytes(prompt)
    if type(prompt) is not list or not prompt:
        raise BadRequestError("prompt must be a text or a list of token ids")
    if type(prompt[0]) is int:
        if not all(type(one) is int for one in prompt):
            raise BadRequestError("prompt must be a text or a list of token ids")
        return len(prompt), 0
    if not all(type(one) is str or (type(one) is list and one and type(one[0]) is int) for one in prompt):
        raise BadRequestError("prompt must be a text or a list of token ids")
    several = [_prompt(one) for one in prompt]
    return sum(one[0] for one in several), sum(one[1] for one in several)


def _messages(messages: Any) -> tuple[int, int]:
    """Text bytes of a conversation; what is no text counts nothing."""
    if type(messages) is not list or not messages:
        raise BadRequestError("messages must be a list of messages")
    total = 0
    for message in messages:
        if type(message) is not dict:
            raise BadRequestError("messages must be a list of messages")
        content = message.get("content")
        if type(content) is str:
            total += _bytes(content)
        elif type(content) is list:
            texts = (part.get("text") for part in content if type(part) is dict)
            total += sum(_bytes(text) for text in texts if type(text) is str)
        elif content is not None:
            raise BadRequestError("the content of a message must be a text or a list of parts")
    return 0, total


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
