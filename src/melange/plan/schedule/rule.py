"""The rule by which the rest of a fleet follows the traffic, as a scaler can run it.

Every window, for each signal j:

    load_j   = sum over sizes of request_weight_j x request rate        load of the traffic
    ahead_j  = (1 + margin) x the last load, the highest of some, or a line through them
    wanted_j = ceil((ahead_j / target - reserved_j) / per_instance_j)

The number of instances is the highest that any signal wants. It goes down only after ``stable_windows`` windows that
wanted no more. HPA and KEDA also take the highest of several metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from melange.errors import InputError
from melange.files import Json
from melange.records import items, number, record, whole
from melange.units import count_of
from melange.workload.workload import Array, Buckets

LAST, HIGHEST, LINE = "last", "highest", "line"
AHEAD = (LAST, HIGHEST, LINE)


# Most windows that a rule looks back or waits for: the minutes of a week. Each one takes memory.
_MOST_WINDOWS = 10_080


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signal:
    """One weighted sum of request rates, in instances of the scaled type.

    Parameters
    ----------
    request_weight
        Load that one request per second of each size adds (I, O) [instances]; 0 for sizes without traffic.
    reserved_load
        Load that the reserved instances carry [instances].
    """

    request_weight: Array
    reserved_load: float

    def to_json(self) -> Json:
        """As a JSON object."""
        return {"request_weight": self.request_weight.tolist(), "reserved_load": self.reserved_load}

    @classmethod
    def from_json(cls, content: Json) -> Signal:
        """From the JSON object that :meth:`to_json` makes."""
        rows = [
            [number(v, where) for where, v in items(row, at)] for at, row in items(content["request_weight"], "weight")
        ]
        return cls(request_weight=np.array(rows), reserved_load=number(content["reserved_load"], "reserved_load"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """How a rule looks ahead and how far it goes.

    Parameters
    ----------
    ahead
        ``last``: the load of the last window; ``highest``: the highest load of the last ``look_back`` windows;
        ``line``: a least-squares line through them, at the time when instances that are ordered now are up.
    look_back
        Number of windows that ``highest`` and ``line`` use; 1 for ``last``.
    margin
        Added to the expected load, as a share of it.
    target
        Load to aim for, as a share of the fleet's planned capacity, 0-1.
    stable_windows
        Windows in a row that must want no more before instances are given back.
    """

    ahead: str
    look_back: int
    margin: float
    target: float
    stable_windows: int

    def __post_init__(self) -> None:
        if self.ahead not in AHEAD:
            raise InputError(f"rule.ahead must be one of {', '.join(AHEAD)}, got {self.ahead!r}")
        if not (1 <= self.look_back <= _MOST_WINDOWS and 1 <= self.stable_windows <= _MOST_WINDOWS):
            raise InputError(f"rule: look_back and stable_windows must be 1 to {_MOST_WINDOWS:,}")
        if not (0 <= self.margin < math.inf and 0 < self.target <= 1):
            raise InputError("rule: margin must be >= 0 and target in (0, 1]")

    @property
    def words(self) -> str:
        """The settings in words.

        >>> RuleSettings(ahead="highest", look_back=3, margin=0.1, target=0.9, stable_windows=2).words
        'highest load of 3 windows + 10%, at 90% load, down after 2 windows'
        """
        looked = {
            LAST: "load of the last window",
            HIGHEST: f"highest load of {count_of(self.look_back, 'window')}",
            LINE: f"line through {count_of(self.look_back, 'window')}",
        }[self.ahead]
        margin = f" + {self.margin * 100:.3g}%" if self.margin else ""
        stable = f", down after {self.stable_windows} windows" if self.stable_windows > 1 else ""
        return f"{looked}{margin}, at {self.target * 100:.3g}% load{stable}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScalingRule:
    """How many instances of one type run in addition to the reserved ones.

    Parameters
    ----------
    replica_type
        Name of the type that is scaled.
    settings
        How it looks ahead.
    signals
        The signals that it watches; the one that wants most instances counts.
    window_s
        Length of a window [s].
    delay_windows
        Windows from an order to the first request of an instance.
    spot_share
        Largest share of the load on spot, 0-1: the instances beyond it are on demand.
    most
        Most instances of the type that limits allow in addition to the reserved ones; None: no limit.
    buckets
        The sizes of its weights; None in older files, which do not have them.
    """

    replica_type: str
    settings: RuleSettings
    signals: tuple[Signal, ...]
    window_s: float
    delay_windows: float
    spot_share: float = 0.0
    most: int | None = None
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        if not self.signals:
            raise InputError("rule.signals: at least one is needed")
        shape = self.signals[0].request_weight.shape if self.buckets is None else self.buckets.shape
        for place, signal in enumerate(self.signals):
            if signal.request_weight.shape != shape:
                found = " x ".join(map(str, signal.request_weight.shape))
                raise InputError(
                    f"rule.signals[{place}].request_weight must be {' x '.join(map(str, shape))} weights, got {found}"
                )
        if not (0 < self.window_s < math.inf and 0 <= self.delay_windows < math.inf and 0 <= self.spot_share <= 1):
            raise InputError("rule: window_s must be > 0, delay_windows >= 0 and spot_share 0 to 1")
        if self.most is not None and self.most < 0:
            raise InputError(f"rule: most must be >= 0, got {self.most}")

    def wanted(self, rates: Array) -> int:
        """Instances to run in the next window, from the rates of the last windows (W, I, O), the newest last [1/s].

        The rule uses the last ``look_back`` + ``stable_windows`` - 1 windows, or all of them if there are fewer.
        """
        return int(self._after_each(rates)[-1])

    def wanted_over(self, rates: Array) -> Array:
        """Instances to run in each of some windows (W,), decided from the windows before; the first from itself.

        ``rates`` are the rates of the windows (W, I, O) [1/s].
        """
        after = self._after_each(rates)
        return np.asarray(np.concatenate([after[:1], after[:-1]]))

    def _after_each(self, rates: Array) -> Array:
        """Instances that are decided after each window (W,)."""
        flat = np.asarray(rates, float).reshape(len(rates), -1)
        one = self.settings
        wanted = np.zeros(len(flat))
        for signal in self.signals:
            ahead = look_ahead(flat @ signal.request_weight.ravel(), one, self.delay_windows)
            asked = ahead * (1 + one.margin) / one.target - signal.reserved_load
            wanted = np.maximum(wanted, np.ceil(asked - 1e-9))
        if self.most is not None:
            wanted = np.minimum(wanted, self.most)
        padded = np.concatenate([np.repeat(wanted[:1], one.stable_windows - 1), wanted])
        return np.asarray(sliding_window_view(padded, one.stable_windows).max(axis=1))

    def to_json(self) -> Json:
        """As a JSON object."""
        one = self.settings
        return {
            "replica_type": self.replica_type,
            "settings": {name: getattr(one, name) for name in RuleSettings.__slots__},
            "signals": [signal.to_json() for signal in self.signals],
            "window_s": self.window_s,
            "delay_windows": self.delay_windows,
            "spot_share": self.spot_share,
            "most": self.most,
            "buckets": None if self.buckets is None else self.buckets.to_json(),
        }

    @classmethod
    def from_json(cls, content: Json) -> ScalingRule:
        """From the JSON object that :meth:`to_json` makes."""
        from melange.records import mapping, one_line

        return cls(
            replica_type=one_line(content["replica_type"], "replica_type"),
            settings=record(RuleSettings, content["settings"], "rule.settings"),
            signals=tuple(
                Signal.from_json(dict(mapping(v, at))) for at, v in items(content["signals"], "rule.signals")
            ),
            window_s=number(content["window_s"], "window_s"),
            delay_windows=number(content["delay_windows"], "delay_windows"),
            spot_share=number(content["spot_share"], "spot_share"),
            most=None if content.get("most") is None else whole(content["most"], "most"),
            buckets=None if content.get("buckets") is None else Buckets.from_json(content["buckets"]),
        )


def look_ahead(load: Array, settings: RuleSettings, delay_windows: float) -> Array:
    """Expected load after each window (W,), from that window and those before it, as far as there are any.

    A line is read at the middle of the first window in which instances ordered now serve all the time.
    """
    if settings.ahead == LAST or settings.look_back == 1:
        return np.asarray(load, float)
    count = settings.look_back
    padded = np.concatenate([np.full(count - 1, load[0]), load])
    views = sliding_window_view(padded, count)
    if settings.ahead == HIGHEST:
        return np.asarray(views.max(axis=1))
    place = np.arange(count) - (count - 1) / 2
    slope = views @ place / (place**2).sum()
    steps = (count - 1) / 2 + 1 + np.ceil(delay_windows)
    return np.asarray(np.maximum(views.mean(axis=1) + slope * steps, 0.0))
