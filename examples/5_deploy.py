"""Stage 5: the plan as a gateway's configuration. Printed is what the file says of itself; write() saves it."""

from datetime import date

import melange

workload = melange.dataset("azure-conversation", request_rate=32.0)
catalog = melange.load_catalog().select(providers=["aws"], regions=["us-east-1"], markets=["on-demand"])
model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
slo = melange.Slo(ttft_s=1.0, tpot_s=0.08)
plan = melange.solve(workload, melange.estimate(model, catalog.offers, slo, workload))

replicas = {
    name: [f"http://{name.rpartition('/')[2]}-{k}.internal:8000" for k in range(count)]
    for name, count in plan.replicas.items()
    if count
}
manifest = melange.render(plan, "haproxy", replicas=replicas, written=date(2026, 11, 25))
for name, text in manifest.files.items():
    print(name)
    print("\n".join(line for line in text.splitlines() if line.startswith("#")))
