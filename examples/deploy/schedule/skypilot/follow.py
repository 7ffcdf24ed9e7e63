# Written by melange deploy on 2026-11-26 from a schedule over a day.
#
# Model meta-llama/Llama-3.1-8B-Instruct; SLO TTFT <= 2,000 ms and TPOT <= 60 ms for 99% of requests; 1,139 USD/week;
# start-up 300 s; traffic: rates.csv: 336 windows of 30 min.
#
# CAUTION: market: 1 x aws/us-east-1/p5.4xlarge, 1 x aws/us-east-1/g6e.xlarge: planned as reserved, which SkyPilot
# does not support: they are on-demand instances here, at all hours; a discount on the bill still applies to them
#
# CAUTION: spot: aws/us-east-1/g5.xlarge, aws/us-east-1/p5.4xlarge, aws/us-east-1/g6e.xlarge: until a spot instance is
# ready, SkyPilot also pays for an on-demand one in its place, at every start
#
# CAUTION: routing: SkyPilot cannot route by request size: put a gateway in front of its services
#
# A replica of aws/us-east-1/g5.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256,
# max_num_batched_tokens 2048, max_model_len 32539, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill
# true, enable_prefix_caching false
#
# A replica of aws/us-east-1/p5.4xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 1024,
# max_num_batched_tokens 8192, max_model_len 131072, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill
# true, enable_prefix_caching false
#
# A replica of aws/us-east-1/g6e.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, max_num_seqs 256,
# max_num_batched_tokens 2048, max_model_len 131072, block_size 16, gpu_memory_utilization 0.9, enable_chunked_prefill
# true, enable_prefix_caching false
#
# A fleet for each hour of the day in Europe/Berlin time, whatever the traffic is: one service per replica type, with
# a file for each number of on-demand and spot instances that it has at some time (services/NAME.ON-DEMAND.SPOT.yaml).
# follow.py runs sky serve update for the services whose numbers are others now. It looks 5 min ahead, for the
# start-up. Instances that stay are not restarted; SkyPilot sends no more requests to those that leave, and ends them
# two minutes later.
#
# Start: HF_TOKEN=... python3 follow.py up. Then run it once a minute on a machine that is always on, with a line of
# crontab -e:
#
# * * * * * HF_TOKEN="$(cat "$HOME/.cache/huggingface/token")" && export HF_TOKEN && /path/to/python3 /path/to/follow.py
#
# The machine's own time zone does not matter, and the next run makes up for one that was missed or failed. With the
# files of a new schedule in this folder, run follow.py up once more.
#
# Stop: remove the line, sky serve down -y llama-3-1-8b-aws-us-east-1-g5-xlarge llama-3-1-8b-aws-us-east-1-p5-4xlarge
# llama-3-1-8b-aws-us-east-1-g6e-xlarge, and delete applied.json: follow.py up leaves alone what is in it.
#
# In front of the services: melange deploy plan.json --to haproxy --replica NAME=http://ENDPOINT for each, with a plan
# of the same types. sky serve status --endpoint prints ENDPOINT, which stays the same at any number of instances.

"""Keep SkyPilot's services at the instances of the current hour: run this once a minute, for example by cron.

    python3 follow.py up      start the services that do not run yet; by hand, first and with a new schedule
    python3 follow.py         update the services whose instances are others now

python3 is the one that SkyPilot is installed for. hours.json has the hours; applied.json keeps what was applied, so
that a failed update is tried again a minute later. Delete it after sky serve down: up leaves alone what is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

HERE = Path(__file__).resolve().parent
# Local hours are looked up in steps of this length [s]; where clocks change, an hour may be half as long.
STEP_S = 900
# The first service also starts SkyPilot's controller.
TIMEOUT_S = 3600


def wanted(hours: dict[str, Any], now_s: float) -> dict[str, tuple[int, int]]:
    """On-demand and spot instances of each service: the most of the hours from now to the end of a start-up."""
    zone, cycle = ZoneInfo(hours["time_zone"]), hours["hours"]
    ahead_s = hours["start_up_s"]
    times = [datetime.fromtimestamp(now_s + step_s, zone) for step_s in [*range(0, ahead_s, STEP_S), ahead_s]]
    places = {(24 * one.weekday() + one.hour) % cycle for one in times}
    fleet = {}
    for name, counts in hours["services"].items():
        fleet[name] = max(counts[place][0] for place in places), max(counts[place][1] for place in places)
    return fleet


def apply(verb: str, name: str, file: Path) -> bool:
    """Whether SkyPilot took the service of a file."""
    # cron's PATH has no virtual environments.
    sky = shutil.which("sky") or str(Path(sys.executable).with_name("sky"))
    service = ["-n", name] if verb == "up" else [name]
    command = [sky, "serve", verb, "-y", *service, str(file), "--secret", "HF_TOKEN"]
    try:
        return subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return False


def digest(file: Path) -> str:
    """What identifies a service in all that SkyPilot reads of it."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def follow(verb: str) -> int:
    """Apply what differs; the exit status."""
    hours, record = json.loads((HERE / "hours.json").read_text()), HERE / "applied.json"
    applied = json.loads(record.read_text()) if record.exists() else {}
    failed = 0
    for name, (on_demand, spot) in wanted(hours, time.time()).items():
        file = HERE / "services" / f"{name}.{on_demand}.{spot}.yaml"
        if name in applied if verb == "up" else applied.get(name) == digest(file):
            continue
        said = f"{name}: {on_demand} on-demand and {spot} spot instances"
        if apply(verb, name, file):
            print(said, flush=True)
            applied[name] = digest(file)
            keep(record, applied)
        else:
            failed += 1
            print(
                f"{said}: failed; if SkyPilot has no such service, delete {record}, then follow.py up", file=sys.stderr
            )
    for name in [*applied]:
        if name not in hours["services"]:
            print(f"{name}: no longer in the schedule; stop it: sky serve down {name}", file=sys.stderr)
            del applied[name]
            keep(record, applied)
    return 1 if failed else 0


def keep(record: Path, applied: dict[str, str]) -> None:
    """Write the record at once, so that a run that is cut off leaves the old or the new one."""
    scratch = record.with_suffix(".new")
    scratch.write_text(json.dumps(applied))
    scratch.replace(record)


def main() -> int:
    """Refuse other arguments and a missing token; leave if another run has not ended."""
    arguments = sys.argv[1:] or ["update"]
    if arguments not in (["up"], ["update"]):
        print("usage: python3 follow.py [up]", file=sys.stderr)
        return 2
    if "HF_TOKEN" not in os.environ:
        print("HF_TOKEN must be in the environment; empty if the model needs none", file=sys.stderr)
        return 2
    with (HERE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        return follow(arguments[0])


if __name__ == "__main__":
    sys.exit(main())
