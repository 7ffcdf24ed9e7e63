"""Stage 2: what one replica of each type can serve of each request size within the SLO."""

import melange

catalog = melange.load_catalog().select(
    gpus=["L4", "A10G", "A100-80GB", "H100-80GB"], providers=["aws"], regions=["us-east-1"], markets=["on-demand"]
)
model = melange.find_model("meta-llama/Llama-2-7b-hf")
sizes = melange.Buckets(input_edges=(100, 1000, 4000), output_edges=(100, 500))
for slo in (melange.Slo(ntpot_s=0.12), melange.Slo(ntpot_s=0.04)):
    profile = melange.estimate(model, catalog.offers, slo, sizes, tensor_parallel=[1])
    print(slo)
    for r, replica_type in enumerate(profile.replica_types):
        short, long = profile.max_request_rate[r, 0, 0], profile.max_request_rate[r, 1, 1]
        print(f"  {replica_type.name}: {short:.2f} requests/s of 100 in, 100 out; {long:.2f} of 1000 in, 500 out")
        if long == 0:
            print(f"    {profile.reasons[profile.reason[r, 1, 1]]}")
