"""Keep SkyPilot's services at the instances of the current hour: run this once a minute, for example by cron.

    python3 follow.py up      start all services; once, by hand
    python3 follow.py         update the services whose number of instances is another one now

python3 is the one that SkyPilot is installed for. hours.json has the hours; applied.json keeps what was applied, so
that a failed update is tried again a minute later.
"""

from __future__ import annotations

import fcntl
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


def wanted(hours: dict[str, Any], now_s: float) -> dict[str, int]:
    """Instances of each service: the most of the hours from now to the end of a start-up that begins now."""
    zone, cycle = ZoneInfo(hours["time_zone"]), hours["hours"]
    ahead_s = hours["start_up_s"]
    times = [datetime.fromtimestamp(now_s + step_s, zone) for step_s in [*range(0, ahead_s, STEP_S), ahead_s]]
    places = {(24 * one.weekday() + one.hour) % cycle for one in times}
    return {name: max(counts[place] for place in places) for name, counts in hours["services"].items()}


def apply(verb: str, name: str, count: int) -> bool:
    """Whether SkyPilot took the service with this number of instances."""
    service = [*(["-n"] if verb == "up" else []), name, str(HERE / "services" / f"{name}.{count}.yaml")]
    # cron's PATH has no virtual environments.
    sky = shutil.which("sky") or str(Path(sys.executable).with_name("sky"))
    command = [sky, "serve", verb, "-y", *service, "--secret", "HF_TOKEN"]
    try:
        return subprocess.run(command, timeout=TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return False


def follow(verb: str) -> int:
    """Apply what differs, services that grow first; the exit status."""
    hours, record = json.loads((HERE / "hours.json").read_text()), HERE / "applied.json"
    applied = json.loads(record.read_text()) if record.exists() else {}
    target = wanted(hours, time.time())
    due = [
        name for name, count in target.items() if (name not in applied if verb == "up" else applied.get(name) != count)
    ]
    failed = 0
    for name in sorted(due, key=lambda one: applied.get(one, 0) - target[one]):
        said = f"{name}: {applied.get(name, 'unknown')} -> {target[name]} instances"
        if not apply(verb, name, target[name]):
            failed += 1
            print(f"{said}: failed", file=sys.stderr)
            continue
        print(said, flush=True)
        applied[name] = target[name]
        scratch = record.with_suffix(".new")
        scratch.write_text(json.dumps(applied))
        scratch.replace(record)
    return 1 if failed else 0


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
