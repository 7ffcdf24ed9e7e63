"""The closed form again in plain Python floats, for one bucket and one batch size at a time: a baseline and a check.

It supports only chunked engines, the accelerators' own links, and models in 16 bits without sliding windows, which is
enough for a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.era import Era
from melange.replica.memory import kv_room_bytes


class PlainReplica:
    """One replica of a dense or mixture-of-experts model."""

    def __init__(self, model: Model, card: Accelerator, tensor_parallel: int, era: Era) -> None:
        constants = era.constants_on(card)
        self.slowdown = era.slowdown(model, card)
        self.model, self.constants, self.settings = model, constants, era.settings
        self.degree = tensor_parallel
        self.bandwidth = card.bandwidth_bytes_per_s
        self.link = card.link_bandwidth_bytes_per_s * constants.link_efficiency
        self.flops = card.flops("bf16")
        self.routed = model.routed_parameters() * model.experts_per_token / model.experts if model.experts else 0.0
        self.body = model.active_parameters(output_head=False) - self.routed
        self.head = model.output_parameters()
        self.kv_bytes = model.kv_bytes_per_token(tensor_parallel)
        self.pair_flops = model.layers * 4 * model.heads * model.head_size / tensor_parallel
        self.context_s = max(
            self.kv_bytes / (self.bandwidth * constants.mba), self.pair_flops / (self.flops * constants.mfu_attention)
        )
        self.slots = max(kv_room_bytes(model, card, tensor_parallel, era.settings), 0.0) / self.kv_bytes
        self.sequences, self.budget = era.settings.limits_on(card)
        self.max_context = era.settings.max_context or model.max_context

    def step_s(self, batch: float, context: float, prompt: float, position: float, admitted: float) -> float:
        """Time of one step [s]."""
        constants = self.constants
        read_s = self.model.weight_bytes_read(batch + prompt) / (self.bandwidth * constants.mbu)
        weights = self.body + self.routed / constants.mfu_experts
        layers_s = 2 * weights * (batch + prompt) / (self.flops * constants.mfu)
        if self.model.experts:
            untouched = (1 - self.model.experts_per_token / self.model.experts) ** (batch + prompt)
            padded = constants.expert_padding * self.model.routed_parameters() * (1 - untouched) / constants.mfu_experts
            layers_s += 2 * padded / (self.flops * constants.mfu)
        head_s = 2 * self.head * batch / (self.flops * constants.mfu)
        attention_s = self.context_s * context
        attention_s += self.pair_flops * prompt * position / (self.flops * constants.mfu_attention)
        host_s = constants.t_step_s + constants.t_layer_s * self.model.layers
        host_s += constants.t_moe_layer_s * self.model.moe_layers
        host_s += constants.t_sequence_s * batch + constants.t_request_s * admitted
        computed_s = max(read_s, layers_s + head_s) / self.degree + attention_s
        return self.slowdown * (computed_s + self.talk_s(batch + prompt) + host_s)

    def talk_s(self, tokens: float) -> float:
        """Time of two all-reduces in every layer [s]."""
        peers = self.degree - 1
        transfer_s = 2 * self.model.hidden_size * tokens / self.link
        one_shot_s = self.constants.link_latency_s + peers * transfer_s
        ring_s = peers * self.constants.link_latency_s + 2 * peers / self.degree * transfer_s
        return 2 * self.model.layers * min(one_shot_s, ring_s) if peers else 0.0

    def largest_batch(self, inputs: float, outputs: float) -> float:
        """Most running requests [1]."""
        block = self.settings.block_tokens
        if inputs + outputs + block - 1 > self.slots or inputs + outputs > self.max_context:
            return 0.0
        resident = self.slots / (inputs + outputs / 2 + block / 2)
        return min(self.sequences, resident, self.budget / (1 + inputs / outputs))

    def metrics_s(self, inputs: float, outputs: float, batch: float, slots: float) -> dict[str, float]:
        """Mean of each metric and of the step [s]."""
        residency, position = inputs + outputs / 2, inputs / 2
        admitted = batch / outputs
        chunk = max(admitted * inputs, min(inputs, self.budget - batch))
        mixed = admitted * inputs / chunk
        with_prompt_s = self.step_s(batch, batch * residency, chunk, position, admitted / mixed)
        step_s = mixed * with_prompt_s + (1 - mixed) * self.step_s(batch, batch * residency, 0.0, position, 0.0)
        left = self.budget - batch
        chunks = math.ceil(inputs / left)
        own_s = chunks * self.step_s(batch, batch * residency, inputs / chunks, position, 1 / chunks)
        blocking_s = inputs / left * self.step_s(batch, batch * residency, left, position, left / inputs)
        reading = min(batch / (outputs * step_s) * blocking_s, 1 - 1e-9)
        occupied = min(batch / slots, 1 - 1e-9)
        delay = occupied ** (math.sqrt(2 * (slots + 1)) - 1) / (slots * (1 - occupied))
        waits_s = delay / 2 * (own_s + outputs * step_s) + blocking_s * reading / (2 * (1 - reading))
        ttft_s = step_s / 2 + waits_s + own_s
        latency_s = ttft_s + (outputs - 1) * step_s
        tpot_s = step_s if outputs > 1 else 0.0
        return {"ttft": ttft_s, "tpot": tpot_s, "latency": latency_s, "ntpot": latency_s / outputs, "step": step_s}

    def max_request_rate(self, inputs: float, outputs: float, limits: Mapping[str, float]) -> float:
        """The highest rate over all integer batch sizes that meet the limits [1/s]."""
        slots = self.largest_batch(inputs, outputs)
        best = 0.0
        for batch in range(1, int(slots) + 1):
            values = self.metrics_s(inputs, outputs, float(batch), slots)
            if all(values[metric] <= limit for metric, limit in limits.items()):
                best = max(best, batch / (outputs * values["step"]))
        return best
