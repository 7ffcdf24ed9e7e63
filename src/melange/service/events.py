"""What a session says while it works: what it is doing, and how far that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A task that takes time has begun, has got further, or has ended.

    Parameters
    ----------
    task
        What is done, in a few words: ``reading the traffic``.
    news
        How far it is, in words; empty where nothing is known yet.
    is_done
        Whether it has ended, with an answer or without.
    """

    task: str
    news: str = ""
    is_done: bool = False


Listener = Callable[[TaskEvent], None]


@contextmanager
def task(listener: Listener, words: str) -> Iterator[Callable[[float | str], None]]:
    """Say that something begins and ends; what is yielded tells how far it is: a share, 0-1, or words."""
    listener(TaskEvent(task=words))

    def tell(news: float | str) -> None:
        listener(TaskEvent(task=words, news=news if isinstance(news, str) else f"{news:.0%}"))

    try:
        yield tell
    finally:
        listener(TaskEvent(task=words, is_done=True))
