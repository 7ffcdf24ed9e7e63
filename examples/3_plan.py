"""Stage 3: the cheapest mix, the bound that proves it, and what would change it."""

import melange

workload = melange.dataset({"arena": 0.8, "arxiv-summarization": 0.2}, request_rate=16.0)
catalog = melange.load_catalog().select(
    gpus=["L4", "A10G", "A100-80GB", "H100-80GB"], providers=["aws"], regions=["us-east-1"], markets=["on-demand"]
)
model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
profile = melange.estimate(model, catalog.offers, melange.Slo(tpot_s=0.08), workload)
plan = melange.solve(workload, profile, melange.Options(headroom=0.1))

print(f"{plan.cost_per_h:.2f} USD/h, proven within {plan.gap:.2%}")
for name, replicas in plan.replicas.items():
    if replicas:
        print(f"  {replicas} x {name}")
print("alone:")
for name, baseline in plan.single_type.items():
    print(f"  {name}: {f'{baseline.cost_per_h:.2f} USD/h' if baseline.cost_per_h else baseline.reason}")

spare = melange.solve(workload, profile, melange.Options(headroom=0.1, spare_replicas=1))
print(f"with one spare replica of each type: {spare.cost_per_h:.2f} USD/h")
