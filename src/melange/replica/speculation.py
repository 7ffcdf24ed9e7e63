"""Speculative decoding: draft tokens that a step verifies together with the next token, and the share it accepts.

With ``k`` draft tokens, each accepted with probability ``a`` if the previous ones were, a step generates
``(1 - a^(k + 1)) / (1 - a)`` tokens for each running request (Leviathan et al., arXiv 2211.17192, equation 1) and
computes ``k + 1`` of them. At small batch sizes, where reading the weights limits steps, the additional tokens are
free; at large batch sizes arithmetic limits, and they cost more than they gain.
"""

from __future__ import annotations

from dataclasses import dataclass

from melange.errors import InputError, unknown

# Methods of drafting tokens, by vLLM's names (``speculative_config.method``).
NGRAM, DRAFT_MODEL, EAGLE, MTP = "ngram", "draft_model", "eagle3", "mtp"
METHODS = (NGRAM, DRAFT_MODEL, EAGLE, MTP)
# Longer drafts are almost never accepted in full.
_MOST_DRAFT_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """An engine's settings for speculation.

    Parameters
    ----------
    draft_tokens
        Draft tokens for each running request and step, at least 1.
    accepted_share
        Probability that a draft token is accepted if the previous ones were, 0-1: measured on the service's own
        traffic.
    method
        Source of drafts: ``ngram`` (the prompt itself, which costs nothing here), ``draft_model`` (a small model),
        ``eagle3`` or ``mtp`` (a layer on top of the model).
    model
        Name of the draft model, or of the layer's weights; empty if the method needs none.

    Raises
    ------
    InputError
        Values out of range, an unknown method, a method without its model.
    """

    draft_tokens: int
    accepted_share: float
    method: str = NGRAM
    model: str = ""

    def __post_init__(self) -> None:
        place = "engine.speculative"
        if not 1 <= self.draft_tokens <= _MOST_DRAFT_TOKENS:
            found = f"got {self.draft_tokens}"
            raise InputError(f"{place}.num_speculative_tokens must be 1 to {_MOST_DRAFT_TOKENS}, {found}")
        if not 0 <= self.accepted_share < 1:
            raise InputError(
                f"{place}.acceptance_rate must be in [0, 1), got {self.accepted_share:g}",
                hint="the share of draft tokens that the server's metrics report as accepted",
            )
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS, place=place)
        if self.method in (DRAFT_MODEL, EAGLE) and not self.model:
            raise InputError(f"{place}.model is missing: {self.method} needs one", hint="name its weights, or ngram")

    def __str__(self) -> str:
        drafts = f"{self.method}{f' {self.model}' if self.model else ''}, {self.draft_tokens} draft tokens"
        return f"speculative decoding ({drafts}, {self.accepted_share:.0%} accepted)"

    @property
    def step_tokens(self) -> float:
        """Mean number of tokens that a step generates for each running request."""
        rate = self.accepted_share
        return (1.0 - rate ** (self.draft_tokens + 1)) / (1.0 - rate)
