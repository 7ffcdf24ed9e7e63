"""Request logs and price lists of the programs that write them: small valid files."""

from __future__ import annotations

import json

LITELLM = (
    "request_id,call_type,spend,prompt_tokens,completion_tokens,startTime,endTime,model,status,cache_hit,metadata\n"
    + "".join(
        f"r{s},acompletion,0.001,{100 + s},{20 + s},2025-05-07 12:00:{s:02d}.123+00,2025-05-07 12:00:{s:02d}.9+00,m,"
        'success,False,"{""usage"": {""n"": 1}}"\n'
        for s in range(12)
    )
)
LANGFUSE = "".join(
    json.dumps(
        {
            "id": f"o{s}",
            "type": "GENERATION",
            "startTime": f"2025-05-07T12:00:{s:02d}.123Z",
            "usageDetails": {"input": 100 + s, "input_cached_tokens": 40, "output": 20 + s},
            "model": "m",
        }
    )
    + "\n"
    for s in range(12)
)
OPENAI = "".join(
    json.dumps({"created": 1_750_000_000 + s, "model": "m", "usage": {"prompt_tokens": 9 + s, "completion_tokens": 5}})
    + "\n"
    for s in range(12)
)
LIST = json.dumps([{"arrival_ms": 500 * s, "input_tokens": 100 + s, "output_tokens": 20} for s in range(12)])

GO_AWS = """\
// generated at 2026-08-22T13:06:28Z for us-east-1
package pricing
var Prices = map[string]map[string]float64{
\t// us-east-1
\t"us-east-1": {
\t\t// g6 family
\t\t"g6.xlarge": 0.804800, "g5.xlarge": 1.006000,
\t},
}
"""
GO_AZURE = """\
// Microsoft
package pricing
// generated at 2026-08-22T13:06:28Z
func init() {
\tpublicCloudPrices["eastus"] = map[string]float64{
\t\t"Standard_NC24ads_A100_v4": 3.673000,
\t}
}
"""
KARPENTER_GCP = {
    "prices": {
        "us-central1": {
            "on_demand": {"g2-standard-4": 0.71, "a2-highgpu-1g": 3.67},
            "spot": {"g2-standard-4": 0.28},
        }
    }
}
EC2_SHOP = {
    "Prices": [
        {"InstanceType": "g5.xlarge", "Cost": 1.01, "SpotPrice": "0.44", "Reserved1yPrice": 0.63},
        {"InstanceType": "g6.xlarge", "Cost": 0.80, "SpotPrice": "NA", "Reserved1yPrice": 0},
    ]
}
RENTAL_PRICES = {
    "date": "2026-08-22",
    "offers": [
        {"provider": "lambda", "gpu": "h100-sxm", "vram_gb": 80, "usd_hr": 3.3, "kind": "on-demand",
         "fetched_at": "2026-08-22T00:00:00Z", "source_url": "http://x"},
        {"provider": "lambda", "gpu": "b200", "vram_gb": 180, "usd_hr": 7.0, "kind": "reserved"},
    ],
}  # fmt: skip

GENAI_PERF = {
    "request_throughput": {"unit": "requests/sec", "avg": 2.0},
    "request_latency": {"unit": "ms", "avg": 4000.0, "p50": 4000.0, "p99": 5000.0},
    "time_to_first_token": {"unit": "ms", "avg": 200.0},
    "inter_token_latency": {"unit": "ms", "avg": 40.0},
    "output_sequence_length": {"unit": "tokens", "avg": 100.0},
    "input_sequence_length": {"unit": "tokens", "avg": 500.0},
    "request_count": {"unit": "count", "avg": 100.0},
    "input_config": {"model_names": ["m"], "perf_analyzer": {"stimulus": {"concurrency": 8}}},
}
INFERENCE_PERF = {
    "load_summary": {"count": 90, "requested_rate": 1.0, "achieved_rate": 1.0, "send_duration": 90.0},
    "successes": {
        "count": 90,
        "latency": {
            "request_latency": {"mean": 4.2, "p50": 4.1, "p90": 6.0},
            "time_to_first_token": {"mean": 0.2, "p90": 0.4},
            "time_per_output_token": {"mean": 0.04, "p90": 0.05},
            "inter_token_latency": {"mean": 0.04, "p90": 0.06},
        },
        "throughput": {"requests_per_sec": 1.0},
        "prompt_len": {"mean": 500.0},
        "output_len": {"mean": 100.0},
    },
    "failures": {"count": 0},
}
LLMPERF = {
    "model": "m",
    "num_concurrent_requests": 4,
    "mean_input_tokens": 500,
    "mean_output_tokens": 100,
    "results_num_completed_requests": 60,
    "results_num_completed_requests_per_min": 30.0,
    "results_number_errors": 0,
    "results_number_input_tokens_mean": 505.0,
    "results_number_output_tokens_mean": 98.0,
    "results_ttft_s_mean": 0.3,
    "results_ttft_s_quantiles_p99": 0.5,
    "results_inter_token_latency_s_mean": 0.04,
    "results_inter_token_latency_s_quantiles_p90": 0.05,
    "results_end_to_end_latency_s_mean": 4.1,
}
# What ModelOpt writes beside config.json.
HF_QUANT = {
    "producer": {"name": "modelopt", "version": "0.27"},
    "quantization": {
        "quant_algo": "FP8",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head", "model.layers.0*"],
        "group_size": None,
    },
}
# The whole service file: every key that there is.
EVERY_KEY = """\
model: meta-llama/Llama-3.1-8B
variants: [fp8, int4]
engine:
  {name: vllm, max_num_seqs: 128, max_num_batched_tokens: 4096, gpu_memory_utilization: 0.9,
   enable_prefix_caching: true, speculative: {method: ngram, num_speculative_tokens: 3, acceptance_rate: 0.5}}
slo: {ttft_ms: 4000, tpot_ms: 120, ntpot_ms: 200, latency_ms: 60000, statistic: mean, attainment: 0.9}
workload:
  trace: log.csv
  columns: {arrival: TIMESTAMP, input: ContextTokens, output: GeneratedTokens}
  where: {ContextTokens: [100, 107, 114, 121, 128, 135]}
  rate: max
  window: 2s
  from: 0s
  to: 30s
  buckets: {input: [100, 1000, 20000], output: [100, 20000]}
  size: upper
  prefix_hit_rate: 0.3
offers:
  gpus: [L4, A10G]
  providers: [aws]
  regions: [us-east-1]
  market: [on-demand, spot]
  file: offers.csv
  max: {L4: 9, g5.xlarge: 3}
  prices: {L4: -10%, aws: +5%}
profile:
  {source: [estimate], tensor_parallel: [1], anchors: [], step_times: own, simulate: false, max_context: 20000,
   min_kv_tokens: 0}
plan:
  {headroom: 0.1, slices: 4, min_replicas: {aws/us-east-1/g6.xlarge: 1}, min_total_replicas: 1, spare_replicas: 0,
   spare_total_replicas: 1,
   max_types: 2, require: [L4], exclude: [aws/us-east-1/g6.xlarge int4],
   budget_per_h: 100, drop_unservable: true, time_limit_s: 5,
   gap: 0.001, seed: 1, confidence: 0.6, carbon_price_per_kg: 0.1}
start_up: {boot: 60s, image_gb: 10, pull_gb_per_s: 1, load_gb_per_s: 2}
switching: {expected: 6h, drain: 60s, usd_per_instance: 0.1}
"""
FLEET = """\
services:
  - {file: '{x}/service.yaml', priority: 2, name: first}
  - '{x}/service.yaml'
offers: {max: {L4: 30, A10G: 20}}
plan: {budget_per_h: 100, gap: 0.01, time_limit_s: 10}
"""

RATES = "start,rate\n" + "".join(
    f"2026-01-0{1 + hour // 24}T{hour % 24:02d}:00,{3 + 2 * (hour % 24 > 8) + hour % 5 / 5:.2f}\n" for hour in range(48)
)
SIZES = """\
start,input_tokens_upto,output_tokens_upto,share
2026-01-01T00:00,100,100,0.5
2026-01-01T00:00,4000,400,0.5
2026-01-02T00:00,100,100,1
"""
OVER_TIME = """\
model: meta-llama/Llama-3.1-8B
slo: {ttft_ms: 2000, tpot_ms: 60}
workload: {rates: '{x}/rates.csv', sizes: '{x}/sizes.csv', over: day, time_zone: Europe/Berlin, empty_windows: zero}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
schedule:
  reserved: [{term_years: 1, discount: 0.4}, {term_years: 3, discount: 0.55, upfront_fraction: 1}]
  spot: {discount: 0.6, zones: 3}
  horizon_years: 3
"""
FACTORS = {
    "melange": "factors/1",
    "factors": [
        {
            "replica_type": "aws/us-east-1/g6.xlarge",
            "factor": 1.2,
            "low": 1.1,
            "high": 1.3,
            "requests": 900,
            "in_flight": 12.0,
        }
    ],
    "state": "enough",
    "message": "",
    "needed": {"aws/us-east-1/g6.xlarge": 2},
    "replicas": {"aws/us-east-1/g6.xlarge": 3},
}
