"""Write a small week of traffic beside this file: rates.csv and sizes.csv, as tables that a service names.

The week is made up: a chat service that is busy in the daytime and at the weekend's evenings, whose prompts get longer
in working hours. python examples/week/make.py writes it again; the seed makes it the same every time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
WINDOW = timedelta(minutes=30)
INPUTS, OUTPUTS = (250, 1000, 4000), (100, 500)


def main() -> None:
    """Write both tables."""
    random = np.random.default_rng(20260302)
    rates, level = ["start,rate"], 1.0
    for k in range(7 * 48):
        moment = START + k * WINDOW
        hour, is_weekend = moment.hour + moment.minute / 60, moment.weekday() >= 5
        shape = 0.25 + np.exp(-(((hour - 14) / 4.5) ** 2)) * (0.45 if is_weekend else 1.0)
        shape += 0.5 * np.exp(-(((hour - 21) / 1.8) ** 2)) * (1.0 if is_weekend else 0.4)
        level = 0.85 * level + 0.15 * float(random.lognormal(0.0, 0.35))
        rates.append(f"{moment:%Y-%m-%dT%H:%M},{30 * shape * level:.2f}")
    sizes = ["start,input_tokens_upto,output_tokens_upto,share"]
    for k in range(7 * 4):
        moment = START + k * timedelta(hours=6)
        is_working = moment.hour in (6, 12) and moment.weekday() < 5
        inputs = np.array([0.35, 0.4, 0.25] if is_working else [0.55, 0.35, 0.1])
        outputs = np.array([0.4, 0.6])
        for i, o in np.ndindex(3, 2):
            sizes.append(f"{moment:%Y-%m-%dT%H:%M},{INPUTS[i]},{OUTPUTS[o]},{inputs[i] * outputs[o]:.4f}")
    for name, lines in (("rates.csv", rates), ("sizes.csv", sizes)):
        (HERE / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
