"""Progress events of a session: the current task and its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A long task has started, progressed or ended.

    Parameters
    ----------
    task
        The task, in a few words: ``reading the traffic``.
    news
        Progress, in words; empty if not known yet.
    is_done
        Whether the task has ended, successfully or not.
    """

    task: str
    news: str = ""
    is_done: bool = False


Listener = Callable[[TaskEvent], None]


def silence(_: TaskEvent) -> None:
    """Ignore events."""


@contextmanager
def task(listener: Listener, words: str) -> Iterator[Callable[[float | str], None]]:
    """Report the start and end of a task; the yielded function reports progress: a share, 0-1, or words."""
    listener(TaskEvent(task=words))

    def tell(news: float | str) -> None:
        listener(TaskEvent(task=words, news=news if isinstance(news, str) else f"{news:.0%}"))

    try:
        yield tell
    finally:
        listener(TaskEvent(task=words, is_done=True))
