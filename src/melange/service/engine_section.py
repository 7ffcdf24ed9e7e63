"""``engine`` of a service.yaml: which engine serves, and the settings that replace its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melange.replica.engine_settings import KV_CACHE_DTYPES
from melange.replica.releases import pinned
from melange.replica.speculation import Speculation


class SpeculativeSection(BaseModel):
    """``engine.speculative``: speculative decoding, by vLLM's names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    num_speculative_tokens: Annotated[int, Field(ge=1, le=32)]
    acceptance_rate: Annotated[float, Field(ge=0, lt=1)]
    method: Literal["ngram", "draft_model", "eagle3", "mtp"] = "ngram"
    model: str = ""

    @model_validator(mode="after")
    def _check(self) -> SpeculativeSection:
        if self.method in ("draft_model", "eagle3") and not self.model:
            raise ValueError(f"{self.method} needs model: the name of the draft's weights")
        if self.method == "ngram" and self.model:
            raise ValueError(
                "ngram looks drafts up in the prompt and takes no model: remove it, or name another method"
            )
        return self

    def to_speculation(self) -> Speculation:
        """As the dataclass."""
        return Speculation(
            draft_tokens=self.num_speculative_tokens,
            accepted_share=self.acceptance_rate,
            method=self.method,
            model=self.model,
        )


class EngineSection(BaseModel):
    """``engine``: its name and release; settings by vLLM's names, each as the release ships it unless given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    name: str = "vllm"
    version: str | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=65536)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=1048576)] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    enable_prefix_caching: bool | None = None
    speculative: SpeculativeSection | None = None

    @field_validator("name")
    @classmethod
    def _folded(cls, value: str) -> str:
        return value.casefold()

    @field_validator("version", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError(f'must be text, so that 0.10 is not 0.1: write version: "{value}"')  # noqa: TRY004 (a fault of the file)
        return value

    @model_validator(mode="after")
    def _check(self) -> EngineSection:
        sequences, tokens = self.max_num_seqs, self.max_num_batched_tokens
        if sequences and tokens and tokens < sequences:
            raise ValueError(
                f"max_num_batched_tokens must be >= max_num_seqs, or not all requests get a token in each step; got "
                f"{tokens} and {sequences}"
            )
        if self.version and pinned(self.name)[1]:
            raise ValueError(f"the release is given twice, name: {self.name} and version: {self.version}: remove one")
        return self

    @property
    def requirement(self) -> str:
        """Name and release as one text: ``vllm==0.6.4``."""
        return f"{self.name}=={self.version}" if self.version else self.name

    @property
    def settings(self) -> dict[str, Any]:
        """What replaces the engine's own settings, by their names in the package (``EngineSettings``)."""
        given = {
            "max_sequences": self.max_num_seqs,
            "max_batched_tokens": self.max_num_batched_tokens,
            "memory_utilization": self.gpu_memory_utilization,
            "kv_dtype": KV_CACHE_DTYPES.get(self.kv_cache_dtype),
            "kv_cache_dtype": None if self.kv_cache_dtype == "auto" else self.kv_cache_dtype,
            "is_prefix_caching": self.enable_prefix_caching,
            "speculation": self.speculative.to_speculation() if self.speculative else None,
        }
        return {name: value for name, value in given.items() if value is not None}
