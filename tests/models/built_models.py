"""Models as transformers builds them, on torch's meta device: their parameters and the bytes of their caches.

Nothing here knows what melange reads: a model is built from its configuration, run on tokens that have no values, and
what it holds afterwards is counted.
"""

from __future__ import annotations

import json
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, logging
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

logging.set_verbosity(logging.CRITICAL)

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
TOKENS = (16, 4_000, 32_000)
_KNOWN = {"DynamicLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer"}
_PATIENCE_S = 30  # for one model: some run a loop over tokens


class CannotBuildError(Exception):
    """transformers itself cannot build the model, or run it without values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was built.

    Parameters
    ----------
    config
        Its configuration, as it would be saved.
    parameters
        Distinct weights.
    cache_bytes
        Cache by tokens, for as many as it could be run on [bytes].
    """

    config: dict[str, Any]
    parameters: int
    cache_bytes: dict[int, int]


def default_config(kind: str) -> Any:
    """The configuration of a type that nothing is said of."""
    with patience():
        return CONFIG_MAPPING[kind]()


def build(config: Any, *, with_cache: bool = True) -> Built:
    """Build a model and run it.

    Raises
    ------
    CannotBuildError
        Where transformers cannot.
    """
    with patience():
        config.use_cache = True
        content = json.loads(config.to_json_string(use_diff=False))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.bfloat16).eval()
        model.tie_weights()
        distinct = {id(one): one.numel() for one in model.parameters()}
    cache_bytes = _cache_bytes(model) if with_cache else {}
    return Built(config=content, parameters=sum(distinct.values()), cache_bytes=cache_bytes)


@contextmanager
def patience() -> Iterator[None]:
    """Whatever goes wrong in transformers, or takes it too long, is that it cannot build the model."""

    def give_up(*_: object) -> None:
        raise TimeoutError("takes too long")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_PATIENCE_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise CannotBuildError(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:150]}") from error
    finally:
        signal.alarm(0)


def _cache_bytes(model: Any) -> dict[int, int]:
    """Cache after this many tokens, until the model cannot be run on more."""
    for module in model.modules():
        if "Experts" in type(module).__name__:
            module.forward = _nothing  # experts choose by values, of which there are none; they hold no cache
    found: dict[int, int] = {}
    cache: Any = None
    try:
        for tokens in TOKENS:
            with patience():
                if cache is not None and _is_known(cache):
                    _lengthen(cache, tokens)
                else:
                    cache = _run(model, tokens)
                found[tokens] = _held_bytes(cache)
    except CannotBuildError:
        pass
    return {tokens: held for tokens, held in found.items() if held}


def _nothing(states: Any, *_: Any, **__: Any) -> Any:
    return torch.zeros_like(states)


def _run(model: Any, tokens: int) -> Any:
    with torch.no_grad(), torch.device("meta"):
        output = model(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=True)
    return next(output[name] for name in ("past_key_values", "cache_params", "state") if output.get(name) is not None)


def _is_known(cache: Any) -> bool:
    """Whether all layers are of transformers' own common kinds, which take more keys and values without a run.

    Runs over 32,000 tokens take seconds, and minutes where a layer loops over tokens; a state does not grow with them.
    """
    layers = getattr(cache, "layers", ())
    names = {type(one).__name__ for one in layers}
    return bool(layers) and all(name in _KNOWN or name.startswith("LinearAttention") for name in names)


def _lengthen(cache: Any, tokens: int) -> None:
    """Give the layers with keys and values as many of them as the tokens make."""
    length = max((one.get_seq_length() for one in cache.layers if getattr(one, "keys", None) is not None), default=0)
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or not length:
            continue
        more = tokens - length
        if getattr(layer, "indexer_keys", None) is not None:
            one = layer.indexer_keys[:, :1]
            layer.update_indexer(one.expand(one.shape[0], more, one.shape[2]))
        shapes = [(*one.shape[:2], more, one.shape[3]) for one in (keys, values)]
        layer.update(*(torch.zeros(shape, dtype=keys.dtype, device="meta") for shape in shapes))


def _held_bytes(cache: Any) -> int:
    """Bytes of all tensors that a cache holds, but for single numbers."""
    found: dict[int, int] = {}

    def visit(one: Any, depth: int) -> None:
        if isinstance(one, torch.Tensor):
            if one.numel() > 1:
                found[id(one)] = one.numel() * one.element_size()
        elif depth < 6 and isinstance(one, dict):
            for inner in one.values():
                visit(inner, depth + 1)
        elif depth < 6 and isinstance(one, list | tuple):
            for inner in one:
                visit(inner, depth + 1)
        elif depth < 6 and hasattr(one, "__dict__") and not re.match(r"torch\.", type(one).__module__):
            visit(vars(one), depth + 1)

    visit(cache, 0)
    return sum(found.values())
