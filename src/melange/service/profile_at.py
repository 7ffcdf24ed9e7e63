"""The profile of a service under other SLOs than its own, as a function that another process can call."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.catalog import Catalog
from melange.profile.profile import Profile
from melange.service.schema import Service, SloSection
from melange.service.stages import profile_of
from melange.slo import Slo
from melange.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProfileAt:
    """The profile of a service under other SLOs.

    Parameters
    ----------
    service, workload, catalog
        What it is estimated from.
    """

    service: Service
    workload: Workload
    catalog: Catalog

    def __call__(self, slo: Slo) -> Profile:
        """The profile under an SLO."""
        service = self.service.model_copy(update={"slo": SloSection.of(slo)})
        return profile_of(service, self.workload, self.catalog)
