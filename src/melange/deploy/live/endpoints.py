"""API endpoints of replicas: where the prompt is, what limits the response, and how its length is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melange.deploy.live.completion import CHOICES, EVENTS, Lengths
from melange.deploy.live.sizing import BadRequestError, Size, key_of, messages_of, prompt_of, texts_of, tokens_of


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API.

    Parameters
    ----------
    prompt
        Returns token ids and text bytes of the prompt in a request's body.
    said
        Returns the text that identifies a conversation.
    limits
        Fields that limit the length of the response, in order of precedence; empty: there are no output tokens.
    lengths
        How to find the length of responses.
    """

    prompt: Callable[[dict[str, Any]], tuple[int, int]]
    said: Callable[[dict[str, Any]], Any]
    limits: tuple[str, ...]
    lengths: Lengths

    def size_of(self, content: dict[str, Any], bytes_per_token: float, *, has_key: bool = True) -> Size:
        """The size of a request: counted token ids plus an estimate for text; without ``has_key``, its key is 0.

        >>> ENDPOINTS[b"/v1/completions"].size_of({"prompt": "What is a melange?", "max_tokens": 64}, 4.0)
        Size(input_tokens=5, max_tokens=64, is_stream=False)
        >>> ENDPOINTS[b"/v1/completions"].size_of({"prompt": [11, 12, 13], "stream": True}, 4.0)
        Size(input_tokens=3, max_tokens=0, is_stream=True)
        >>> ENDPOINTS[b"/v1/responses"].size_of({"input": "What is a melange?", "max_output_tokens": 9}, 4.0)
        Size(input_tokens=5, max_tokens=9, is_stream=False)
        >>> ENDPOINTS[b"/v1/embeddings"].size_of({"input": ["What is", "a melange?"]}, 4.0)
        Size(input_tokens=5, max_tokens=1, is_stream=False)

        Raises
        ------
        BadRequestError
            The body has no prompt, or values of wrong types.
        """
        stream = content.get("stream")
        if stream is not None and type(stream) is not bool:
            raise BadRequestError("stream must be true or false")
        most = tokens_of(content, self.limits) if self.limits else 1
        tokens, text_bytes = self.prompt(content)
        key = key_of(content, self.said) if has_key else 0.0
        # Round up: one byte more than a whole number of tokens counts as another token.
        return Size(max(1, tokens + int(-(-text_bytes // bytes_per_token))), most, bool(stream), key)


def _items(content: dict[str, Any]) -> tuple[int, int]:
    """Text of a response's input, including the instructions before it."""
    given, instructions = content.get("input"), content.get("instructions")
    if instructions is not None and type(instructions) is not str:
        raise BadRequestError("instructions must be a string")
    before = texts_of(instructions)
    if type(given) is str:
        return 0, before + texts_of(given)
    if type(given) is not list or not given or not all(type(one) is dict for one in given):
        raise BadRequestError("input must be a string or a list of items")
    # Messages have content; function calls have arguments, and their results have output.
    return 0, before + sum(texts_of(one.get(name)) for one in given for name in ("content", "arguments", "output"))


def _embedded(content: dict[str, Any]) -> tuple[int, int]:
    """The input to embed: a text, ids, or several of them; vLLM also accepts a conversation."""
    if "input" not in content and "messages" in content:
        return messages_of(content["messages"])
    return prompt_of(content.get("input"), "input")


def _first_item(content: dict[str, Any]) -> Any:
    given = content.get("input")
    return _first_of_user(given) if type(given) is list else given


def _first_of_user(messages: list[Any]) -> Any:
    """The first user message, which all turns of a conversation repeat."""
    users = (one.get("content") for one in messages if type(one) is dict and one.get("role") == "user")
    return next(users, "")


ENDPOINTS = {
    b"/v1/completions": Endpoint(
        prompt=lambda content: prompt_of(content.get("prompt"), "prompt"),
        said=lambda content: content.get("prompt"),
        limits=("max_completion_tokens", "max_tokens"),
        lengths=CHOICES,
    ),
    b"/v1/chat/completions": Endpoint(
        prompt=lambda content: messages_of(content.get("messages")),
        said=lambda content: _first_of_user(content["messages"]),
        limits=("max_completion_tokens", "max_tokens"),
        lengths=CHOICES,
    ),
    b"/v1/responses": Endpoint(prompt=_items, said=_first_item, limits=("max_output_tokens",), lengths=EVENTS),
    b"/v1/embeddings": Endpoint(
        prompt=_embedded, said=lambda content: content.get("input"), limits=(), lengths=CHOICES
    ),
}
