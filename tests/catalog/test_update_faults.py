"""What an update refuses, holds back and survives: jumps, old prices, files that are none, servers that are away."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from price_files import AWS, KARPENTER_AWS, NOW, SKYPILOT, price, update
from price_server import Site, serving

from melange.catalog.bundled import offers
from melange.catalog.catalog import load_catalog
from melange.catalog.fetching import UnreachableError, fetch
from melange.catalog.update import update_prices
from melange.errors import InputError


def test_jumps_are_held_back_until_they_are_accepted(site: Site, folder: Path) -> None:
    """A price that more than doubles or halves is named, and the price before stays."""
    text = AWS.replace("A10G,5.1,", "A10G,0.51,").replace("L4,4.6016", "L4,9.5")
    site.put("aws/vms.csv", text)
    held = update("skypilot", site, providers=["aws"]).held
    assert {(one.new.instance_type, one.reason) for one in held} == {
        ("g5.12xlarge", "5.672 USD/h before, 0.51 now"),
        ("g6.12xlarge", "4.6016 USD/h before, 9.5 now"),
    }
    four = price("aws", "us-east-1", "A10G", 4)
    assert four is not None
    assert four.cost_per_h == 5.672
    assert not update("skypilot", site, providers=["aws"], accept_jumps=True).held
    four = price("aws", "us-east-1", "A10G", 4)
    assert four is not None
    assert four.cost_per_h == 0.51


def test_new_prices_that_cannot_be_right_are_held_back(site: Site, folder: Path) -> None:
    """Nothing is known of this shape, but of its accelerator."""
    site.put("aws/vms.csv", AWS + "p6-b200.4xlarge,4,16,B200,1,B200,0.01,,us-east-1,a\n")
    (held,) = update("skypilot", site, providers=["aws"]).held
    assert held.old is None
    assert "0.01 USD/h for each B200" in held.reason
    assert price("aws", "us-east-1", "B200", 1) is None


def test_where_nothing_is_taken_nothing_is_written(site: Site, folder: Path) -> None:
    """One price, and it jumps."""
    site.put("aws/vms.csv", "\n".join([AWS.splitlines()[0], "g6.xlarge,4,16,L4,1,L4,0.1,,us-east-1,a"]))
    found = update("skypilot", site, providers=["aws"])
    assert (len(found.held), found.file) == (1, None)
    assert not folder.exists()
    assert load_catalog().offers


def test_a_file_in_which_most_prices_jump_is_refused_whole(site: Site, folder: Path) -> None:
    """Prices in cents, or of one accelerator: nothing is written."""
    header, *rows = AWS.strip().splitlines()
    cells = [row.split(",") for row in rows]
    cents = [",".join([*one[:6], f"{float(one[6]) * 100}", *one[7:]]) for one in cells]
    site.put("aws/vms.csv", "\n".join([header, *cents]))
    with pytest.raises(InputError, match="4 of 4 prices changed by more than a factor of 2"):
        update("skypilot", site, providers=["aws"])
    assert not folder.exists()


def test_prices_older_than_the_known_ones_are_not_taken(site: Site, folder: Path) -> None:
    """Whatever is accepted: a file of last year is not current."""
    site.put("old.go", KARPENTER_AWS.replace("2026-11-20", "2025-11-20"))
    found = update(f"{site.url}/old.go", accept_jumps=True)
    assert {one.reason for one in found.held} == {"older than the known price: 2025-11-20, 2026-07-20"}
    assert not found.moved


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "the server answered 404 Not Found"),
        ("", "the answer is empty"),
        ("<!doctype html><title>Rate limited</title>", "the answer is a web page, not prices"),
        ("a,b\n1,2\n", "the column accelerator and the column cost_per_h are missing"),
        (SKYPILOT, "no offer for a known accelerator"),
        (SKYPILOT + "g6.xlarge,4,16,L4,1,L4,free,,us-east-1,a\n", "price must be a number, got 'free'"),
        (b"\xff\xfe\x00", "the column accelerator"),
        (b"PK\x03\x04broken", "a damaged archive"),
        ("{", "not valid JSON"),
        ('{"data": []}', "unknown price list"),
        ("[" * 100_000, "nested deeper than 64"),
        ("package pricing\n", "no offer for a known accelerator"),
        (b"\xef\xbb\xbf<html>", "the answer is a web page, not prices"),
        (gzip.compress(AWS.encode(), mtime=0)[:60], "a truncated gzip file, after"),
        (b"\x1f\x8bnothing", "a damaged gzip file"),
        (gzip.compress(bytes(65_000_000), mtime=0), "unpacks to more than 64 MB"),
        ('{"error": "rate limited"}', "unknown price list"),
        (SKYPILOT + "g6.xlarge,4,16,L4,1,L4,0.7", ":2: must have 10 cells, got 7"),
    ],
)
def test_what_is_no_price_list_changes_nothing(
    content: str | bytes | None, fault: str, site: Site, folder: Path
) -> None:
    """The fault and its address are told, prices stay as they are, nothing is written."""
    if content is not None:
        site.put("aws.csv", content)
    with pytest.raises(InputError) as caught:
        update(f"{site.url}/aws.csv")
    assert fault in str(caught.value)
    assert "no price was fetched; the current prices stay" in str(caught.value)
    assert "aws" in str(caught.value)
    assert "/tmp" not in str(caught.value)
    assert not folder.exists()


def test_one_file_that_does_not_come_leaves_the_others(site: Site, folder: Path) -> None:
    """One breaks off, one is an error of the server's, one is fine: two cautions and its prices."""
    site.put("aws/vms.csv", AWS)
    site.put("gcp/vms.csv", AWS)
    site.broken.add("gcp/vms.csv")
    site.put("azure/vms.csv", AWS)
    site.statuses["azure/vms.csv"] = 503
    found = update("skypilot", site, providers=["aws", "gcp", "azure"])
    assert len(found.moved) == 2
    assert [one.kind for one in found.cautions] == ["not-fetched", "not-fetched"]
    told = " ".join(one.message for one in found.cautions)
    assert "the server answered 503" in told
    assert "the connection broke after" in told


def test_a_file_cut_short_gives_the_rows_that_are_whole(site: Site, folder: Path) -> None:
    """The last one, of which the price may be half of one, is left out and told."""
    site.put("aws/vms.csv", AWS + "g6.12xlarge,48,192,L4,4,L4,4.5")
    found = update("skypilot", site, providers=["aws"])
    assert [one.kind for one in found.cautions] == ["bad-rows"]
    assert ":8: must have 10 cells, got 7" in found.cautions[0].message
    four = price("aws", "us-east-1", "L4", 4)
    assert four is not None
    assert four.cost_per_h == 4.6016


def test_redirections_are_followed_and_loops_are_not(site: Site, folder: Path) -> None:
    """To where the file lies now; in a circle, or to a page of a login, is no file."""
    site.put("moved/aws.csv", AWS)
    site.moved |= {
        "aws.csv": "/moved/aws.csv",
        "loop.csv": "/loop.csv",
        "login.csv": "/login",
        "local.csv": "file:///etc",
    }
    site.put("login", "<!doctype html><title>Sign in</title>")
    assert len(update(f"{site.url}/aws.csv", providers=["aws"]).moved) == 2
    for name, fault in (
        ("loop", "the server answered 302"),
        ("login", "the answer is a web page"),
        ("local", "the server answered 302"),
    ):
        with pytest.raises(InputError, match=fault):
            update(f"{site.url}/{name}.csv")


def test_a_server_that_never_answers_is_not_waited_for(site: Site) -> None:
    """After the time that is given."""
    site.silent.add("aws.csv")
    with pytest.raises(UnreachableError, match="cannot be reached: timed out"):
        fetch(f"{site.url}/aws.csv", timeout_s=0.05)


def test_offline_it_says_so_and_tries_once(site: Site, folder: Path) -> None:
    """No server at all: one address is tried, not eleven, and the bundled prices stay in use."""
    closed = site.url
    with serving() as gone:
        closed = gone.url
    with pytest.raises(InputError) as caught:
        update_prices("skypilot", mirror=closed, now=NOW)
    assert str(caught.value).count("cannot be reached") == 1
    assert "without a network" in caught.value.hint
    assert load_catalog().offers == offers()


@pytest.mark.parametrize(
    ("source", "mirror", "message"),
    [
        ("skypliot", None, "--from skypliot: must be skypilot, gpuhunt, karpenter, gpurentalprices or a URL"),
        ("ftp://x/y", None, "must be skypilot"),
        ("http://x/y", "http://z", "--mirror needs a named source"),
        ("http://", None, "must be a URL"),
    ],
)
def test_sources_that_are_none_are_refused(source: str, mirror: str | None, message: str, folder: Path) -> None:
    """With those that are."""
    with pytest.raises(InputError) as caught:
        update_prices(source, mirror=mirror, now=NOW)
    assert message in str(caught.value)


def test_a_file_of_prices_that_was_damaged_is_named(folder: Path) -> None:
    """Plans are not made of half of it, and the way out is told."""
    folder.mkdir()
    (folder / "prices.csv").write_text("provider,region,accelerator,cost_per_h\naws,us-east-1,L4,zero\n")
    with pytest.raises(InputError, match=r"prices\.csv:2: cost_per_h must be a number") as caught:
        load_catalog()
    assert "delete" in caught.value.hint


def test_an_archive_that_unpacks_to_too_much_is_refused(site: Site, folder: Path) -> None:
    """65 MB of one letter pack into 64 KB."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("aws.csv", "a" * 65_000_000)
    site.put("catalog.zip", content.getvalue())
    with pytest.raises(InputError, match="unpacks to more than 64 MB"):
        update(f"{site.url}/catalog.zip")
