"""Melange: the cheapest mix of accelerators that serves a language model within its latency objective.

>>> import melange
>>> workload = melange.dataset("arena", request_rate=4.0)
>>> offers = melange.load_catalog().select(gpus=["L4", "A100-80GB"], providers=["aws"], markets=["on-demand"]).offers
>>> model = melange.find_model("meta-llama/Llama-2-7b-hf")
>>> plan = melange.solve(workload, melange.estimate(model, offers, melange.Slo(tpot_s=0.12), workload))
>>> plan.cost_per_h <= min(b.cost_per_h for b in plan.single_type.values() if b.cost_per_h)
True
"""

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import find_model
from melange.catalog.catalog import Catalog, load_catalog
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.readers import read_offers
from melange.errors import Caution, InfeasibleError, InputError, MeasurementError, MelangeError, SolverError
from melange.plan.explain import Explanation, explain
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.profile.formats import read_profile
from melange.profile.profile import Profile, ReplicaType
from melange.slo import Slo
from melange.workload.datasets import dataset
from melange.workload.traces import read_trace
from melange.workload.workload import Buckets, Workload

__all__ = [
    "Accelerator",
    "Buckets",
    "Catalog",
    "Caution",
    "Explanation",
    "InfeasibleError",
    "InputError",
    "MeasurementError",
    "MelangeError",
    "Model",
    "Offer",
    "Options",
    "Plan",
    "Profile",
    "ReplicaType",
    "Slo",
    "SolverError",
    "Workload",
    "dataset",
    "estimate",
    "explain",
    "find_model",
    "load_catalog",
    "read_offers",
    "read_profile",
    "read_trace",
    "solve",
]
