"""The text of a small service, which several test modules share."""

from __future__ import annotations

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 80}
workload: {dataset: arena, rate: 4}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
"""
