"""Functions for the page's worker processes: answers by closed form, curves, reports, manifests, parts of the page.

Every function takes and returns plain values. Workers cache traffic and capacities.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from melange.errors import MelangeError
from melange.files import Json
from melange.service.kept_session import Kept, KeptSession
from melange.service.session import Session
from melange.ui.choices import settings_of
from melange.ui.opened import Asked, Opened

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.present.figures.picture import Picture
    from melange.present.study import Study

# Longest search for an answer while a user drags [s]: a harder program is shown with its current gap. The certified
# answer takes as long as the service allows.
_MOST_SEARCH_S = 3.0
_MOST_PLANS = 64


@cache
def _kept() -> Kept:
    return Kept()


@cache
def _plans() -> OrderedDict[str, Plan]:
    return OrderedDict()


def warm_up(opened: Opened) -> None:
    """Import what answers need, and read the service's traffic, before the first request."""
    from melange.ui.choices import Choices

    for one in opened.service_by_name.values() or (opened,):
        answer(Asked(opened=one, choices=Choices()), None, None)


def chosen(asked: Asked, *, is_shown: bool = False) -> tuple[str, ...]:
    """The settings of a state of the page, as ``key=value``; to show in a command, or to run here."""
    opened = asked.opened

    def own_rate(traffic: str) -> float:
        settings = opened.with_choices([f"workload={traffic}"] if traffic else [])
        return KeptSession(opened.path, settings=settings, kept=_kept()).workload().total_rate

    settings = settings_of(asked.choices, opened.service(), lambda _: asked.log[0], own_rate)
    return _with_shown_log(asked, settings) if is_shown else settings


def _with_shown_log(asked: Asked, settings: tuple[str, ...]) -> tuple[str, ...]:
    """Settings with an uploaded log under the name that the user gave it."""
    place, name = asked.log
    return tuple(one.replace(json.dumps(place), json.dumps(name)) for one in settings) if place else settings


def _closed(asked: Asked, chosen: Sequence[str]) -> tuple[KeptSession, Plan]:
    """The session, and the plan by closed form."""
    service = asked.opened.service()
    limit = [f"plan.time_limit_s={min(service.plan.time_limit_s, _MOST_SEARCH_S):g}"]
    settings = asked.opened.with_choices([*chosen, *limit])
    session, kept, key = KeptSession(asked.opened.path, settings=settings, kept=_kept()), _plans(), asked.key
    if key not in kept:
        kept[key] = session.plan()
        if len(kept) > _MOST_PLANS:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return session, kept[key]


def answer(asked: Asked, certified: Json | None, pinned: Json | None) -> Json:
    """The answer of a state: HTML, a summary, and the settings and the command that give it.

    Parameters
    ----------
    asked
        The state of the page.
    certified
        The plan that the command found, as JSON; None: compute it here by closed form.
    pinned
        The summary of a pinned plan to compare with.
    """
    from melange.plan.plan import Plan
    from melange.ui.answer_parts import answer_html, no_answer, summary_of

    try:
        ran = chosen(asked)
    except MelangeError as error:
        return no_answer(error) | {"settings": [], "command": "", "quick_command": "", "rate": None}
    shown = _with_shown_log(asked, ran)
    told: Json = {
        "settings": list(ran),
        "command": asked.opened.command("plan", shown),
        "quick_command": asked.opened.command("plan", shown, "--quick"),
        "rate": None,
    }
    try:
        plan = Plan.from_json(certified) if certified is not None else _closed(asked, ran)[1]
    except MelangeError as error:
        return no_answer(error) | told
    told["rate"] = plan.workload.total_rate
    return told | {"html": answer_html(plan, pinned), "summary": summary_of(plan)}


def command(asked: Asked, verb: str, flags: tuple[str, ...]) -> str:
    """The command line of a verb for a state."""
    return asked.opened.command(verb, chosen(asked, is_shown=True), *flags)


def service_text(asked: Asked) -> str:
    """The ``service.yaml`` of a state."""
    shown = chosen(asked, is_shown=True)
    return asked.opened.text(shown, asked.opened.command("plan", shown))


def plan_text(asked: Asked) -> str:
    """The ``plan.json`` of a state by closed form, as ``melange plan --quick`` writes it."""
    return Session(asked.opened.path, settings=asked.opened.with_choices(chosen(asked))).plan().dumps() + "\n"


def _study(asked: Asked, certified: Json | None) -> Study:
    """The plan, and plans at other rates and limits near it."""
    from melange.plan.plan import Plan
    from melange.present.study import Study

    session, plan = _closed(asked, chosen(asked))
    # The file of a plan of many types contains only the used ones: other types could not be compared with it.
    if certified is not None and certified["profile"]["is_whole"]:
        plan = Plan.from_json(certified)
    return Study(exploration=session.explore(plan), day=datetime.now(UTC).date())


def _drawn(pictures: Sequence[Picture]) -> Json:
    from melange.present.pages import html

    return {"html": "".join(map(html.figure, pictures)), "figures": json.loads(html.figures(pictures))}


def curves(asked: Asked, certified: Json | None) -> Json:
    """Cost by limit and by rate, with the current point."""
    from melange.present.figures.pictures import picture_of_cost_by_limit, pictures_by_rate
    from melange.present.pages.plan_page import no_sweeps

    try:
        study = _study(asked, certified)
    except MelangeError as error:
        return _fault(error)
    sweeps = study.exploration.by_limit
    pictures = [
        *([picture_of_cost_by_limit(study, sweeps)] if sweeps else []),
        pictures_by_rate(study, study.exploration.by_rate)[0],
    ]
    drawn = _drawn(pictures)
    return drawn | {"html": drawn["html"] + ("" if sweeps else no_sweeps(study))}


def report(asked: Asked, certified: Json | None) -> Json:
    """The page of ``melange plan --report``, under ``page``."""
    from melange.present.pages.plan_page import report_page, report_pictures

    try:
        study = _study(asked, certified)
    except MelangeError as error:
        return _fault(error)
    return {"page": report_page(study, report_pictures(study), asked.opened.path.name)}


def manifests(asked: Asked, certified: Json | None, target: str, options: Sequence[str]) -> Json:
    """The files of a deployment target, by name under ``files``, with cautions."""
    from melange.deploy.pools import parse_replicas
    from melange.deploy.render import render, target_of
    from melange.plan.plan import Plan

    try:
        plan = _closed(asked, chosen(asked))[1] if certified is None else Plan.from_json(certified)
        found = target_of(target)
        addresses = [one.partition("=")[2] for one in options if one.startswith("replicas=")]
        given: dict[str, Any] = dict(found.read([one for one in options if not one.startswith("replicas=")]))
        if addresses:
            given["replicas"] = parse_replicas(addresses)
        manifest = render(plan, target, **given)
    except MelangeError as error:
        return _fault(error)
    return {"files": dict(manifest.files), "cautions": [str(one) for one in manifest.cautions], "kind": plan.kind}


def schedule_part(found: Json) -> Json:
    """The output of ``melange schedule --json`` as HTML with figures."""
    from melange.plan.schedule.schedule import Schedule
    from melange.present.pages.html import escape
    from melange.present.pages.schedule_report import schedule_pictures, schedule_sections
    from melange.present.terminal.schedule_words import schedule_sentence

    schedule = Schedule.from_json(found)
    pictures = schedule_pictures(schedule)
    from melange.present.pages import html

    head = f'<p class="lead">{escape(schedule_sentence(schedule))}</p>'
    return {
        "html": head + "".join(schedule_sections(schedule, pictures)),
        "figures": json.loads(html.figures(pictures)),
    }


def what_if_part(found: Json) -> Json:
    """The output of ``melange what-if --json`` as HTML."""
    from melange.ui.tab_parts import what_if_html

    return {"html": what_if_html(found)}


def pools_part(found: Json) -> Json:
    """The output of ``melange plan fleet.yaml --json`` as HTML."""
    from melange.plan.joint.joint_plan import JointPlan
    from melange.present.pages.fleet_report import fleet_sections
    from melange.present.pages.html import escape
    from melange.present.terminal.fleet_words import fleet_sentence

    plan = JointPlan.from_json(found)
    head = f'<p class="lead">{escape(fleet_sentence(plan))}</p>'
    return {"html": head + "".join(fleet_sections(plan))}


def _fault(error: MelangeError) -> Json:
    from melange.ui.answer_parts import no_answer

    return {"html": no_answer(error)["html"], "error": str(error)}
