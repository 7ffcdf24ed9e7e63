"""Validate: play a plan out, request by request, and let the simulation find what the SLO needs."""

import melange

workload = melange.dataset("azure-conversation", request_rate=16)
offers = melange.load_catalog().select(gpus=["L4", "L40S"], providers=["aws"], regions=["us-east-1"]).offers
model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
profile = melange.estimate(model, offers, melange.Slo(ttft_s=1.2, tpot_s=0.08), workload, tensor_parallel=1)


def show(name: str, plan: melange.Plan) -> None:
    """Three simulations of a plan, on requests that no plan was chosen by."""
    runs = [melange.simulate(plan, melange.draw_for(plan, 5000, seed=seed)) for seed in (101, 102, 103)]
    found = melange.report(runs)
    replicas = ", ".join(f"{count} x {kind}" for kind, count in plan.replicas.items() if count)
    assert found.attainment is not None
    print(f"{name}: {replicas}, {plan.cost_per_h:.2f} USD/h: {found.attainment.value:.1%} of the requests met the SLO")
    for cause, share in found.causes.items():
        if share >= 0.001:
            print(f"  {share:.1%} missed it by {cause}")


show("planned", melange.solve(workload, profile, melange.Options(headroom=0.0)))
show("certified", melange.certify(workload, profile, target=0.995))
