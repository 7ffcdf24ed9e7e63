from __future__ import annotations

import json

import pytest

from melange.deploy.live.completion import Completion


def stream(*events: object, done: bool = True) -> bytes:
    """Server-sent events."""
    texts = [json.dumps(event) for event in events] + ["[DONE]"] * done
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def text(piece: str) -> dict[str, object]:
    """An event of a completion."""
    return {"choices": [{"index": 0, "text": piece}]}


def said(**delta: str | None) -> dict[str, object]:
    """An event of a chat."""
    return {"choices": [{"index": 0, "delta": delta}]}


SPEAKER = said(role="assistant", content="")


def tokens_of(data: bytes, step: int) -> int:
    """The length that is learned when a stream comes in pieces of this many bytes."""
    completion = Completion(is_stream=True)
    for start in range(0, len(data), step):
        completion.note(data[start : start + step], float(start))
    return completion.output_tokens


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (stream(*[text("a")] * 5), 5),
        (stream(*[text("")] * 3), 3),  # bytes that make no character yet are a token too
        (stream(SPEAKER, *[said(content="a")] * 4), 4),
        (stream(*[said(role="assistant", content="a")] * 4), 4),  # some name the speaker every time
        (stream(SPEAKER, said(reasoning_content="hm"), said(content="a"), said(content=None)), 2),
        (stream(*[text("a")] * 5, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 31}}), 31),
        (stream(*[text("a") | {"usage": {"completion_tokens": k}} for k in (1, 2, 3)]), 3),
        (stream(*[text('"text": "x" {"completion_tokens": 99}')] * 2), 2),  # what is said is not what is counted
        (stream(done=True), 0),
        (stream(text("a"), done=False)[:-9], 0),
    ],
)
def test_tokens_of_a_stream_however_it_is_cut(data: bytes, tokens: int, step: int) -> None:
    """By the usage block where there is one, else by events with text; the same for pieces of any size."""
    assert tokens_of(data, step) == tokens


def test_times_are_those_of_tokens() -> None:
    """The first and the last event with text count, not the speaker's name nor the end."""
    completion = Completion(is_stream=True)
    for moment_s, event in ((1.0, SPEAKER), (2.0, said(content="a")), (5.0, said(content="b"))):
        completion.note(stream(event, done=False), moment_s)
    completion.note(stream(), 9.0)
    assert (completion.first_s, completion.last_s, completion.chunks) == (2.0, 5.0, 2)


def test_a_whole_completion_tells_by_its_usage_block() -> None:
    """Wherever its pieces were cut; nothing where there is no such block."""
    data = json.dumps({"choices": [{"text": "abc"}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()
    completion = Completion(is_stream=False)
    for start in range(0, len(data), 5):
        completion.note(data[start : start + 5], 4.0)
    assert (completion.input_tokens, completion.output_tokens, completion.last_s) == (7, 3, 4.0)
    bare = Completion(is_stream=False)
    bare.note(b'{"choices": []}', 1.0)
    assert (bare.input_tokens, bare.output_tokens) == (0, 0)


def test_little_of_a_long_stream_is_kept() -> None:
    """A stream of any length takes some kilobytes, also one whose line does not end."""
    completion = Completion(is_stream=True)
    for _ in range(1000):
        completion.note(stream(*[text("a")] * 50, done=False), 1.0)
        completion.note(b"x" * 1000, 1.0)
    assert len(completion.tail) + len(completion.rest) < 2**17
