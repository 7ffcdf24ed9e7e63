"""``regions`` of a service file: where requests come from, and where they may be served."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melange.errors import InputError
from melange.records import one_line
from melange.service.values import Names
from melange.workload.fields import Choice

# Size of a streamed token on the wire: an event of the OpenAI API with its JSON. Chosen by judgment; measure your own.
_BYTES_PER_TOKEN = 250.0
# How far the sum of traffic shares may be from 1.
_SHARE_ROUNDING = 1e-6


class OriginSection(BaseModel):
    """An origin of ``regions.origins``: a part of the traffic, and where its users are."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    share: Annotated[float, Field(gt=0, le=1)] | None = None
    where: dict[str, Choice] | None = None
    at: str
    allowed: Names | None = None

    @model_validator(mode="after")
    def _one_part(self) -> OriginSection:
        if (self.share is None) == (self.where is None):
            both = "both" if self.share is not None else "neither"
            raise ValueError(f"needs share (its part of the traffic) or where (its rows of the log), got {both}")
        return self


class RegionsSection(BaseModel):
    """``regions``: where requests come from, and where they may be served."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    origins: Annotated[dict[str, OriginSection], Field(min_length=1)]
    round_trips: str | None = None
    egress_usd_per_gb: Annotated[float, Field(ge=0)] | dict[str, Annotated[float, Field(ge=0)]] = 0.0
    bytes_per_token: Annotated[float, Field(ge=0)] = _BYTES_PER_TOKEN

    @field_validator("origins")
    @classmethod
    def _add_up(cls, origins: dict[str, OriginSection]) -> dict[str, OriginSection]:
        try:
            for origin in origins:
                one_line(origin, "the name of an origin")
        except InputError as error:
            raise ValueError(f"{error}") from None
        shares = [one.share for one in origins.values() if one.share is not None]
        if shares and len(shares) < len(origins):
            raise ValueError("must all have share, or all have where; got some of each")
        total = sum(shares)
        if shares and abs(total - 1) > _SHARE_ROUNDING:
            raise ValueError(f"shares must add up to 1, got {total:g}")
        return origins
