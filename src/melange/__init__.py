"""Melange: the cheapest mix of accelerators that serves a language model within its latency objective.

>>> import melange
>>> workload = melange.dataset("arena", request_rate=4.0)
>>> offers = melange.load_catalog().select(gpus=["L4", "A100-80GB"], providers=["aws"], markets=["on-demand"]).offers
>>> model = melange.find_model("meta-llama/Llama-3.1-8B")
>>> plan = melange.solve(workload, melange.estimate(model, offers, melange.Slo(tpot_s=0.12), workload))
>>> plan.cost_per_h <= min(b.cost_per_h for b in plan.single_type.values() if b.cost_per_h)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melange.catalog.accelerator import Accelerator
    from melange.catalog.bundled import find_model
    from melange.catalog.catalog import Catalog, load_catalog
    from melange.catalog.model import Model
    from melange.catalog.offer import Offer
    from melange.catalog.readers import read_offers
    from melange.deploy.manifest import Manifest
    from melange.deploy.render import render
    from melange.errors import Caution, InfeasibleError, InputError, MeasurementError, MelangeError, SolverError
    from melange.plan.explain import Explanation, explain
    from melange.plan.joint.joint_plan import JointPlan
    from melange.plan.options import Options
    from melange.plan.plan import Plan
    from melange.plan.question import Question
    from melange.plan.regions.regional_plan import RegionalPlan
    from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions, Spot
    from melange.plan.schedule.plan_over_time import plan_over_time
    from melange.plan.schedule.rule import ScalingRule
    from melange.plan.schedule.schedule import Schedule
    from melange.plan.solve import solve
    from melange.profile.anchor import anchor
    from melange.profile.estimate import estimate
    from melange.profile.formats.measurement_files import read_measurements
    from melange.profile.formats.profiles import read_profile
    from melange.profile.percentiles import RateSearch, with_simulated_rates
    from melange.profile.profile import Profile, ReplicaType
    from melange.service.fleet_session import FleetSession
    from melange.service.regional_session import RegionalSession
    from melange.service.session import Session
    from melange.slo import Slo
    from melange.validate.certify.certify import certify
    from melange.validate.observe import report
    from melange.validate.report import Report
    from melange.validate.simulate import draw_for, simulate
    from melange.workload.datasets import dataset
    from melange.workload.demand import Demand
    from melange.workload.over_time import read_demand
    from melange.workload.traces import read_trace
    from melange.workload.workload import Buckets, Workload

__all__ = [
    "Accelerator",
    "Buckets",
    "Catalog",
    "Caution",
    "Demand",
    "Explanation",
    "FleetSession",
    "InfeasibleError",
    "InputError",
    "JointPlan",
    "Manifest",
    "MeasurementError",
    "MelangeError",
    "Model",
    "Offer",
    "Options",
    "Plan",
    "Profile",
    "Question",
    "RateSearch",
    "RegionalPlan",
    "RegionalSession",
    "ReplicaType",
    "Report",
    "Reserved",
    "SavingsPlan",
    "ScalingRule",
    "Schedule",
    "ScheduleOptions",
    "Session",
    "Slo",
    "SolverError",
    "Spot",
    "Workload",
    "anchor",
    "certify",
    "dataset",
    "draw_for",
    "estimate",
    "explain",
    "find_model",
    "load_catalog",
    "plan_over_time",
    "read_demand",
    "read_measurements",
    "read_offers",
    "read_profile",
    "read_trace",
    "render",
    "report",
    "simulate",
    "solve",
    "with_simulated_rates",
]

# Public names are loaded when they are first used, so that `import melange` and `melange --help` take no time.
_MODULE_BY_NAME = {
    "Accelerator": "melange.catalog.accelerator",
    "Buckets": "melange.workload.workload",
    "Catalog": "melange.catalog.catalog",
    "Caution": "melange.errors",
    "Demand": "melange.workload.demand",
    "Explanation": "melange.plan.explain",
    "FleetSession": "melange.service.fleet_session",
    "InfeasibleError": "melange.errors",
    "InputError": "melange.errors",
    "JointPlan": "melange.plan.joint.joint_plan",
    "Manifest": "melange.deploy.manifest",
    "MeasurementError": "melange.errors",
    "MelangeError": "melange.errors",
    "Model": "melange.catalog.model",
    "Offer": "melange.catalog.offer",
    "Options": "melange.plan.options",
    "Plan": "melange.plan.plan",
    "Profile": "melange.profile.profile",
    "Question": "melange.plan.question",
    "RateSearch": "melange.profile.percentiles",
    "ReplicaType": "melange.profile.profile",
    "Report": "melange.validate.report",
    "RegionalPlan": "melange.plan.regions.regional_plan",
    "RegionalSession": "melange.service.regional_session",
    "Reserved": "melange.plan.schedule.contracts",
    "SavingsPlan": "melange.plan.schedule.contracts",
    "ScalingRule": "melange.plan.schedule.rule",
    "Schedule": "melange.plan.schedule.schedule",
    "ScheduleOptions": "melange.plan.schedule.contracts",
    "Session": "melange.service.session",
    "Slo": "melange.slo",
    "SolverError": "melange.errors",
    "Spot": "melange.plan.schedule.contracts",
    "Workload": "melange.workload.workload",
    "anchor": "melange.profile.anchor",
    "certify": "melange.validate.certify.certify",
    "dataset": "melange.workload.datasets",
    "draw_for": "melange.validate.simulate",
    "estimate": "melange.profile.estimate",
    "explain": "melange.plan.explain",
    "find_model": "melange.catalog.bundled",
    "load_catalog": "melange.catalog.catalog",
    "plan_over_time": "melange.plan.schedule.plan_over_time",
    "read_demand": "melange.workload.over_time",
    "read_measurements": "melange.profile.formats.measurement_files",
    "read_offers": "melange.catalog.readers",
    "read_profile": "melange.profile.formats.profiles",
    "read_trace": "melange.workload.traces",
    "render": "melange.deploy.render",
    "report": "melange.validate.observe",
    "simulate": "melange.validate.simulate",
    "solve": "melange.plan.solve",
    "with_simulated_rates": "melange.profile.percentiles",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'melange' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_BY_NAME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
