"""The profile of a service under other SLOs, as a function that another process can call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from melange.catalog.catalog import Catalog
from melange.errors import Caution
from melange.profile.estimate import Shown
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.profile import Profile
from melange.service.schema import Service
from melange.service.stages import estimate_inputs, estimated
from melange.service.traffic_sections import SloSection
from melange.slo import Slo
from melange.workload.workload import Workload


@dataclass(slots=True, kw_only=True, eq=False)
class ProfileAt:
    """Estimates of a service under other limits, by closed form; parts that do not depend on the SLO are cached.

    Parameters
    ----------
    service, workload, catalog
        The inputs of the estimate.
    shown
        The part of the profile to compute; None: all of it.
    """

    service: Service
    workload: Workload
    catalog: Catalog
    shown: Shown | None = None
    _inputs: tuple[EstimateInputs, tuple[Caution, ...]] | None = field(default=None, init=False, repr=False)

    @classmethod
    def showing(
        cls, interval_of: Collection[int] | None, *, service: Service, workload: Workload, catalog: Catalog
    ) -> ProfileAt:
        """Only sizes that the traffic has, and intervals of some replica types; None: the whole estimate."""
        shown = None if interval_of is None else Shown(interval_of=interval_of, sizes=workload.request_rate > 0)
        return cls(service=service, workload=workload, catalog=catalog, shown=shown)

    def __call__(self, slo: Slo) -> Profile:
        """The profile under an SLO."""
        if self._inputs is None:
            own = self.service.to_slo()
            self._inputs = estimate_inputs(self.service, self.workload, self.catalog, own)
        inputs, cautions = self._inputs
        service = self.service.model_copy(update={"slo": SloSection.of(slo)})
        return estimated(service, inputs.under(service.to_slo()), cautions, self.shown)
