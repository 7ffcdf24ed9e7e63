"""The attainment of each class of requests."""

from __future__ import annotations

from collections.abc import Sequence

from melange.plan.class_result import ClassResult
from melange.slo import Slo
from melange.validate.attainment import attainment
from melange.workload.workload import Mask


def class_results(samples: Sequence[Sequence[Mask]], slo: Slo, target: float) -> tuple[ClassResult, ...]:
    """What each class attained (K); empty without classes.

    Parameters
    ----------
    samples
        Whether each counted request met the SLO, by class and run.
    slo
        The SLO, with its classes.
    target
        Target of the first class, 0-1; the targets of the other classes differ from it as in the SLO.
    """
    found = []
    for one, off, runs in zip(slo.classes, slo.offsets, samples, strict=False):
        if requests := sum(map(len, runs)):
            held = attainment(runs)
            found.append(
                ClassResult(
                    name=one.name,
                    target=target + off,
                    attainment=held.value,
                    low=held.low,
                    high=held.high,
                    requests=requests,
                )
            )
    return tuple(found)
