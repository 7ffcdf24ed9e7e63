"""Names that try to become something else in the files that they are written to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from deploy_cases import plan_of, replica_type
from plan_cases import answering

from melange.plan.plan import Plan

HOSTILE = (
    'a"b',
    "a'b",
    "a: b",
    "- a",
    "a #b",
    "{{ a }}",
    "${a}",
    "$a $(touch broken)",
    "$(HF_TOKEN)",
    "`touch broken`",
    "%{ if true }",
    "${file('/etc/passwd')}",
    "a\\",
    "a\\nb",
    "a\nkey: value",
    "a\r\nrunas: root",
    "a\x00b",
    "a\x1b[2J",
    "!!python/object:os.system",
    "&anchor",
    "*alias",
    "no",
    "1.10",
    "0x10",
    "12:30:45",
    "null",
    "~",
    "",
    " a ",
    "a; rm -rf /",
    "a && b",
    "a | b",
    "--trust-remote-code",
    "-a",
    "a\u2028b",
    "\u202eabc",
    "Ünïcödé 漢字",
    "a" * 300,
    "../../etc/passwd",
    "EOF",
    "a\n---\nb",
    '"; resource "x" "y" {}',
    "${{ secrets.x }}",
    "@",
    "#a",
    "a=b",
    "http://x:1",
)


def hostile_plan(text: str) -> Plan:
    """A plan of two types in which everything that users name is called that."""
    types = []
    for place, base in enumerate(("aws", "gcp")):
        one = replica_type(f"{base}{text}", "L4")
        offer = replace(
            one.offer, provider=base, region=text, instance_type=f"{text}{place}", accelerator="L4" if place else text
        )
        types.append(replace(one, offer=offer))
    model = text if text.strip() else f"m{text}"
    return answering(plan_of(np.full((2, 3, 2), 0.5), [1, 2], types), model=model)
