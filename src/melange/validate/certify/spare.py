"""What is left of a fleet when spare replicas are lost."""

from __future__ import annotations

from melange.plan.options import Options
from melange.plan.plan import Plan


def own_spare(options: Options, name: str) -> int:
    """Replicas of a type that may be lost while it still carries its own share."""
    spare = options.spare_replicas
    return spare if isinstance(spare, int) else spare.get(name, 0)


def without_spare(plan: Plan) -> list[dict[str, int] | None]:
    """Replicas left by type name after losses: once with every type's own spares lost, then with one type's each."""
    options, replicas = plan.question.options, {name: n for name, n in plan.replicas.items() if n}
    left = {name: max(0, n - own_spare(options, name)) for name, n in replicas.items()}
    found: list[dict[str, int] | None] = [] if left == replicas else [left]
    if options.spare_total_replicas:
        found += [{**replicas, name: max(0, n - options.spare_total_replicas)} for name, n in replicas.items()]
    return found or [None]
