"""Which requests of a log decide on plans.

A log's rate goes up and down, so no part of it represents the whole: a plan that misses in the busiest minute may hold
all day, and one that holds at night may not. So plans are chosen or rejected only on stretches of all of the log, and a
log that is not too long is replayed whole. The certified share is then the share on replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melange.slo import Slo
from melange.units import duration
from melange.validate.attainment import wilson
from melange.validate.replay import counting, stretch
from melange.validate.run_lengths import is_long_enough
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Workload

# Logs of up to this many requests are replayed whole: by each plan that is tried (a tenth of a second), and by the plan
# to be certified (half a second, 0.3 GiB). Chosen by judgment: more takes longer, less sees less of the log.
_CHOOSING_MOST, _PROVING_MOST = 100_000, 1_000_000
_DRAWN = "more are drawn, with Poisson arrivals"
# Number of evenly spread parts of longer logs; all parts together have the requests above.
_STRETCHES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """The stretches of a log that plans are tried on, each as the position of its first request and its length.

    Parameters
    ----------
    choosing, proving
        Stretches on which plans are chosen, and stretches on which a plan is certified.
    """

    choosing: tuple[tuple[int, int], ...]
    proving: tuple[tuple[int, int], ...]

    @property
    def is_one_run(self) -> bool:
        """Whether plans are chosen on the requests that certify them."""
        return self.choosing == self.proving


def replays_of(requests: int) -> Replays:
    """The parts of a log with this number of requests."""
    return Replays(choosing=_stretches(requests, _CHOOSING_MOST), proving=_stretches(requests, _PROVING_MOST))


def _stretches(requests: int, most: int) -> tuple[tuple[int, int], ...]:
    if requests <= most:
        return (counting(0, requests),)
    starts = [place * requests // _STRETCHES for place in range(_STRETCHES)]
    return tuple(counting(start, most // _STRETCHES) for start in starts)


def is_replayed(
    observed: Arrivals | None, burstiness: float | None, slo: Slo, target: float, say: Callable[[str], None]
) -> bool:
    """Whether the log is replayed: no burstiness is given, and the log is long enough to show the target."""
    if observed is None or burstiness is not None or observed.is_shuffled or not observed.has_pace:
        return False
    rarest = len(observed) if observed.class_of is None else int(np.bincount(observed.class_of).min())
    if wilson(1.0, rarest)[0] < target:
        say(f"the log's {len(observed):,} requests are too few to show {target:.2%}: {_DRAWN}")
        return False
    if not is_long_enough(observed, slo):
        say(f"the log lasts {duration(observed.lasts_s)}, and no fleet fills in that time: {_DRAWN}")
        return False
    return True


def of_sizes(observed: Arrivals | None, workload: Workload, whole: Workload) -> Arrivals | None:
    """The observed requests without the sizes that are left out of the whole traffic."""
    is_left_out = (whole.request_rate > 0) & (workload.request_rate <= 0)
    return observed if observed is None or not is_left_out.any() else observed.within(whole.buckets, ~is_left_out)


def carried_of(log: Arrivals, carried: Workload, context: int) -> Arrivals:
    """The requests of a log that are planned for."""
    return within_context(log.within(carried.buckets, carried.request_rate > 0), context)


def stretch_at(log: Arrivals, requests: int, start: int) -> Arrivals:
    """Requests of a log from a position on, as :class:`~melange.validate.certify.judge.Judge` draws them."""
    return stretch(log, start, requests)


def by_class_of(log: Arrivals) -> dict[int, Arrivals]:
    """The requests of each class of a log, by its position; without classes, all of them."""
    if log.class_of is None:
        return {0: log}
    return {int(k): log.chosen(np.flatnonzero(log.class_of == k)) for k in np.unique(log.class_of)}
