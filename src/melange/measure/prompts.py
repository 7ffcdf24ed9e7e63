"""Prompts of an exact length: token ids if the server takes them, else words with known token counts."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from melange.errors import MeasurementError

# Short, common words of one or two tokens in nearly every vocabulary.
WORDS = (
    *("time", "year", "way", "day", "man", "world", "life", "hand", "part", "child", "eye", "woman", "place", "work"),
    *("week", "case", "point", "company", "number", "group", "problem", "fact", "water", "house", "night", "area"),
)
_OPENING = "the"
# A word is used if this many repetitions give a whole number of tokens per word: more repetitions are more reliable,
# but make the prompt longer. Chosen by judgment.
_REPEATS = 16
# Ids that exist in every vocabulary of practical size and are not special tokens in most.
_PLAIN_IDS = tuple(range(1000, 1800))

Count = Callable[[str], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The token ids or words that prompts consist of.

    Parameters
    ----------
    ids
        Token ids to choose from; empty if prompts are words.
    words
        Words to choose from, each with its token count after a blank.
    fixed_tokens
        Extra tokens in every prompt: from a template, a start token, or the opening word.
    """

    ids: tuple[int, ...] = ()
    words: tuple[tuple[str, int], ...] = ()
    fixed_tokens: int = 0

    def prompt(self, tokens: int, choose: random.Random) -> list[int] | str:
        """A random prompt of ``tokens`` tokens; because it is random, no cache contains its prefix.

        >>> Vocabulary(ids=(7,)).prompt(3, random.Random(0))
        [7, 7, 7]
        >>> Vocabulary(words=(("a", 1), ("b", 2)), fixed_tokens=1).prompt(2, random.Random(0))
        'the a'
        """
        left = max(tokens - self.fixed_tokens, 1 if self.ids else 0)
        if self.ids:
            return choose.choices(self.ids, k=left)
        text = [_OPENING]
        single = [word for word, count in self.words if count == 1]
        most = max(count for _, count in self.words)
        while left >= most:
            word, count = choose.choice(self.words)
            text.append(word)
            left -= count
        return " ".join(text + choose.choices(single, k=left))


def body_of(
    vocabulary: Vocabulary, is_chat: bool, tokens: int, output_tokens: int, choose: random.Random
) -> dict[str, Any]:
    """The part of a request that holds the prompt and the length of the answer."""
    prompt = vocabulary.prompt(tokens, choose)
    asked = {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
    return {**asked, "max_tokens": output_tokens}


async def counted_words(count: Count, place: str) -> Vocabulary:
    """Words with their token counts, measured with prompts that repeat them.

    Vocabularies split text at blanks first, so token counts of words add up; words for which they do not are left out.

    Raises
    ------
    MeasurementError
        No word is a single token, so exact lengths cannot be reached.
    """
    fixed = await count(_OPENING)
    words = []
    for word in WORDS:
        more = await count(_OPENING + f" {word}" * _REPEATS) - fixed
        if more > 0 and more % _REPEATS == 0:
            words.append((word, more // _REPEATS))
    if not any(tokens == 1 for _, tokens in words):
        raise MeasurementError(
            f"{place}: prompt lengths cannot be controlled: none of {len(WORDS)} test words is a single token",
            hint="use a server that accepts token ids as prompts (/v1/completions of vLLM, SGLang, TensorRT-LLM)",
        )
    return Vocabulary(words=tuple(words), fixed_tokens=fixed)


def id_vocabulary(known: Sequence[int], fixed_tokens: int = 0) -> Vocabulary:
    """Token ids from the server's own tokenizer, or plain ids if the server has none."""
    return Vocabulary(ids=tuple(sorted(set(known))) or _PLAIN_IDS, fixed_tokens=fixed_tokens)
