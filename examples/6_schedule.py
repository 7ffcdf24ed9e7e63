"""Schedule: a week of traffic, what to reserve for it, and the rule by which the rest follows."""

from pathlib import Path

import melange

session = melange.Session(Path(__file__).with_name("week.yaml"))
demand = session.demand()
print(f"{demand.mean_rate:.1f} requests/s on average, {demand.peak_rate:.1f} in the busiest half hour")

schedule = session.schedule(quick=True)
for one in schedule.commitments:
    held = ", ".join(f"{count} x {name}" for name, count in one.reserved.items()) or "nothing"
    print(f"{one.name or 'no commitment'}: {held} reserved, the hours cost {one.cost_per_h * 168:,.0f} USD a week")
print(f"by the rule {schedule.cost_per_week:,.0f} USD a week, {schedule.savings:.0%} less than a fleet for the peak")

rule = schedule.rule
assert rule is not None
print(f"{rule.replica_type}: {rule.settings.words}")
shape = (len(demand), *demand.buckets.shape)
now = demand.rates().reshape(shape)[:40]
print(f"after 40 half hours it asks for {rule.wanted(now)} instances beside the reserved ones")
