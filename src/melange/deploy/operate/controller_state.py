"""The state of a controller between iterations, in a file that is replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from melange.deploy.operate.observation import rates_from
from melange.files import Json, read_as, write_document
from melange.records import items, mapping, number, record, text, value_of
from melange.workload.workload import Array

# Number of windows in the state: rules look back on them, and they show how long a smaller fleet would have been
# enough. With more windows a controller can rely on a longer quiet period, and the file is larger.
MOST_WINDOWS = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """The exclusion of a type that failed.

    Parameters
    ----------
    until_s
        Time from which the type may be ordered again (Unix time) [s].
    times
        Number of consecutive failures.
    reason
        Why it failed.
    """

    until_s: float
    times: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """The traffic of a window.

    Parameters
    ----------
    end_s
        End of the window (Unix time) [s].
    request_rate
        Arrivals per second by size (I, O) [1/s].
    """

    end_s: float
    request_rate: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ControllerState:
    """The state of a controller.

    Parameters
    ----------
    target
        Target number of instances by replica type name; None before the first iteration.
    windows
        The traffic of the last windows, the newest last.
    excluded
        Exclusions of types that failed, by name; a type that may be ordered again stays here until it serves.
    changes_s
        Times of the changes of ``target`` in the last hour (Unix time) [s].
    voluntary_s
        Times of the changes that reduced the fleet or changed the mix (Unix time) [s].
    mixed_at_s
        Time of the last search for a cheaper fleet (Unix time) [s].
    decisions
        Number of iterations.
    no_room
        Instances that were wanted but not available at the last decision, in words; empty: none.
    """

    target: Mapping[str, int] | None = None
    windows: tuple[Window, ...] = ()
    excluded: Mapping[str, Exclusion] = field(default_factory=dict)
    changes_s: tuple[float, ...] = ()
    voluntary_s: tuple[float, ...] = ()
    mixed_at_s: float = 0.0
    decisions: int = 0
    no_room: str = ""

    def rates(self) -> Array:
        """The rates of the windows in the state (W, I, O) [1/s]."""
        return np.stack([one.request_rate for one in self.windows])

    def with_window(self, end_s: float, request_rate: Array) -> tuple[Window, ...]:
        """The windows with a new one; the oldest are dropped beyond the maximum number."""
        # Six digits are more precise than any measured rate, and keep the file short.
        rounded = np.array([[float(f"{value:.6g}") for value in row] for row in request_rate])
        return (*self.windows, Window(end_s=end_s, request_rate=rounded))[-MOST_WINDOWS:]

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "target": None if self.target is None else dict(self.target),
            "windows": [{"end_s": one.end_s, "request_rate": one.request_rate.tolist()} for one in self.windows],
            "excluded": {name: asdict(one) for name, one in self.excluded.items()},
            "changes_s": list(self.changes_s),
            "voluntary_s": list(self.voluntary_s),
            "mixed_at_s": self.mixed_at_s,
            "decisions": self.decisions,
            "no_room": self.no_room,
        }

    @classmethod
    def from_json(cls, content: Json) -> ControllerState:
        """From the JSON object that :meth:`to_json` makes."""
        windows = [
            Window(
                end_s=number(one["end_s"], f"{at}.end_s"),
                request_rate=rates_from(one["request_rate"], f"{at}.request_rate"),
            )
            for at, one in items(content["windows"], "windows")
        ]
        return cls(
            target=value_of(Mapping[str, int] | None, content["target"], "target"),
            windows=tuple(windows),
            excluded={
                name: record(Exclusion, one, f"excluded.{name}")
                for name, one in mapping(content["excluded"], "excluded").items()
            },
            changes_s=value_of(tuple[float, ...], content["changes_s"], "changes_s"),
            # Older files lack this field: all changes count as voluntary, as they did then.
            voluntary_s=value_of(tuple[float, ...], content.get("voluntary_s", content["changes_s"]), "voluntary_s"),
            mixed_at_s=number(content["mixed_at_s"], "mixed_at_s"),
            decisions=value_of(int, content["decisions"], "decisions"),
            no_room=text(content.get("no_room", ""), "no_room"),
        )

    def save(self, path: Path) -> None:
        """Replace the file atomically: even after a crash, it contains the old state or the new one."""
        write_document(path, "operate-state", self.to_json())

    @classmethod
    def read(cls, path: Path) -> ControllerState:
        """The state in a file; an empty state if there is no file yet."""
        return read_as(path, "operate-state", cls.from_json) if path.exists() else cls()
