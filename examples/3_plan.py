"""Stage 3: the cheapest mix, the bound that proves it, and what certainty costs."""

import melange

workload = melange.dataset("azure-conversation", request_rate=32.0)
catalog = melange.load_catalog().select(providers=["aws"], regions=["us-east-1"], markets=["on-demand"])
model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
slo = melange.Slo(ttft_s=1.0, tpot_s=0.08)
profile = melange.estimate(model, catalog.offers, slo, workload)
plan = melange.solve(workload, profile)

print(f"{plan.cost_per_h:.2f} USD/h, proven within {plan.gap:.2%}")
for name, replicas in plan.replicas.items():
    if replicas:
        print(f"  {replicas} x {name}")
able = {name: baseline for name, baseline in plan.single_type.items() if baseline.cost_per_h is not None}
print(f"{len(able)} of {len(plan.single_type)} replica types can do it alone; the cheapest three:")
for name in sorted(able, key=lambda name: able[name].cost_per_h)[:3]:
    print(f"  {able[name].instances} x {name}: {able[name].cost_per_h:.2f} USD/h")

for spare in (1, 2):
    plan = melange.solve(workload, profile, melange.Options(spare_replicas=spare))
    print(f"with {spare} spare of each type: {plan.cost_per_h:.2f} USD/h")
