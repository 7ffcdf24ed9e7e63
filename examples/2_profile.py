"""Stage 2: what one replica of each type can serve of each request size within the SLO."""

import melange

catalog = melange.load_catalog().select(
    gpus=["L4", "A10G", "L40S", "H100-80GB"], providers=["aws"], regions=["us-east-1"], markets=["on-demand"]
)
offers = [offer for offer in catalog.offers if offer.accelerators == 1]
model = melange.find_model("meta-llama/Llama-3.1-8B")
sizes = melange.Buckets(input_edges=(100, 1000, 4000), output_edges=(100, 500))
for limit_s in (0.12, 0.04):
    slo = melange.Slo(ntpot_s=limit_s, statistic="mean")  # as in the Mélange paper
    profile = melange.estimate(model, offers, slo, sizes)
    print(slo)
    for r, replica_type in enumerate(profile.replica_types):
        short, long = profile.max_request_rate[r, 0, 0], profile.max_request_rate[r, 1, 1]
        name = f"{replica_type.name} ({replica_type.offer.accelerator})"
        if long == 0:
            print(f"  {name}: {profile.reasons[profile.reason[r, 1, 1]]}")
            continue
        low, high = profile.low[r, 1, 1], profile.high[r, 1, 1]
        print(f"  {name}: {short:.2f} requests/s of 100 in, 100 out;", end=" ")
        print(f"{long:.2f} ({low:.2f} to {high:.2f}) of 1,000 in, 500 out")
