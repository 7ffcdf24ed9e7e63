"""A service beside itself under other assumptions, and the smallest change that saves a share of its cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from melange.catalog.price_rules import price_rule
from melange.cli.app import app
from melange.errors import InputError
from melange.service.relax import relaxations
from melange.service.session import Session
from melange.service.what_if import Variant, answer, price_variant, rate_variant, together, without_variant

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 2000, tpot_ms: 60}
workload: {dataset: arena, rate: 40}
offers: {gpus: [L4, A10G, L40S], providers: [aws], regions: [us-east-1]}
plan: {spare_replicas: 1}
"""
Opened = Callable[..., Session]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the service with more settings."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)

    def open_session(more: Sequence[str] = ()) -> Session:
        return Session(path, settings=more)

    return open_session


def quick_cost(opened: Opened, *settings: str) -> float:
    """Of the service with settings [USD/h]."""
    return opened(settings).plan().cost_per_h


def test_accelerators_are_excluded_by_any_of_their_names(opened: Opened) -> None:
    """In any case, as under offers.gpus."""
    assert opened(["plan.exclude=[l40s]"]).options.exclude == ("L40S",)
    assert opened(["plan.require=[l4]"]).options.require == ("L4",)


def test_a_variant_is_the_service_with_its_settings(opened: Opened) -> None:
    """Its cost is that of a session that was given the same keys by hand."""
    session = opened()
    by_hand = {
        "price L40S=-40%": ("offers.prices={L40S: -40%}",),
        "rate x2": ("workload.rate=80",),
        "rate +50%": ("workload.rate=60",),
        "rate 7": ("workload.rate=7",),
        "without L40S": ("plan.exclude=[L40S]",),
    }
    made = [
        price_variant(session, "L40S=-40%"),
        *(rate_variant(session, change) for change in ("x2", "+50%", "7")),
        without_variant(session, "L40S"),
    ]
    assert [one.label for one in made] == list(by_hand)
    for variant, settings in zip(made, by_hand.values(), strict=True):
        assert answer(opened, variant, quick=True).cost_per_h == pytest.approx(quick_cost(opened, *settings))


def test_variants_together_are_all_of_them(opened: Opened) -> None:
    """Prices and exclusions add up; two rates have no sum."""
    session = opened()
    variants = [
        price_variant(session, "L4=-10%"),
        price_variant(session, "A10G=-20%"),
        without_variant(session, "L40S"),
        rate_variant(session, "x2"),
    ]
    both = answer(opened, together(variants), quick=True)
    settings = ("offers.prices={L4: -10%, A10G: -20%}", "plan.exclude=[L40S]", "workload.rate=80")
    assert both.cost_per_h == pytest.approx(quick_cost(opened, *settings))
    with pytest.raises(InputError, match=r"workload\.rate is 80 in one and 120 in another"):
        together([rate_variant(session, "x2"), rate_variant(session, "x3")])


def test_a_variant_without_a_plan_says_why(opened: Opened) -> None:
    """And is no error: the others are still answered."""
    found = answer(opened, Variant(label="fast", settings=("slo.ttft_ms=1",)), quick=True)
    assert found.plan is None
    assert "no replica type can serve" in found.reason


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(rate_variant, change="x0"), "leaves 0 requests/s"),
        (partial(rate_variant, change="double"), "must be a factor such as x2"),
        (partial(price_variant, change="H100"), "must be NAME=CHANGE"),
        (partial(price_variant, change="L4=-100%"), "--price L4=-100%: the rule for L4: must leave a price above 0"),
        (partial(price_variant, change="L40Z=-30%"), "--price L40Z=-30%: unknown name .* did you mean 'L40S'"),
        (partial(price_variant, change="aws L4=0.2"), "--price aws L4=0.2: aws L4: a price is per instance, but"),
        (partial(without_variant, name="L5"), "no replica type has this"),
    ],
)
def test_an_assumption_that_says_nothing_is_refused(
    make: Callable[[Session], Variant], said: str, opened: Opened
) -> None:
    """With the flag that it was given by."""
    with pytest.raises(InputError, match=said):
        make(opened())


def test_an_infeasible_scenario_is_a_row_with_its_reason_beside_the_others(tmp_path: Path) -> None:
    """In the table and as JSON, with exit code 0; without any offers, without a required type, and beyond a limit."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.replace("spare_replicas: 1", "require: [L4]"))
    flags = ["what-if", str(path), "--quick", "--without", "aws", "--without", "l4", "--rate", "1e9", "--rate", "x2"]
    found = CliRunner().invoke(app, [*flags, "--json"])
    assert found.exit_code == 0
    answers = {one["label"]: one for one in json.loads(found.stdout)["answers"]}
    reasons = {
        "without aws": "infeasible: every replica type is excluded or limited to no instances",
        "without l4": "plan: L4 is both required and excluded",
        "rate 1e9": "workload: at most 1e+07 requests/s are planned for, got 1e+09",
    }
    for label, reason in reasons.items():
        assert (answers[label]["reason"], answers[label]["cost_per_h"]) == (reason, None)
    assert answers["rate x2"]["cost_per_h"] > answers["current"]["cost_per_h"]
    shown = CliRunner().invoke(app, flags)
    assert shown.exit_code == 0
    assert all(reason in " ".join(shown.stdout.split()) for reason in reasons.values())


def test_an_infeasible_scenario_says_the_first_reason(opened: Opened) -> None:
    """The message alone does not say which limit it is."""
    found = answer(opened, Variant(label="", settings=("plan={require: [L4, L40S], max_types: 1}",)), quick=True)
    assert found.reason == (
        "infeasible: no allowed fleet can serve the workload: max_types: at least 2 different types are needed, "
        "1 allowed; and 1 more reason"
    )


def test_a_provider_is_excluded_although_a_limit_names_its_offers(tmp_path: Path) -> None:
    """A filter of offers would leave the limit's name unknown; two providers can be excluded together."""
    path = tmp_path / "service.yaml"
    path.write_text(
        SERVICE.replace("providers: [aws], regions: [us-east-1]", "providers: [aws, gcp], max: {g6e.xlarge: 3}")
    )
    flags = ["what-if", str(path), "--quick", "--json", "--without", "AWS", "--without", "gcp"]
    answers = json.loads(CliRunner().invoke(app, flags).stdout)["answers"]
    assert {name.partition("/")[0] for name in answers[1]["instances"]} == {"gcp"}
    assert {name.partition("/")[0] for name in answers[2]["instances"]} == {"aws"}
    assert (answers[3]["label"], answers[3]["cost_per_h"]) == ("all combined", None)


def test_under_a_budget_the_served_share_is_shown(tmp_path: Path) -> None:
    """A cheaper fleet may serve less; changes that save are refused."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.replace("spare_replicas: 1", "budget_per_h: 4"))
    flags = ["what-if", str(path), "--quick", "--rate", "x0.1", "--without", "L4"]
    answers = json.loads(CliRunner().invoke(app, [*flags, "--json"]).stdout)["answers"]
    served = [one["served_fraction"] for one in answers[:3]]
    assert served[0] < 1 == served[1]
    assert served[2] <= served[0]
    shown = CliRunner().invoke(app, flags).stdout
    assert "Served" in shown
    assert f" {100 * served[0]:.1f}% " in shown
    assert "Served" not in CliRunner().invoke(app, [*flags, "--set", "plan.budget_per_h=null"]).stdout
    with pytest.raises(InputError, match=r"--save: under plan\.budget_per_h, plans differ in the requests"):
        app(["what-if", str(path), "--quick", "--save", "20%"], standalone_mode=False)


def test_a_change_that_is_not_valid_is_refused_as_a_change(tmp_path: Path) -> None:
    """Before anything is planned, by the flag that gave it."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    flags = ["what-if", str(path), "--quick", "--rate", "x2", "--change"]
    with pytest.raises(InputError, match=r"^--change slo\.tpot_ms=-1: slo\.tpot_ms: must be > 0 and finite, got -1$"):
        app([*flags, "slo.tpot_ms=-1"], standalone_mode=False)
    with pytest.raises(InputError, match=r"^--change slo: must be KEY=VALUE$") as caught:
        app([*flags, "slo"], standalone_mode=False)
    assert caught.value.hint == "for example --change workload.rate=32"
    with pytest.raises(InputError, match=r"^--change model=nosuch/model: unknown model 'nosuch/model'$") as caught:
        app([*flags, "model=nosuch/model"], standalone_mode=False)
    assert caught.value.hint.startswith("known: ")
    with pytest.raises(InputError, match=r"^--change plan.require=\[L5\]: plan.require: unknown replica type or acc"):
        app([*flags, "plan.require=[L5]"], standalone_mode=False)


def test_a_fault_of_the_service_is_not_one_of_a_change(tmp_path: Path) -> None:
    """The change is read together with the service."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.replace("Llama-3.1-8B-Instruct", "Llama-9"))
    with pytest.raises(InputError, match=r"^unknown model 'meta-llama/Llama-9'"):
        app(["what-if", str(path), "--quick", "--change", "slo.tpot_ms=80"], standalone_mode=False)


@pytest.mark.heavy
@pytest.mark.parametrize("wanted", [0.1, 0.3])
def test_what_saves_enough_is_the_smallest_step_that_does(wanted: float, opened: Opened) -> None:
    """Each saving is that of the service with the change; one step less of the traffic would not be enough."""
    base = answer(opened, Variant(label="current"), quick=True)
    found = relaxations(opened, base, wanted, quick=True)
    assert base.cost_per_h is not None
    assert any(one.is_enough for one in found)
    for one in found:
        cost = quick_cost(opened, *one.answer.variant.settings)
        assert one.saved_fraction == pytest.approx(1 - cost / base.cost_per_h)
        assert one.is_enough == (one.saved_fraction >= wanted - 1e-9)
    less = next(one for one in found if "less traffic" in one.answer.variant.label)
    assert less.is_enough
    rate = float(less.answer.variant.settings[0].partition("=")[2])
    assert quick_cost(opened, f"workload.rate={rate + 40 / 32}") > (1 - wanted) * base.cost_per_h


def test_the_command_prints_both_and_json(tmp_path: Path) -> None:
    """Base, variants and all of them; the same as JSON."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    flags = ["what-if", str(path), "--rate", "x2", "--without", "L40S", "--save", "15%", "--quick"]
    shown = CliRunner().invoke(app, flags)
    assert shown.exit_code == 0
    for words in ("current", "rate x2", "without L40S", "all combined", "What would save 15%"):
        assert words in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*flags, "--json"]).stdout)
    assert [one["label"] for one in found["answers"]] == ["current", "rate x2", "without L40S", "all combined"]
    assert found["is_simulated"] is False
    assert all(one["saved_fraction"] >= 0.15 - 1e-9 for one in found["relaxations"] if one["is_enough"])


def test_fleets_elsewhere_are_shown_with_their_provider(tmp_path: Path) -> None:
    """Where all fleets are in one place, their names are short."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    shown = CliRunner().invoke(app, ["what-if", str(path), "--save", "15%", "--quick"]).stdout
    alone, _, changed = shown.partition("What would save")
    assert "aws/" not in alone
    assert "aws/us-east-1/g" in changed
    assert "no spot offers known" in " ".join(changed.split())


def test_variants_without_a_sum_are_answered_by_themselves(tmp_path: Path) -> None:
    """Two rates cannot hold at once, and both are asked about; nothing is said of them together."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    flags = ["what-if", str(path), "--rate", "x2", "--rate", "x3", "--quick", "--json"]
    found = json.loads(CliRunner().invoke(app, flags).stdout)
    assert [one["label"] for one in found["answers"]] == ["current", "rate x2", "rate x3"]


def test_a_command_without_a_question_is_refused(tmp_path: Path) -> None:
    """And a share that is none."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    with pytest.raises(InputError, match="no change is given"):
        app(["what-if", str(path)], standalone_mode=False)
    with pytest.raises(InputError, match="--save 120%: must be a share"):
        app(["what-if", str(path), "--save", "120%"], standalone_mode=False)


def test_a_change_of_a_price_comes_on_top_of_the_services_own(service: Path) -> None:
    """A discount of 90 % and a further 10 % leave 9 % of the price."""
    session = Session(service, settings=["offers.prices={on-demand: -90%}"])
    (setting,) = price_variant(session, "on-demand=-10%").settings
    prices = json.loads(setting.partition("=")[2])
    assert price_rule("on-demand", prices["on-demand"]).factor == pytest.approx(0.09)
