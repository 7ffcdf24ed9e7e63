"""The balancer's own pages: metrics, live workload, drift."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from melange.deploy.addresses import counts_of
from melange.deploy.live.answers import Answer, error, page
from melange.deploy.live.drift import STATES
from melange.deploy.live.exposition import load, metrics_text
from melange.deploy.live.live_workload import live_workload
from melange.deploy.live.step_factors import factors_document, live_factors, standings, verdict
from melange.errors import InputError
from melange.files import dump_document

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Balancer
    from melange.deploy.live.counters import Counters

_Page = Callable[[], Answer]


class Pages:
    """Pages that show the counters of all processes.

    Parameters
    ----------
    balancer
        Balancer of the process that answers.
    counters
        Counters of all processes.
    """

    def __init__(self, balancer: Balancer, counters: Counters) -> None:
        self.balancer, self.counters = balancer, counters
        self._pages: dict[bytes, _Page] = {
            b"/metrics": self.metrics,
            b"/workload.json": self.workload,
            b"/drift.json": self.drift,
            b"/factors.json": self.factors,
        }

    def find(self, path: bytes) -> _Page | None:
        """The page at a path."""
        return self._pages.get(path)

    def metrics(self) -> Answer:
        """Metrics for Prometheus."""
        return page(metrics_text(self.balancer, self.counters), content_type="text/plain; version=0.0.4; charset=utf-8")

    def workload(self) -> Answer:
        """The live workload, in the format of ``melange plan --workload``."""
        try:
            found = live_workload(self.counters, self.balancer.plan.workload)
        except InputError as none:
            return error(404, f"{none}; {none.hint}")
        return page(found.dumps() + "\n")

    def factors(self) -> Answer:
        """Observed step times, and missing or surplus replicas, for ``melange plan --observed``."""
        balancer, counters = self.balancer, self.counters
        counts = counts_of([one.address for one in balancer.replicas], balancer.plan)
        worked = load(balancer, counters, time.monotonic())
        found = standings(balancer.plan, balancer.routed, worked, counts)
        prices = {one.name: one.cost_per_h / one.replicas_per_instance for one in balancer.plan.replica_types}
        said = verdict(found, prices)
        content = factors_document(live_factors(balancer.plan, counters), found, said)
        return page(dump_document("factors", content) + "\n")

    def drift(self) -> Answer:
        """The last result of re-planning."""
        code, cost, new_cost, at_s = self.counters.supervisor("drift").tolist()
        content = {
            "state": STATES[int(code)],
            "cost_per_h": cost,
            "new_cost_per_h": None if math.isnan(new_cost) else new_cost,
            "checked_at_unix_s": at_s or None,
        }
        return page(content)
