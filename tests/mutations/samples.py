"""A small valid file of each format, as text or as the object that it holds."""

from __future__ import annotations

SERVICE = """\
model: meta-llama/Llama-3.1-8B
engine: vllm
variants: []
slo: {tpot_ms: 120, ttft_ms: 4000, statistic: mean, attainment: 0.9}
workload:
  dataset: {arena: 0.8, sharegpt: 0.2}
  rate: 8
  buckets: {input: [100, 1000, 20000], output: [100, 20000]}
  size: mean
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1], market: [on-demand], max: {L4: 9}}
profile: {source: estimate, tensor_parallel: [1]}
plan: {headroom: 0.1, slices: 4, min_replicas: 1, max_types: 2, exclude: [], time_limit_s: 5, gap: 0.001}
"""
LOG = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2024-05-01 10:00:{s:02d}.5,{100 + 7 * s},{20 + s}\n" for s in range(30)
)
METRICS = (
    "# HELP vllm:request_prompt_tokens x\n"
    + "".join(
        f'vllm:{family}_bucket{{le="{edge}",model_name="m"}} {n}.0\n'
        for family, counts in (
            ("request_prompt_tokens", ((10, 2), (100, 7), (1000, 9), ("+Inf", 9))),
            ("request_generation_tokens", ((10, 3), (100, 9), ("+Inf", 9))),
        )
        for edge, n in counts
    )
    + 'vllm:request_prompt_tokens_sum{model_name="m"} 900.0\n'
    + 'vllm:request_generation_tokens_sum{model_name="m"} 400.0\n'
    + 'vllm:request_success_total{finished_reason="abort",model_name="m"} 1.0\n'
)
_DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MODELS = {
    "dense": _DENSE
    | {"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 4}
    | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["lm"]}},
    "moe": _DENSE
    | {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    | {"decoder_sparse_step": 2, "mlp_only_layers": [1], "shared_expert_intermediate_size": 512}
    | {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {"num_bits": 8, "type": "float"},
                    "input_activations": {"num_bits": 8, "type": "float"},
                }
            },
            "ignore": ["lm_head"],
            "kv_cache_scheme": {"num_bits": 8, "type": "float"},
        }
    },
    "latent": _DENSE
    | {"model_type": "deepseek_v3", "kv_lora_rank": 128, "q_lora_rank": 256, "qk_rope_head_dim": 64}
    | {"qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 8, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 512, "n_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1},
    "vision": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_hidden_layers": 8,
            "sliding_window": 512,
        },
    },
}
LOAD_TESTS = {
    "own": {
        "melange": "measurements/1",
        "measurements": [
            {"input_tokens": 500, "output_tokens": 200, "accelerator": "L4", "tensor_parallel": 1, "engine": "vllm",
             "concurrency": 8, "tpot_s": {"mean": 0.05, "p99": 0.08}, "achieved_rate": 0.5, "samples": 100},
            {"input_tokens": 500, "output_tokens": 200, "accelerator": "L4", "max_request_rate": 0.7,
             "max_request_rate_low": 0.6, "max_request_rate_high": 0.8, "slo": {"tpot_s": 0.12, "statistic": "mean"}},
        ],
    },
    "vllm": {
        "model_id": "m", "completed": 100, "total_input_tokens": 50000, "total_output_tokens": 20000, "duration": 50.0,
        "request_rate": 2.0, "max_concurrency": None, "request_throughput": 1.9, "mean_ttft_ms": 300.0,
        "mean_tpot_ms": 50.0, "median_tpot_ms": 48.0, "p99_tpot_ms": 80.0, "mean_itl_ms": 50.0, "mean_e2el_ms": 9000.0,
    },
    "aiperf": {
        "input_config": {"loadgen": {"request_rate": 2.0, "concurrency": 8}, "endpoint": {"model_names": ["m"]}},
        "request_throughput": {"unit": "requests/sec", "avg": 1.9},
        "request_count": {"unit": "requests", "avg": 100.0},
        "input_sequence_length": {"unit": "tokens", "avg": 500.0},
        "output_sequence_length": {"unit": "tokens", "avg": 200.0},
        "time_to_first_token": {"unit": "ms", "avg": 300.0, "p99": 600.0},
        "inter_token_latency": {"unit": "ms", "avg": 50.0, "p99": 80.0},
        "benchmark_duration": {"unit": "sec", "avg": 50.0},
    },
    "guidellm": {
        "args": {"model": "m"},
        "benchmarks": [
            {
                "duration": 50.0,
                "metrics": {
                    "request_totals": {"successful": 100, "errored": 0},
                    "prompt_token_count": {"successful": {"mean": 500.0}},
                    "output_token_count": {"successful": {"mean": 200.0}},
                    "requests_per_second": {"successful": {"mean": 1.9}},
                    "request_concurrency": {"successful": {"mean": 8.0}},
                    "inter_token_latency_ms": {"successful": {"mean": 50.0, "percentiles": {"p99": 80.0}}},
                },
            }
        ],
    },
}  # fmt: skip
AIBRIX_LOAD = [
    {"metric": metric, "input_tokens": 500, "output_tokens": 200, "request_rate": 2.0, "seed": 1, "model": "m",
     "samples": 100, "temperature": 0.0, "mean": mean, "P50": mean, "P99": 2 * mean}
    for metric, mean in (("TPUT", 1.9), ("TTFT", 0.3), ("TPOT", 0.05), ("E2E", 10.0))
]  # fmt: skip
RELEASE = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 4,
}
AIBRIX = {
    "gpu": "A10G",
    "cost": 1.01,
    "tputs": [[2.0, 1.0], [5.0, 2.0]],
    "indexes": [[100, 1000], [100, 500]],
    "created": 0.0,
    "e2e": [[1.0, 1.0], [1.0, 1.0]],
    "slos": {"percentile": 0, "tpot": 0.12},
}
OFFERS = """\
provider,region,instance_type,accelerator,accelerators,cost_per_h,market,interconnect,max_instances,source,seen
aws,us-east-1,g6.xlarge,L4,1,0.80,on-demand,pcie,4,list,2026-08-22
aws,us-east-1,g5.xlarge,A10G,1,1.01,spot,,,list,2026-08-22
"""
SKYPILOT = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice,AvailabilityZone
g6.xlarge,L4,1.0,4.0,16.0,0.8048,us-east-1,"{'Gpus': [{'Name': 'L4', 'MemoryInfo': {'SizeInMiB': 22888}}]}",0.3,a
g5.xlarge,A10G,1.0,4.0,16.0,1.006,us-east-1,,0.4,b
"""
GPUHUNT = """\
instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size
g6.xlarge,us-east-1,0.8048,4,16.0,1,L4,24.0,False,
g5.xlarge,us-east-1,1.006,4,16.0,1,A10G,24.0,True,
"""
MEASUREMENT_TABLE = """\
accelerator,input_tokens,output_tokens,concurrency,tpot_s,tpot_p99_s,achieved_rate,slo_tpot_s,max_request_rate
L4,500,200,8,0.05,0.08,0.5,,
L4,500,200,,0.05,,,0.12,0.7
"""
JOURNAL = """\
{"melange": "measure-journal/1", "url": "http://localhost:8000", "model": "m", "slo": {"tpot_s": 0.12}}
{"bucket": [0, 0], "size": [50, 50], "guess": 2.0}
{"bucket": [0, 0], "step": {"rate": 2.0, "latency_s": 1.0, "is_far": false}, "point": {"rate": 2.0, "metric": "tpot", \
"excess": 0.5, "excess_low": 0.4, "excess_high": null, "keeps_up": true, "is_client_late": false, "latency_s": 1.2, \
"achieved_rate": 1.9, "failure": "", "measurement": {"input_tokens": 50, "output_tokens": 50, "accelerator": "L4", \
"tpot_s": {"mean": 0.05}, "offered_rate": "inf"}}}
{"bucket": [0, 0], "found": {"max_request_rate": 2.0, "failed_rate": null, "low": 1.8, "high": 2.2, "why": ""}, \
"measurement": {"input_tokens": 50, "output_tokens": 50, "accelerator": "L4", "max_request_rate": 2.0, \
"slo": {"tpot_s": 0.12, "statistic": "mean"}}}
"""
