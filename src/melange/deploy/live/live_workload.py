"""The live traffic as a :class:`melange.Workload`."""

from __future__ import annotations

import time

import numpy as np

from melange.deploy.live.counters import REASONS, Counters
from melange.errors import Caution, InputError
from melange.units import count_of
from melange.workload.burstiness import pooled_burstiness
from melange.workload.sizes import mean_sizes, thin_data
from melange.workload.workload import Workload


def live_workload(counters: Counters, planned: Workload) -> Workload:
    """Arrivals per second by size, over the counted window.

    The output length of a request is known when it ends, so the sizes come from completions. Their rates are scaled to
    the arrivals, because some requests wait, were rejected or failed. Requests that replicas refused (for example, too
    long a prompt) are left out.

    Parameters
    ----------
    counters
        Counters of all processes.
    planned
        Workload whose buckets are used for counting.

    Raises
    ------
    InputError
        No request was completed in the window.
    """
    done, arrived = counters.window("completed"), float(counters.window("arrived").sum())
    length_s = time.monotonic() - float(counters.supervisor("window_began")[0])
    total = float(done.sum())
    if total < 1 or length_s <= 0:
        raise InputError("no request has been completed yet", hint="try again after some traffic")
    refused = float(counters.window("ended")[REASONS.index("refused")])
    rate = done * max(arrived - refused, total) / total / length_s
    inputs, outputs = mean_sizes(planned.buckets, done, counters.window("input_sum"), counters.window("output_sum"))
    unserved = int(counters.window("ended")[[REASONS.index(name) for name in ("busy", "none_up", "failed")]].sum())
    return Workload(
        buckets=planned.buckets,
        request_rate=rate,
        # At an edge of 1, estimated token counts may be off by a fraction of a token.
        input_tokens=np.maximum(inputs, 1.0),
        output_tokens=np.maximum(outputs, 1.0),
        source=f"melange balance: {total:,.0f} requests in {length_s:,.0f} s",
        requests=int(total),
        failed_requests=unserved,
        burstiness=pooled_burstiness(*counters.window("gaps").reshape(-1, 3).T),
        cautions=(*thin_data(planned.buckets, done), *_oversized(counters, planned)),
    )


def _oversized(counters: Counters, planned: Workload) -> tuple[Caution, ...]:
    count = int(counters.window("oversized")[0])
    if not count:
        return ()
    were = "was" if count == 1 else "were"
    last_in, last_out = planned.buckets.input_edges[-1], planned.buckets.output_edges[-1]
    return (
        Caution(
            "oversized",
            f"{count_of(count, 'request')} {were} larger than the plan's last bucket "
            f"({last_in:,} in, {last_out:,} out) and {were} counted in it; plan again with larger edges",
        ),
    )
