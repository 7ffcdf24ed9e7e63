"""Small valid files of regions, pools, classes of machines, tenants, spans and requests of the HTTP API."""

from __future__ import annotations

import json

REGIONS = """\
model: meta-llama/Llama-3.1-8B
slo: {ttft_ms: 2000, tpot_ms: 80, statistic: mean}
workload: {dataset: arena, rate: 6, buckets: {input: [100, 1000, 20000], output: [100, 20000]}}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1, eu-central-1], max: {L4: 20}}
regions:
  origins:
    america: {share: 0.6, at: us-east-1}
    europe: {share: 0.3, at: office, allowed: [eu-central-1]}
    asia: {share: 0.1, at: singapore}
  round_trips: '{x}/trips.csv'
  egress_usd_per_gb: {default: 0.09, eu-central-1: 0.02}
  bytes_per_token: 250
"""
TRIPS = "from,to,ms\noffice,eu-central-1,25\noffice,us-east-1,95\n"
# Every key of a schedule, beside those that over_time.yaml has.
SCHEDULED = """\
model: meta-llama/Llama-3.1-8B
slo: {ttft_ms: 2000, tpot_ms: 60}
workload: {rates: '{x}/rates.csv', sizes: '{x}/sizes.csv', over: day}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
schedule:
  reserved: [{term_years: 1, discount: 0.4, upfront_fraction: 0.5}]
  savings_plans: [{term_years: 1, discount: 0.3, provider: aws, family: g6}]
  spot: {discount: 0.6, max_share: 0.5, max_share_per_pool: 0.25, zones: 3, unavailable_fraction: 0.1, outage: 1h}
  horizon_years: 3
  start_up: 5m
  drain: 1m
  short_fraction: 0.01
plan: {spare_replicas: 1, spare_total_replicas: 1}
"""
LAYOUTS = """\
model: mistralai/Mixtral-8x7B-Instruct-v0.1
slo: {ttft_ms: 4000, tpot_ms: 120, statistic: mean}
workload: {dataset: arena, rate: 6, buckets: {input: [100, 1000, 20000], output: [100, 20000]}}
offers: {gpus: [A100-80GB, H100-80GB], providers: [aws], regions: [us-east-1]}
profile: {tensor_parallel: [1, 4], expert_parallel: [1, 8], pipeline_parallel: [1, 2]}
plan: {objective: carbon, max_types: 1}
"""
POOLS = """\
model: meta-llama/Llama-3.1-8B
slo: {ttft_ms: 2000, tpot_ms: 80, statistic: mean}
workload: {dataset: arena, rate: 20, buckets: {input: [100, 1000, 20000], output: [100, 20000]}}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
plan: {disaggregate: true}
"""
WAREHOUSE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 80, statistic: mean}
workload:
  table: logs.requests
  connection: nowhere://reader:${MELANGE_NO_SUCH_VARIABLE}@127.0.0.1:9/logs
  columns: {arrival: at, input: prompt, output: answer}
  rate: 6
"""
TENANTS = f"""\
tenants:
  search: {{key_sha256: {"6b" * 32}, requests_per_s: 20, tokens_per_min: 600000, concurrent: 64}}
  batch: {{key_sha256: [{"2b" * 32}, {"4c" * 32}], tokens_per_min: 2000000, priority: 10}}
"""


def _span(n: int) -> dict[str, object]:
    start = str(1_762_000_000_000_000_000 + n * 500_000_000)
    values = {"gen_ai.operation.name": {"stringValue": "chat"}, "gen_ai.request.model": {"stringValue": "m"}}
    values |= {
        "gen_ai.usage.input_tokens": {"intValue": str(100 + 7 * n)},
        "gen_ai.usage.output_tokens": {"intValue": 20 + n},
    }
    attributes = [{"key": name, "value": value} for name, value in values.items()]
    return {"name": "chat m", "kind": 3, "startTimeUnixNano": start, "endTimeUnixNano": start, "attributes": attributes}


_RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "gateway"}}]}
SPANS = "".join(
    json.dumps({"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [{"spans": [_span(n)]}]}]}) + "\n"
    for n in range(12)
)
# What a client of the HTTP API sends, by what it asks for; {service} is a service and {plan} a plan.
ASKED = {
    "plan": {"settings": {"workload.rate": 6, "slo.tpot_ms": 100}, "quick": True, "drop_unservable": True},
    "what-if": {"prices": ["L4=-30%"], "rates": ["x2"], "without": ["A10G"], "changes": ["slo.tpot_ms=90"],
                "save": None, "quick": True},
    "validate": {"requests": 20, "seeds": 1, "scale": 1.5, "scenario": "ramp"},
    "deploy": {"to": "nginx", "replicas": ["L4=http://127.0.0.1:8000", "A10G=http://127.0.0.1:8001"],
               "options": {"listen": "127.0.0.1:80"}},
}  # fmt: skip
