"""Mean sizes and cautions for buckets of observed requests."""

from __future__ import annotations

import numpy as np

from melange.errors import Caution, InputError
from melange.units import count_of
from melange.workload.workload import Array, Buckets

# The standard error of a count n is sqrt(n): 3 % for 1,000 requests in all and 18 % for 30 in a bucket. With fewer
# requests, a rate is mostly chance.
THIN_WORKLOAD = 1000
_THIN_BUCKET = 30


def mean_sizes(buckets: Buckets, requests: Array, input_sum: Array, output_sum: Array) -> tuple[Array, Array]:
    """The mean size observed in each bucket, input and output tokens (I, O); the upper edge for an empty bucket.

    Parameters
    ----------
    requests
        Requests, or their weight, by bucket (I, O).
    input_sum, output_sum
        Sum of the tokens of those requests (I, O) [tokens].
    """
    seen = requests > 0
    upper_inputs, upper_outputs = buckets.upper_sizes()
    inputs = np.divide(input_sum, requests, out=upper_inputs.copy(), where=seen)
    outputs = np.divide(output_sum, requests, out=upper_outputs.copy(), where=seen)
    return inputs, outputs


def thin_data(buckets: Buckets, requests: Array) -> tuple[Caution, ...]:
    """A caution if too few requests were observed to plan on, in all or in buckets with over 1 % of the traffic.

    >>> buckets = Buckets(input_edges=(100, 200), output_edges=(50,))
    >>> print(*thin_data(buckets, np.array([[2000.0], [25.0]])))
    thin-data: 1 bucket with over 1 % of the traffic was seen fewer than 30 times (101-200 in, 1-50 out: 25);
    take a longer trace or fewer buckets
    """
    total = requests.sum()
    thin = np.argwhere((requests > 0.01 * total) & (requests < _THIN_BUCKET))
    findings = []
    if total < THIN_WORKLOAD:
        were = "was" if round(total) == 1 else "were"
        findings.append(
            f"only {count_of(round(total), 'request')} {were} observed; at least {THIN_WORKLOAD:,} are recommended"
        )
    if len(thin):
        named = ", ".join(f"{buckets.label(i, o)}: {requests[i, o]:.0f}" for i, o in thin[:3])
        named += f" and {len(thin) - 3} more" if len(thin) > 3 else ""
        plural = "buckets" if len(thin) > 1 else "bucket"
        were = "were" if len(thin) > 1 else "was"
        findings.append(
            f"{len(thin)} {plural} with over 1 % of the traffic {were} seen fewer than {_THIN_BUCKET} times ({named})"
        )
    if not findings:
        return ()
    return (Caution("thin-data", f"{'; '.join(findings)}; take a longer trace or fewer buckets"),)


def oversized(buckets: Buckets, count: float, input_tokens: float, output_tokens: float, *, place: str) -> InputError:
    """The error for requests that are larger than the last bucket, with the edges to add.

    Parameters
    ----------
    count
        Number of these requests.
    input_tokens, output_tokens
        The largest sizes found [tokens].
    place
        The data, named in the error.

    Examples
    --------
    >>> error = oversized(Buckets(input_edges=(500,), output_edges=(500,)), 3, 1900, 12, place="trace.csv")
    >>> print(error, error.hint, sep="; ")
    trace.csv: 3 requests are larger than the last bucket: input up to 1,900 tokens (last edge 500);
    add 2000 to buckets.input
    """
    found, edges = [], []
    pairs = (("input", input_tokens, buckets.input_edges[-1]), ("output", output_tokens, buckets.output_edges[-1]))
    for name, largest, last in pairs:
        if largest > last:
            found.append(f"{name} up to {largest:,.0f} tokens (last edge {last:,})")
            edge = last
            while edge < largest:
                edge *= 2
            edges.append(f"{edge} to buckets.{name}")
    return InputError(
        f"{place}: {count:,.0f} {'request is' if count == 1 else 'requests are'} larger than the last bucket: "
        f"{', '.join(found)}",
        hint=f"add {' and '.join(edges)}",
    )
