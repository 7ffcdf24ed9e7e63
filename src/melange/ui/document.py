"""The page's document: the form on the left, the answer and the tabs on the right."""

from __future__ import annotations

from collections.abc import Sequence

from melange.deploy.render import TARGETS
from melange.present.pages.html import escape

# Presets of the what-if tab: a label, and the flags of melange what-if.
PRESETS = (
    ("H100 spot -30 %", "price", "H100 spot=-30%"),
    ("No L40S", "without", "L40S"),
    ("Traffic x 2", "rate", "x2"),
    ("Save 20 %", "save", "20%"),
)


def document(
    *, title: str, controls: str, services: Sequence[str], service: str, has_week: bool, has_pools: bool, version: str
) -> str:
    """The whole document.

    Parameters
    ----------
    title
        The file's name.
    controls
        The form as HTML.
    services, service
        Names of a fleet's services, and the one that is shown; empty for a service file.
    has_week, has_pools
        Whether there is traffic over time, and whether services share pools.
    version
        Version of the package, for the URLs of its files.
    """
    tabs = [("curves", "Cost by SLO and rate"), ("what-if", "What if"), ("pinned", "Pinned plans")]
    tabs += [("week", "Week")] if has_week else []
    tabs += [("pools", "Services and pools")] if has_pools else []
    tabs += [("export", "Export")]
    buttons = "".join(
        f'<button type="button" role="tab" id="tab-{name}" aria-controls="panel-{name}" aria-selected="false" '
        f'tabindex="-1">{escape(label)}</button>'
        for name, label in tabs
    )
    panels = {
        "curves": '<div id="curves" class="part"></div>',
        "what-if": _what_if(),
        "pinned": '<div id="pinned" class="part"></div>',
        "week": _long("week", "Plan over the week", "simulate windows of it request by request"),
        "pools": _long("pools", "Plan all services together", "certify each service"),
        "export": _export(),
    }
    shown = "".join(
        f'<div role="tabpanel" id="panel-{name}" aria-labelledby="tab-{name}" tabindex="0" hidden>{panels[name]}</div>'
        for name, _ in tabs
    )
    links = "".join(
        f'<a href="/?service={escape(name)}"{" aria-current=page" if name == service else ""}>{escape(name)}</a>'
        for name in services
    )
    nav = f'<nav aria-label="Services of the fleet">{links}</nav>' if services else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>Melange: {escape(title)}</title>'
        f'<link rel="stylesheet" href="/static/ui.css?{version}">'
        f'<script defer src="/static/plotly.js?{version}"></script>'
        f'<script defer src="/static/ui.js?{version}"></script></head>'
        f'<body data-service="{escape(service)}"><a class="skip" href="#answer">Skip to the answer</a>'
        f'<header><h1><span class="brand">Melange</span> {escape(title)}</h1>{nav}</header>'
        f'<main><details id="question" open><summary>Traffic, SLO, offers, redundancy</summary>'
        f'<form id="controls" aria-label="The question" autocomplete="off">{controls}'
        '<p class="reset"><button type="button" id="reset">Reset to the file</button></p></form></details>'
        '<div id="right"><section id="result" aria-label="The answer">'
        '<p class="sr" role="status" aria-live="polite" id="said"></p>'
        '<div class="bar"><span id="state" class="dim">Planning ...</span><span class="buttons">'
        '<label class="auto"><input type="checkbox" id="auto" checked> certify automatically</label>'
        '<button type="button" id="certify">Certify now</button>'
        '<button type="button" id="cancel" hidden>Cancel</button>'
        '<button type="button" id="pin">Pin this plan</button></span></div>'
        '<progress id="busy" aria-label="Certifying" hidden></progress>'
        '<div id="pins" role="group" aria-label="Pinned plans"></div><div id="answer" tabindex="-1"></div>'
        '<div class="command"><p id="command-about" class="dim">The same answer on the command line:</p>'
        '<pre id="command" tabindex="0" aria-labelledby="command-about"></pre>'
        '<button type="button" id="copy">Copy</button></div></section>'
        f'<section id="tabs" aria-label="More"><div role="tablist" aria-label="More about this plan">{buttons}</div>'
        f"{shown}"
        '</section></div></main><p id="brief" aria-hidden="true"></p></body></html>'
    )


def _what_if() -> str:
    presets = "".join(
        f'<button type="button" data-ask="{flag}" data-value="{escape(value)}">{escape(label)}</button>'
        for label, flag, value in PRESETS
    )
    fields = "".join(
        f'<div class="row"><label for="ask-{flag}">{label}</label>'
        f'<input type="text" id="ask-{flag}" data-flag="{flag}" '
        f'placeholder="{escape(example)}" autocomplete="off" spellcheck="false"></div>'
        for flag, label, example in (
            ("price", "Other prices", "H100=-30%; L4=0.60"),
            ("rate", "Other traffic", "x2; +20%; 50"),
            ("without", "Without", "L40S; gcp; spot"),
            ("save", "What would save", "20%"),
        )
    )
    return (
        f'<form id="ask"><p class="presets" role="group" aria-label="Examples">{presets}</p>{fields}'
        '<p class="hint">Separate several values by semicolons. Each is answered alone, then all together.</p>'
        f"{_actions('what-if', 'Answer', 'simulate each (minutes)')}</form>"
        '<div id="what-if" class="part"></div>'
    )


def _long(name: str, action: str, simulated: str) -> str:
    limits = (
        '<p class="hint">All services as in their files: the choices on the left apply to one of them.</p>'
        '<div class="row"><label for="pool-limits">What all services together may rent</label>'
        '<input type="text" id="pool-limits" placeholder="as in the file; L40S:6, H100-80GB:4" autocomplete="off" '
        'spellcheck="false"></div>'
        if name == "pools"
        else ""
    )
    return (
        f'<form id="{name}-form">{limits}{_actions(name, action, simulated)}</form><div id="{name}" class="part"></div>'
    )


def _actions(name: str, action: str, simulated: str) -> str:
    return (
        f'<p class="actions"><button type="submit">{action}</button>'
        f'<label><input type="checkbox" id="{name}-simulated"> '
        f'{simulated}</label><button type="button" id="{name}-cancel" hidden>Cancel</button>'
        f'<span class="dim" id="{name}-state" role="status"></span></p>'
    )


def _export() -> str:
    targets = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in TARGETS)
    about = "".join(
        f'<li data-target="{escape(one.name)}">{escape(one.about)} Options: '
        f"{escape(', '.join(option.name for option in one.declared) or 'none')}.</li>"
        for one in TARGETS.values()
    )
    return (
        '<p class="actions"><a id="get-service" download="service.yaml">service.yaml</a> '
        '<a id="get-plan" download="plan.json">plan.json</a> '
        '<button type="button" id="report">Report (HTML)</button>'
        '<span class="dim" id="report-state" role="status"></span></p>'
        f'<form id="deploy"><div class="row"><label for="target">Manifests for</label>'
        f'<select id="target">{targets}</select>'
        f'</div><ul class="hint" id="target-about">{about}</ul>'
        '<div class="row"><label for="options">Options, KEY=VALUE, one per line</label>'
        '<textarea id="options" rows="2" spellcheck="false"></textarea></div>'
        '<p class="actions"><button type="submit">Write the files</button>'
        '<span class="dim" id="deploy-state" role="status"></span></p></form><div id="files" class="part"></div>'
    )
