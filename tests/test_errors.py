import pytest

from melange.errors import Caution, InfeasibleError, InputError, MelangeError, unknown


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("H10O-80GB", "H100-80GB"), ("a10g", "A10G"), ("h100", "H100-80GB")],
)
def test_unknown_names_the_nearest(typo: str, nearest: str) -> None:
    """A typing error is answered with the name that was meant, whatever its case."""
    assert repr(nearest) in str(unknown("gpu", typo, ["L4", "A10G", "A100-80GB", "H100-80GB"]))


def test_unknown_lists_what_there_is_when_nothing_is_near() -> None:
    """A name like no other is answered with the names there are."""
    error = unknown("market", "zzz", ["spot", "on-demand"], place="service.yaml:3")
    assert str(error) == "service.yaml:3: unknown market 'zzz'"
    assert error.hint == "known: on-demand, spot"


def test_every_error_is_a_melange_error_with_a_hint() -> None:
    """One except clause catches them all, and the hint is never absent as an attribute."""
    error = InfeasibleError("no", reasons=["because"], hint="do")
    assert isinstance(error, MelangeError)
    assert (error.reasons, error.hint, InputError("x").hint) == (("because",), "do", "")


def test_a_caution_prints_its_kind_first() -> None:
    """Warnings are named, so that machines can tell them apart."""
    assert str(Caution("stale-price", "old")) == "stale-price: old"
    assert Caution("a", "b").to_json() == {"kind": "a", "message": "b"}
