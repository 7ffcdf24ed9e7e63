"""A schedule in sentences."""

from __future__ import annotations

from melange.plan.schedule.schedule import CommitmentOutlook, Schedule
from melange.units import H_PER_WEEK, percent


def money(amount: float) -> str:
    """An amount per week or month: whole dollars, or cents if it is small.

    >>> money(20267.4), money(3.5)
    ('20,267 USD', '3.50 USD')
    """
    return f"{amount:,.0f} USD" if amount >= 100 else f"{amount:,.2f} USD"


def schedule_sentence(schedule: Schedule) -> str:
    """Cost, reservations and savings."""
    held = counted(schedule.instances_at(0)["reserved"])
    base = f"{held} reserved ({schedule.commitment.name})" if held and schedule.commitment else "nothing reserved"
    if schedule.savings_plan:
        base += f", {money(schedule.committed_per_h)} an hour committed ({schedule.savings_plan.name})"
    rest = f", the rest on {' and '.join(_markets(schedule))} as traffic requires" if schedule.rule else ""
    peak = schedule.static_per_h * H_PER_WEEK
    saved = schedule.savings
    compared = f"{percent(saved)} less than" if saved >= 0 else f"{percent(-saved)} more than"
    return (
        f"{money(schedule.cost_per_week)} a week ({money(schedule.cost_per_month)} a month): {base}{rest}; {compared} "
        f"a fleet for the peak ({money(peak)} a week)."
    )


def counted(instances: dict[str, int]) -> str:
    """Instances by name in words."""
    *others, last = [f"{count} x {name}" for name, count in instances.items()] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def committed_words(outlook: CommitmentOutlook) -> str:
    """The contents of a commitment."""
    parts = [counted(dict(outlook.reserved)) or "nothing", "reserved"]
    if outlook.committed_per_h:
        parts.append(f"and {money(outlook.committed_per_h)} an hour committed")
    return " ".join(parts)


def _markets(schedule: Schedule) -> list[str]:
    return ["demand", *(["spot"] if schedule.running.spot_per_h > 0 else [])]


def shortage_sentence(schedule: Schedule) -> str:
    """Requests short, in the windows that the rule was chosen on and in later windows."""
    unseen, wanted = schedule.unseen, schedule.options.short_fraction
    return (
        f"Chosen on the first two thirds of the history, with at most {percent(wanted, 2)} of the requests short "
        f"(beyond the fleet's planned capacity); the last third had {percent(unseen.short_fraction, 2)}, in "
        f"{percent(unseen.short_windows_fraction)} of the windows. In a short window, far more requests miss the SLO "
        "than are short, because requests queue behind each other."
    )


def deferred_sentence(schedule: Schedule) -> str:
    """Cost of requests that may wait, and their cost if all were served on arrival; empty if none may wait."""
    deferred = schedule.deferred
    if deferred is None:
        return ""
    names = " and ".join(one.name for one in deferred.classes)
    added = (schedule.planned_per_h - deferred.without_per_h) * H_PER_WEEK
    words = f"Fleets planned hour by hour cost {money(added)} a week more than without {names}"
    if deferred.at_once_per_h is not None:
        at_once = (deferred.at_once_per_h - deferred.without_per_h) * H_PER_WEEK
        words += f", and {money(at_once)} more if all is served as it arrives"
        if deferred.at_once is not None:
            saved = money((deferred.at_once.cost_per_h - schedule.running.cost_per_h) * H_PER_WEEK)
            words += f"; with the scaling rule, deferral saves {saved} a week"
    else:
        words += "; no fleet within the limits serves all as it arrives"
    return (
        f"{words}. Send these requests at the hourly rates in schedule.json, and queue those that the fleet has no "
        "room for."
    )


def proof_sentence(schedule: Schedule) -> str:
    """How good each hour's fleet is, and how close the rule comes to a plan with known future traffic."""
    best_per_h = schedule.clairvoyant_per_h
    if best_per_h is None:
        foresight = "No fleet within the limits carries every window of the history"
    else:
        times = schedule.running.cost_per_h / best_per_h
        foresight = (
            f"With perfect foresight, the same commitment would cost {money(best_per_h * H_PER_WEEK)} a week: the rule "
            f"costs {times:.2f} times that"
        )
    return (
        f"{foresight}. Fleets planned hour by hour cost "
        f"{money(schedule.planned_per_h * H_PER_WEEK)} a week, and no schedule of them costs less than "
        f"{money(schedule.bound_per_h * H_PER_WEEK)} (proven gap {percent(schedule.gap)})."
    )


def rule_sentence(schedule: Schedule) -> str:
    """How the remaining instances follow the traffic."""
    rule = schedule.rule
    if rule is None:
        return "The reserved instances carry all of the traffic, so nothing is scaled."
    signals = "one weighted sum" if len(rule.signals) == 1 else f"the highest of {len(rule.signals)} weighted sums"
    spot = f", up to {rule.spot_share:.0%} of the load on spot" if rule.spot_share else ""
    return (
        f"{rule.replica_type} follows {signals} of request rates (schedule.json has the weights): {rule.settings.words}"
        f"{spot}."
    )
