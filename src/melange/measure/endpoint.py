"""A server under test: its model, the requests it accepts, and how to make prompts of a given length."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from melange.errors import MeasurementError, unknown
from melange.measure.answer import SHOWN, Answer, ask
from melange.measure.prompts import WORDS, Vocabulary, body_of, counted_words, id_vocabulary
from melange.measure.steps import EngineLimits
from melange.workload.scrapes import labels_of

if TYPE_CHECKING:
    import aiohttp

# How long a server may report that it is busy, and how long it may refuse connections or not answer [s]; after that it
# counts as absent. A wrong address should be reported before the user wonders what is happening.
_PATIENCE_S, _SILENCE_S = 30.0, 3.0
# First and longest wait between retries [s].
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 4.0
_UNREACHABLE = "cannot connect"
# Input and output tokens of the trial request: few, for a fast answer. Chosen by judgment.
_TRIAL_TOKENS = (32, 4)
# Fields that make completions run to their full length on the servers that know them, strictest first.
_FULL_LENGTH: tuple[tuple[str, ...], ...] = (("ignore_eos", "min_tokens"), ("ignore_eos",), ("min_tokens",), ())
_CACHE = re.compile(r"^vllm:cache_config_info\{(?P<labels>[^}]*)\}", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server and how to send requests to it.

    Parameters
    ----------
    url
        Its address, without ``/v1``.
    model
        The server's name of its model.
    is_chat
        Whether requests use ``/v1/chat/completions`` rather than completions.
    vocabulary
        The words or token ids for prompts.
    full_length
        Fields that make completions run to their full length.
    max_context
        Longest prompt plus completion [tokens]; None if the server does not report it.
    kv_tokens, block_tokens
        Capacity of its KV cache, and tokens per block; None if the server does not report them (vLLM does).
    choose
        Random generator that draws the words of prompts.
    """

    url: str
    model: str
    is_chat: bool
    vocabulary: Vocabulary
    full_length: tuple[str, ...] = ()
    max_context: int | None = None
    kv_tokens: int | None = None
    block_tokens: int | None = None
    choose: random.Random = field(default_factory=lambda: random.Random(0), repr=False, compare=False)

    @property
    def target(self) -> str:
        """The URL for requests."""
        return f"{self.url}/v1/{'chat/' if self.is_chat else ''}completions"

    def body(self, input_tokens: int, output_tokens: int) -> dict[str, Any]:
        """A request of the given size with a new prompt, which is in no cache."""
        asked = body_of(self.vocabulary, self.is_chat, input_tokens, output_tokens, self.choose)
        return {
            "model": self.model,
            **asked,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_full_length(self.full_length, output_tokens),
        }

    def limits(self) -> EngineLimits:
        """The limits of its engine, as far as the server reports them."""
        unsaid = EngineLimits()
        return EngineLimits(
            max_context=self.max_context or unsaid.max_context,
            kv_tokens=self.kv_tokens or unsaid.kv_tokens,
            block_tokens=self.block_tokens or unsaid.block_tokens,
        )

    def __str__(self) -> str:
        prompts = "token ids" if self.vocabulary.ids else "words"
        return f"{self.model} at {self.target}, prompts of {prompts}"


def _full_length(names: tuple[str, ...], output_tokens: int) -> dict[str, Any]:
    values = {"ignore_eos": True, "min_tokens": output_tokens}
    return {name: values[name] for name in names}


async def connect(
    session: aiohttp.ClientSession, url: str, model: str = "", *, patience_s: float = _PATIENCE_S, seed: int = 0
) -> Endpoint:
    """Find out by trial requests how to send requests to a server.

    Parameters
    ----------
    session
        The client's session, with its credentials.
    url
        The server's address, with or without ``/v1``.
    model
        The model's name; empty: the only model that the server has.
    patience_s
        How long the server may answer that it is busy (429 or 5xx) [s]; if it does not answer at all, the limit is 3 s.
    seed
        Seed of the prompts.

    Raises
    ------
    MeasurementError
        No connection, no such model, no request format that the server accepts, or answers without token counts.
    """
    place = url.rstrip("/").removesuffix("/v1")
    served = await _models(session, place, patience_s)
    if model and model not in served:
        raise MeasurementError(f"{place}: {unknown('model', model, served)}")
    if not model and len(served) > 1:
        raise MeasurementError(f"{place}: serves {', '.join(served)}", hint="choose one with --model")
    name = model or next(iter(served))
    cache = await _cache(session, place)
    known = id_vocabulary(await _token_ids(session, place, name))
    plain = Endpoint(
        url=place,
        model=name,
        is_chat=False,
        vocabulary=known,
        max_context=served[name],
        kv_tokens=cache.get("kv_cache_size_tokens"),
        block_tokens=cache.get("block_size"),
        choose=random.Random(seed),
    )
    complaints = []
    for is_chat, vocabulary in ((False, known), (False, None), (True, None)):
        for full_length in _FULL_LENGTH:
            trial = vocabulary or Vocabulary(words=tuple((word, 1) for word in WORDS))
            endpoint = replace(plain, is_chat=is_chat, vocabulary=trial, full_length=full_length)
            answer = await ask(session, endpoint.target, endpoint.body(*_TRIAL_TOKENS), 0.0)
            if not answer.failure:
                return await _exact(session, endpoint, answer, is_text=vocabulary is None)
            complaints.append(f"{endpoint.target}: {answer.failure}")
            if answer.status != 400 and answer.status != 422:
                break
    raise MeasurementError(
        f"{place}: the server rejects all of our requests; its last response: {complaints[-1]}",
        hint="it must serve /v1/completions or /v1/chat/completions with stream: true",
    )


async def _exact(session: aiohttp.ClientSession, trial: Endpoint, answer: Answer, *, is_text: bool) -> Endpoint:
    """The endpoint, with prompts of the right length."""
    if not answer.is_counted:
        raise MeasurementError(
            f"{trial.target}: its streams have no usage block, so lengths cannot be checked",
            hint="use a server that supports stream_options.include_usage",
        )
    if not is_text:
        vocabulary = id_vocabulary(trial.vocabulary.ids, answer.input_tokens - _TRIAL_TOKENS[0])
    else:

        async def count(text: str) -> int:
            said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if trial.is_chat else {}
            asked = trial.body(1, 1) | (said or {"prompt": text})
            counted = await ask(session, trial.target, asked, 0.0)
            if counted.failure:
                raise MeasurementError(f"{trial.target}: {counted.failure}")
            return counted.input_tokens

        vocabulary = await counted_words(count, trial.target)
    return replace(trial, vocabulary=vocabulary)


async def _models(session: aiohttp.ClientSession, place: str, patience_s: float) -> Mapping[str, int | None]:
    """Names of the served models, each with its context limit; waits while the server is busy or starting."""
    import aiohttp

    now = asyncio.get_running_loop().time
    silence_s = min(_SILENCE_S, patience_s)
    start, wait_s = now(), _FIRST_WAIT_S
    timeout = aiohttp.ClientTimeout(total=silence_s)
    while True:
        allowed_s = silence_s
        try:
            async with session.get(f"{place}/v1/models", allow_redirects=False, timeout=timeout) as response:
                if response.status == 200:
                    return _names(await response.json(content_type=None), place)
                found = f"HTTP {response.status}: {(await response.text())[:SHOWN]}"
                allowed_s = patience_s if response.status >= 500 or response.status == 429 else 0.0
        except aiohttp.InvalidURL as error:
            found, allowed_s = f"{error}", 0.0
        except aiohttp.ClientConnectorError as error:
            found = f"{_UNREACHABLE}: {_reason_of(error)}"
        except TimeoutError:
            found = f"no answer within {silence_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            found = f"{error}"
        if now() + wait_s > start + allowed_s:
            listed = f"{place}/v1/models: must list the served models, got: {found}"
            raise MeasurementError(
                f"{place}: {found}" if found.startswith(_UNREACHABLE) else listed,
                hint="check that the server runs and the address is right; if it needs a key, set MELANGE_API_KEY",
            )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _names(content: Any, place: str) -> dict[str, int | None]:
    listed = content.get("data") if isinstance(content, dict) else None
    names = {
        one["id"]: one.get("max_model_len")
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("id"), str)
    }
    if not names:
        raise MeasurementError(f"{place}/v1/models: lists no models")
    return names


async def _token_ids(session: aiohttp.ClientSession, place: str, model: str) -> list[int]:
    """Ids of some plain words; empty if the server has no ``/tokenize``."""
    import aiohttp

    try:
        body = {"model": model, "prompt": " ".join(WORDS), "add_special_tokens": False}
        async with session.post(f"{place}/tokenize", json=body, allow_redirects=False) as response:
            content = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return []
    tokens = content.get("tokens") if isinstance(content, dict) else None
    return [one for one in tokens if isinstance(one, int)] if isinstance(tokens, list) else []


async def _cache(session: aiohttp.ClientSession, place: str) -> dict[str, int]:
    """What vLLM's metrics say about the KV cache; empty if they say nothing."""
    import aiohttp

    try:
        async with session.get(f"{place}/metrics", allow_redirects=False) as response:
            found = _CACHE.search(await response.text())
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return {}
    labels = labels_of(found["labels"]) if found else {}
    cache = {name: int(value) for name, value in labels.items() if value.isdigit()}
    if "kv_cache_size_tokens" not in cache and {"num_gpu_blocks", "block_size"} <= set(cache):
        cache["kv_cache_size_tokens"] = cache["num_gpu_blocks"] * cache["block_size"]
    return cache


def _reason_of(error: aiohttp.ClientConnectorError) -> str:
    """Why a connection failed; the error codes of name resolution are not system error codes."""
    if isinstance(error.os_error, socket.gaierror):
        return "the host's name is not known"
    return os.strerror(error.errno) if error.errno else f"{error}"
