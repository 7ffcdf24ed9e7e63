"""A small plan with known shares, servers that replay it, and a client, shared by the tests of the balancer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from melange.catalog.offer import Offer
from melange.plan.plan import Plan
from melange.profile.profile import ReplicaType
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

QUEUE_SERVER = Path(__file__).parents[1] / "measure" / "queue_server.py"
BUCKETS = Buckets(input_edges=(100, 1000), output_edges=(50, 400))


def small_plan(share_of_first: float = 0.25, rate: float = 100.0, **details: Any) -> Plan:
    """Two types, L4 and A100: a share of every small prompt goes to the first, large ones to the second only."""
    names, prices = ("cloud/east/l4 (L4)", "cloud/east/a100 (A100)"), (0.8, 4.0)
    types = tuple(
        ReplicaType(
            name=name,
            offer=Offer(
                provider="cloud", region="east", instance_type=name.split("/")[-1], accelerator=accelerator,
                accelerators=1, cost_per_h=price,
            ),
        )
        for name, accelerator, price in zip(names, ("L4", "A100-80GB"), prices, strict=True)
    )  # fmt: skip
    share = np.empty((2, 2, 2))
    share[0], share[1] = [[share_of_first] * 2, [0.0, 0.0]], [[1 - share_of_first] * 2, [1.0, 1.0]]
    rates = np.array([[[rate, rate / 4], [rate / 8, 0.0]], [[4 * rate, rate], [rate / 2, rate / 4]]])
    given = {
        "replica_types": types,
        "instances": np.array([2, 1]),
        "share": share,
        "load": np.array([0.5, 0.5]),
        "max_request_rate": rates,
        "cost_per_h": 5.6,
        "bound_per_h": 5.6,
        "gap": 0.0,
        "single_type": {},
        "workload": Workload.at_upper_edges(BUCKETS, [[rate / 2, rate / 8], [rate / 16, rate / 32]]),
        "slo": Slo(ttft_s=5.0, tpot_s=1.0),
        "model": "queue",
    }
    return Plan(**(given | details))
