"""A few typical hours and a few merged sizes that represent all of them in the search for what to reserve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Default numbers of typical hours and merged sizes. On a week of ServeGen's m-mid (25 machines, 60 sizes), the
# relaxation over 24 hours and all sizes took 0.23 s of CPU, and its bound was 0.63 % below the bound over all 168
# hours, which took 2.7 s; with 48 hours it was 0.53 s and 0.14 %.
_HOURS, _SIZES = 24, 60
# Rounds of k-means; it rarely takes ten.
_ROUNDS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TypicalHours:
    """Hours that represent others.

    Parameters
    ----------
    rates
        Mean rates of the hours that each typical hour represents (T, B) [1/s].
    weight
        Number of hours that each typical hour represents (T,).
    of_hour
        Index of the typical hour that represents each hour (H,).
    """

    rates: Array
    weight: Array
    of_hour: Indices


def typical_hours(machines: Machines, rates: Array, seed: int = 0, count: int = _HOURS) -> TypicalHours:
    """Typical hours of rates (H, B): each represents hours with a similar lowest cost of each size."""
    features = rates * machines.weights(machines.price)
    of_hour = _k_means(features, min(count, len(rates)), seed)
    weight = np.bincount(of_hour).astype(float)
    total = np.zeros((len(weight), rates.shape[1]))
    np.add.at(total, of_hour, rates)
    return TypicalHours(rates=total / weight[:, None], weight=weight, of_hour=of_hour)


def merged_sizes(machines: Machines, rates: Array, seed: int = 0, count: int = _SIZES) -> Indices:
    """Index of the merged size of each size (B,): sizes are merged if relative costs on the machines are similar.

    Sizes that different sets of machines can serve are never merged.
    """
    rate, price = machines.max_request_rate, machines.price
    with np.errstate(divide="ignore"):
        each = np.where(rate > 0, price[:, None] / rate, np.inf)
    relative = each / each.min(axis=0)
    able = np.isfinite(relative)
    patterns, kind = np.unique(able, axis=1, return_inverse=True)
    work = rates.sum(axis=0) * each.min(axis=0)
    merged, used = np.zeros(rates.shape[1], np.int64), 0
    share = np.array([work[kind == k].sum() for k in range(patterns.shape[1])]) / max(work.sum(), 1e-300)
    for k in range(patterns.shape[1]):
        where = np.flatnonzero(kind == k)
        features = np.log(np.where(able[:, where], relative[:, where], 1.0)).T
        parts = min(len(where), max(1, round(count * float(share[k]))))
        merged[where] = used + _k_means(features, parts, seed)
        used = int(merged.max()) + 1
    return merged


def _k_means(features: Array, count: int, seed: int) -> Indices:
    """Groups of rows (N,), numbered from 0 without a gap."""
    random = np.random.default_rng(seed)
    unique = np.unique(features, axis=0)
    if len(unique) <= count:
        return np.asarray(np.unique(features, axis=0, return_inverse=True)[1]).ravel()
    centers = features[[int(features.sum(axis=1).argmax())]]
    while len(centers) < count:
        away = ((features[:, None, :] - centers[None]) ** 2).sum(axis=2).min(axis=1)
        chance = away / away.sum() if away.sum() > 0 else np.full(len(features), 1 / len(features))
        centers = np.concatenate([centers, features[[int(random.choice(len(features), p=chance))]]])
    group = np.zeros(len(features), np.int64)
    for _ in range(_ROUNDS):
        found = ((features[:, None, :] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
        if (found == group).all() and _ > 0:
            break
        group = found
        for k in np.unique(group):
            centers[k] = features[group == k].mean(axis=0)
    return np.asarray(np.unique(group, return_inverse=True)[1]).ravel()
