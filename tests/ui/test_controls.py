"""The form of the page: what a state has chosen is what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from melange.catalog.catalog import load_catalog
from melange.errors import InputError
from melange.ui.choices import Choices
from melange.ui.controls import controls_html
from melange.ui.opened import Asked, opened
from melange.ui.states import States

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 2000, tpot_ms: 80}
workload: {dataset: arena, rate: 8}
offers: {gpus: [h100], max: {h100: 3, g6.xlarge: 2}, prices: {H100: -30%}}
"""


@pytest.fixture
def states(tmp_path: Path) -> Iterator[States]:
    """Of a service with a log."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    (tmp_path / "a<b>.csv").write_text("arrival_s,input_tokens,output_tokens\n")
    found = States(opened(tmp_path / "service.yaml", ["plan.headroom=0.2"], [tmp_path / "a<b>.csv"]))
    yield found
    found.close()


def form(states: States, **query: str) -> str:
    """The form of a state."""
    asked = states.of(query.items())
    return controls_html(asked.opened.service(), asked.choices, load_catalog(), list(asked.opened.log_by_name))


def field(text: str, name: str) -> dict[str, str]:
    """The attributes of a control."""
    found = re.search(rf'<(?:input|select)[^>]* id="{re.escape(name)}"[^>]*>', text)
    assert found
    return dict(re.findall(r'([\w-]+)="([^"]*)"', found[0]))


def test_controls_show_the_file_and_what_is_chosen(states: States) -> None:
    """Each with the file's own value beside it, settings of the command line included."""
    plain = form(states)
    assert (field(plain, "rate")["value"], field(plain, "rate")["data-own"]) == ("8", "8")
    assert field(plain, "headroom")["value"] == "20"
    chosen = form(states, rate="12", ttft_ms="none", attainment="95", gpus="L4,H100-80GB", max="L4:7")
    assert (field(chosen, "rate")["value"], field(chosen, "rate")["data-own"]) == ("12", "8")
    assert (field(chosen, "ttft_ms")["value"], field(chosen, "ttft_ms")["data-own"]) == ("", "2000")
    assert 'id="gpus-L4" value="L4" checked' in chosen
    assert 'id="gpus-L4" value="L4" checked' not in plain
    assert re.search(r'data-key="L4" value="7"', chosen)


def test_names_are_the_catalog_s_and_escaped(states: States) -> None:
    """An alias of the file is the accelerator, limits on offers stay, and a log's name is no markup."""
    plain = form(states)
    assert 'id="gpus-H100-80GB" value="H100-80GB" checked' in plain
    assert 'data-own="H100-80GB:3,g6.xlarge:2"' in plain
    assert field(plain, "max-g6.xlarge")["value"] == "2"
    assert "a&lt;b&gt;.csv" in plain
    assert "a<b>" not in plain


@pytest.mark.parametrize(
    "offers",
    [
        "{}",
        "{providers: [AWS, gcp], regions: [US-East-1]}",
        "{gpus: [h100, L4], market: [spot]}",
        "{market: [on-demand, spot]}",
        "{file: own.csv}",
        "{file: own.csv, market: [spot]}",
        "{file: own.csv, gpus: [ours, L4], max: {ours: 3}}",
    ],
)
def test_an_untouched_form_chooses_nothing(offers: str, tmp_path: Path) -> None:
    """However the file writes its names: the lists are those of the file, as the page's script writes them."""
    (tmp_path / "own.csv").write_text("gpu,instance,price\nL4,small,0.5\nL40S,large,1.5\n")
    path = tmp_path / "service.yaml"
    path.write_text(re.sub("offers:.*", f"offers: {offers}", SERVICE))
    text = controls_html(opened(path).service(), Choices(), load_catalog(), [])
    lists = re.findall(r'data-names="(\w+)" data-own="([^"]*)">(.*?)</div></details>', text)
    assert len(lists) >= 2
    for _, own, rows in lists:
        boxes = re.findall(r'type="checkbox" id="[^"]*" value="([^"]*)"( checked)?', rows)
        checked = [name for name, is_checked in boxes if is_checked]
        assert own == ("all" if len(checked) == len(boxes) else ",".join(checked) or "none")


def test_the_command_and_the_file_say_the_same(states: States) -> None:
    """Quoted for a shell; the file keeps what it does not change."""
    asked = states.of([("rate", "12")])
    command = asked.opened.command("plan", ["workload.rate=12", 'offers.max={"L4": 2}'])
    assert command.endswith("""--set=plan.headroom=0.2 --set=workload.rate=12 '--set=offers.max={"L4": 2}'""")
    text = asked.opened.text(["workload.rate=12"], command)
    assert "rate: 12" in text
    assert "headroom: 0.2" in text
    assert "H100: -30%" in text


@pytest.mark.parametrize(
    "traffic", ["service.yaml", "../x.csv", "0123456789abcdef/../x", "/etc/passwd", "a/b/c", "", "x"]
)
def test_only_logs_that_were_offered_are_chosen(traffic: str, states: States) -> None:
    """Or that were uploaded."""
    with pytest.raises(InputError, match="no log"):
        states.of([("traffic", traffic)])


def test_an_uploaded_log_has_a_place_and_a_plain_name(states: States) -> None:
    """And what is shown of it is its name."""
    place, number = states.place_for_upload("own.csv")
    place.write_text("x")
    assert states.of([("traffic", number)]).log == (str(place), "own.csv")
    assert states.shown(f"{place}:1: no") == "own.csv:1: no"
    for name in ("../own.csv", ".own", "a/b", "", "a\n"):
        with pytest.raises(InputError, match="not a valid name"):
            states.place_for_upload(name)
    for _ in range(25):
        states.place_for_upload("own.csv")[0].write_text("x")
    with pytest.raises(InputError, match="no log"):
        states.of([("traffic", number)])


def test_states_are_told_from_each_other(states: States) -> None:
    """By what they choose, and by the file as it is now."""
    one, other = states.of([]), states.of([("rate", "9")])
    assert one.key != other.key
    assert one.key == Asked(opened=one.opened, choices=Choices()).key


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """Before a server is started."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.replace("slo:", "sol:"))
    with pytest.raises(InputError, match="slo"):
        opened(path)
    path.write_text(SERVICE + "regions: {origins: {eu: {share: 1, at: us-east-1}}}\n")
    with pytest.raises(InputError, match="shows one fleet"):
        opened(path)
    path.write_text(SERVICE)
    with pytest.raises(InputError, match="no such file"):
        opened(path, (), [tmp_path / "absent.csv"])
    with pytest.raises(InputError, match=r"fleet\.yaml is needed"):
        opened(tmp_path / "plan.json")
