"""What a service asks to rent and what there is: nothing that was asked for is dropped without a word."""

import re
from pathlib import Path

import pytest

from melange.catalog.catalog import load_catalog
from melange.errors import Caution, InputError
from melange.service.reading import read_service
from melange.service.stages import offers_of

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {{tpot_ms: 80}}
workload: {{dataset: azure-conversation, rate: 4}}
offers: {offers}
"""


def cautions(offers: str, tmp_path: Path) -> list[str]:
    """Messages of the cautions on what is asked for and not there."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE.format(offers=offers), encoding="utf-8")
    _, found = offers_of(read_service(path, ()), load_catalog())
    assert all(isinstance(one, Caution) and one.kind == "no-offer" for one in found)
    return [one.message for one in found]


@pytest.mark.parametrize(
    ("offers", "expected"),
    [
        ("{providers: [aws], market: [on-demand, reserved]}", [("market", "reserved")]),
        ("{providers: [aws, lambda], regions: [us-east-1], gpus: [L4]}", [("providers", "lambda")]),
        ("{providers: [aws], gpus: [L4, B200], regions: [eu-central-1]}", [("gpus", "B200")]),
        ("{providers: [aws], regions: [us-east-1, us-central1]}", [("regions", "us-central1")]),
        ("{providers: [aws, gcp], market: [on-demand, spot]}", [("market", "spot of aws")]),
        ("{providers: [aws], gpus: [h100, L4], market: [on-demand]}", []),
        ("{regions: [us-east-1]}", []),
        ("{}", []),
    ],
)
def test_what_nothing_is_offered_for_is_named(offers: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    """Market, provider, accelerator and region, each under its key; names that have an offer are not."""
    found = cautions(offers, tmp_path)
    assert len(found) == len(expected), found
    for message, (key, name) in zip(found, expected, strict=True):
        assert message.startswith(f"offers.{key}: no offer for {name} passes the other filters")


@pytest.mark.parametrize(
    ("offers", "words", "hint"),
    [
        (
            "{providers: [aws], regions: [us-east-1], market: [reserved]}",
            "offers.market: [reserved] excludes every offer in the catalog",
            "offers.market may be on-demand; melange catalog",
        ),
        (
            "{providers: [lambda], market: [spot], gpus: [H100]}",
            "offers.providers: [lambda] and offers.market: [spot] together exclude every offer in the catalog",
            "offers.providers may be ",
        ),
        (
            "{file: own.csv, gpus: [L4], market: [spot]}",
            "offers.market: [spot] excludes every offer in own.csv",
            "offers.market may be on-demand",
        ),
    ],
)
def test_the_filters_that_exclude_everything_are_named(offers: str, words: str, hint: str, tmp_path: Path) -> None:
    """The fewest of them, and what they may be so that the others leave an offer; nothing is left to warn of."""
    (tmp_path / "own.csv").write_text("instance_type,accelerator,accelerators,cost_per_h\nmine,L4,1,0.7\n")
    with pytest.raises(InputError, match=re.escape(f"no offer matches: {words}")) as error:
        cautions(offers, tmp_path)
    assert hint in error.value.hint
