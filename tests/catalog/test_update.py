"""Current prices over HTTP: from files as the public catalogs have them, on a loopback server, faults included."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from price_server import Site, serving

from melange.catalog.bundled import offers
from melange.catalog.catalog import load_catalog
from melange.catalog.current import data_folder, kind_of
from melange.catalog.fetching import fetch
from melange.catalog.offer import Offer
from melange.catalog.sources import SOURCES
from melange.catalog.update import PriceUpdate, update_prices
from melange.errors import InputError

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
SKYPILOT = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
)
AWS = SKYPILOT + (
    "g6.xlarge,4,16,L4,1,L4,0.79,0.31,us-east-1,use1-az1\n"
    "g6.xlarge,4,16,L4,1,L4,0.79,0.29,us-east-1,use1-az2\n"
    "g5.xlarge,4,16,A10G,1,A10G,1.006,,us-east-1,use1-az1\n"
    "g5.12xlarge,48,192,A10G,4,A10G,5.1,,us-east-1,use1-az1\n"
    "g6.12xlarge,48,192,L4,4,L4,4.6016,,us-east-1,use1-az1\n"
    "g6.xlarge,4,16,L4,1,L4,0.5,0.1,eu-south-2,eus2-az1\n"
)
RUNPOD = SKYPILOT + (
    "1x_L4_SECURE,8,64,L4,1,L4,0.45,0.3,US,US-CA-1\n"
    "1x_L4_SECURE,8,64,L4,1,L4,0.40,0.3,CZ,EU-CZ-1\n"
    "1x_L4_COMMUNITY,8,64,L4,1,L4,0.20,0.1,US,US-CA-1\n"
)
GPUHUNT = """\
instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags
g2-standard-4,us-central1-a,0.70,4,16,1,L4,24,False,,nvidia,
g2-standard-4,us-central1-b,0.71,4,16,1,L4,24,False,,nvidia,
g2-standard-4,us-central1-a,0.35,4,16,1,L4,24,True,,nvidia,
a3-ultragpu-8g,us-central1-b,31.2,224,2952,8,H200,141,False,,nvidia,gcp-dws-calendar-mode
"""
KARPENTER_AWS = """\
package pricing

// generated at 2026-11-20T13:23:24Z for us-east-1

import ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

var InitialOnDemandPricesAWS = map[string]map[ec2types.InstanceType]float64{
\t// us-east-1
\t"us-east-1": {
\t\t// g6 family
\t\t"g6.12xlarge": 4.700000, "g6.16xlarge": 3.396800, "g6.xlarge": 0.810000,
\t},
}
"""
KARPENTER_AZURE = """\
/*
Portions Copyright (c) Microsoft Corporation.
*/

package pricing

// generated at 2026-11-18T14:34:50Z

var initialOnDemandPrices = map[string]map[string]float64{}

func init() {
\t// eastus
\tinitialOnDemandPrices["eastus"] = map[string]float64{
\t\t"Standard_A0":               0.020000,
\t\t"Standard_NC24ads_A100_v4":  3.500000,
\t}
}
"""
KARPENTER_GCP = {
    "prices": {"us-central1": {"on_demand": {"g2-standard-4": 0.71, "e2-micro": 0.01}, "spot": {"g2-standard-4": 0.4}}}
}
RENTAL = {
    "date": "2026-11-25",
    "offers": [
        {"provider": "runpod", "gpu": "l4", "vram_gb": 24, "usd_hr": 0.44, "kind": "secure", "source_url": "https://r",
         "fetched_at": "2026-11-24T07:42Z"},
        {"provider": "runpod", "gpu": "h100-pcie", "vram_gb": 80, "usd_hr": 2.5, "kind": "community"},
        {"provider": "modal", "gpu": "h100", "vram_gb": 80, "usd_hr": 3.9, "kind": "serverless"},
        {"provider": "lambda", "gpu": "b200", "vram_gb": 180, "usd_hr": 7.0, "kind": "reserved"},
        {"provider": "lambda", "gpu": "h100-sxm", "vram_gb": 80, "usd_hr": 0, "kind": "on-demand"},
    ],
}  # fmt: skip
EC2_SHOP = {
    "Prices": [
        {"InstanceType": "g5.xlarge", "Cost": 1.01, "SpotPrice": "0.44", "Reserved1yPrice": 0.63},
        {"InstanceType": "g6.xlarge", "Cost": 0.80, "SpotPrice": "NA", "Reserved1yPrice": 0},
        {"InstanceType": "m5.large", "Cost": 0.1, "SpotPrice": "0.04", "Reserved1yPrice": 0.06},
    ]
}


@pytest.fixture
def site() -> Iterator[Site]:
    """The server."""
    with serving() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, empty."""
    monkeypatch.setenv("MELANGE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def price(provider: str, region: str, accelerator: str, count: int = 1, market: str = "on-demand") -> Offer | None:
    """The offer that plans find."""
    kind = (provider, region, accelerator, count, market)
    return next((offer for offer in load_catalog().offers if kind_of(offer) == kind), None)


def update(source: str, site: Site | None = None, **more: object) -> PriceUpdate:
    """An update at a known time."""
    return update_prices(source, mirror=site.url if site else None, now=NOW, **more)  # type: ignore[arg-type]


def archive(**tables: str) -> bytes:
    """A zip of CSV files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, text in tables.items():
            packed.writestr(f"{name}.csv", text)
    return content.getvalue()


def test_skypilots_prices_take_the_place_of_the_bundled_ones(site: Site, folder: Path) -> None:
    """Moved, unchanged, new; the cheapest zone; other regions are counted; what the source lacks stays."""
    site.put("aws/vms.csv", AWS)
    found = update("skypilot", site, providers=["aws"])
    moved = {(one.new.instance_type, one.old.cost_per_h if one.old else 0, one.new.cost_per_h) for one in found.moved}
    assert moved == {("g6.xlarge", 0.8048, 0.79), ("g5.12xlarge", 5.672, 5.1)}
    assert [round(one.change, 4) for one in found.moved] == [-0.1008, -0.0184]
    assert (found.unchanged, found.elsewhere, len(found.held)) == (2, 2, 0)
    assert [(one.new.instance_type, one.new.market, one.new.cost_per_h) for one in found.added] == [
        ("g6.xlarge", "spot", 0.29)
    ]
    cheapest = price("aws", "us-east-1", "L4")
    assert cheapest is not None
    assert (cheapest.cost_per_h, cheapest.seen, cheapest.source) == (0.79, NOW.date(), "SkyPilot catalog, aws/vms.csv")
    spot = price("aws", "us-east-1", "L4", market="spot")
    assert spot is not None
    same = price("aws", "us-east-1", "A10G")
    assert same is not None
    assert same.seen == NOW.date()  # looked up again, and the same
    assert len(load_catalog().offers) == len(offers()) + 1


def test_a_provider_without_regions_keeps_its_lowest_price_and_our_name(site: Site, folder: Path) -> None:
    """RunPod's cheapest place, and no community machine; the offer goes on under the name that services know."""
    site.put("runpod/vms.csv", RUNPOD)
    (moved,) = update("skypilot", site, providers=["runpod"]).moved
    assert (moved.new.name, moved.new.cost_per_h) == ("runpod/1x-L4", 0.40)


def test_regions_and_providers_can_be_asked_for(site: Site, folder: Path) -> None:
    """A region that the catalog lacks, a provider that it lacks."""
    site.put("aws/vms.csv", AWS)
    site.put("mithril/vms.csv", SKYPILOT + "h100.8x,1,1,H100,8,H100,24,16,us-central2-a,a\n")
    found = update("skypilot", site, providers=["aws"], regions=["eu-south-2"])
    assert [one.new.region for one in found.added] == ["eu-south-2", "eu-south-2"]
    found = update("skypilot", site, providers=["mithril"])
    assert {one.new.name for one in found.added} == {
        "mithril/us-central2-a/h100.8x",
        "mithril/us-central2-a/h100.8x (spot)",
    }


def test_gpuhunts_archives_are_read(site: Site, folder: Path) -> None:
    """A version, an archive of one table; zones are regions, flags are no price."""
    site.put("gcp/version", "20261125-123\n")
    site.put("gcp/20261125-123/catalog.zip", archive(gcp=GPUHUNT))
    found = update("gpuhunt", site, providers=["gcp"])
    assert {(one.new.region, one.new.market, one.new.cost_per_h) for one in (*found.moved, *found.added)} == {
        ("us-central1", "on-demand", 0.70),
        ("us-central1", "spot", 0.35),
    }
    assert [one.kind for one in found.cautions] == ["flagged-rows"]


def test_karpenters_generated_prices_are_read(site: Site, folder: Path) -> None:
    """Go of AWS and Azure, JSON of Google; with the day that a file names."""
    paths = {
        "aws/karpenter-provider-aws/main/pkg/providers/pricing/zz_generated.pricing_aws.go": KARPENTER_AWS,
        "Azure/karpenter-provider-azure/main/pkg/providers/pricing/zz_generated.pricing.go": KARPENTER_AZURE,
        "cloudpilot-ai/karpenter-provider-gcp/main/pkg/providers/pricing/initial-prices.json": json.dumps(
            KARPENTER_GCP
        ),
    }
    for path, text in paths.items():
        site.put(path, text)
    update("karpenter", site)
    for place, cost_per_h, day in (
        (("aws", "us-east-1", "L4"), 0.81, date(2026, 11, 20)),
        (("aws", "us-east-1", "L4", 4), 4.7, date(2026, 11, 20)),
        (("azure", "eastus", "A100-PCIe-80GB"), 3.5, date(2026, 11, 18)),
        (("gcp", "us-central1", "L4"), 0.71, NOW.date()),
        (("gcp", "us-central1", "L4", 1, "spot"), 0.4, NOW.date()),
    ):
        found = price(*place)  # type: ignore[arg-type]
        assert found is not None
        assert (found.cost_per_h, found.seen) == (cost_per_h, day)


def test_prices_of_one_accelerator_become_those_of_whole_instances(site: Site, folder: Path) -> None:
    """Every count that the provider rents out; community and serverless are no machines that stay; credit is given."""
    site.put("latest.json", json.dumps(RENTAL))
    found = update("gpurentalprices", site)
    assert {(one.new.accelerators, one.new.cost_per_h) for one in found.moved} == {
        (1, 0.44),
        (2, 0.88),
        (4, 1.76),
        (8, 3.52),
    }
    one = price("runpod", "", "L4", 8)
    assert one is not None
    assert one.seen == date(2026, 11, 24)
    assert "gpurentalprices.com; https://r (CC BY 4.0)" in one.source
    reserved = price("lambda", "", "B200", 8, "reserved")
    assert reserved is not None
    assert (reserved.cost_per_h, reserved.seen) == (56.0, date(2026, 11, 25))
    assert {one.kind for one in found.cautions} == {"flagged-rows", "bad-rows"}


def test_aws_spot_and_reserved_terms_come_from_a_url(site: Site, folder: Path) -> None:
    """ec2.shop has them, and names its region in the URL alone."""
    site.files["?json&region=us-west-2"] = json.dumps(EC2_SHOP).encode()
    update(f"{site.url}/?json&region=us-west-2")
    for market, cost_per_h in (("on-demand", 1.01), ("spot", 0.44), ("reserved", 0.63)):
        found = price("aws", "us-west-2", "A10G", 1, market)
        assert found is not None
        assert found.cost_per_h == cost_per_h
    assert price("aws", "us-west-2", "L4", 1, "spot") is None


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("catalogs/aws/vms.csv", AWS),
        ("gpuhunt/aws.csv", GPUHUNT.replace("g2-standard-4,us-central1-a,0.70", "g6.xlarge,us-east-1,0.79")),
        ("catalog.zip", archive(aws=GPUHUNT.replace("g2-standard-4,us-central1-a,0.70", "g6.xlarge,us-east-1,0.79"))),
        ("zz_generated.pricing_aws.go", KARPENTER_AWS.replace("0.810000", "0.790000")),
        ("my-prices", "provider,region,instance_type,gpu,price\naws,us-east-1,g6.xlarge,L4,0.79\n"),
    ],
)
def test_any_of_these_files_can_be_named_by_url(path: str, content: str | bytes, site: Site, folder: Path) -> None:
    """Told by what is in it; an offers.csv of one's own too."""
    site.put(path, content)
    update(f"{site.url}/{path}", providers=["aws"])
    found = price("aws", "us-east-1", "L4")
    assert found is not None
    assert found.cost_per_h == 0.79


def test_the_prices_before_are_kept(site: Site, folder: Path) -> None:
    """A second update leaves the file of the first beside the new one, and what it does not have stays."""
    site.put("aws/vms.csv", AWS)
    first = update("skypilot", site, providers=["aws"])
    assert first.kept is None
    assert first.file is not None
    before = first.file.read_text()
    site.put("aws/vms.csv", SKYPILOT + "g6.xlarge,4,16,L4,1,L4,0.77,,us-east-1,a\n")
    second = update_prices("skypilot", mirror=site.url, providers=["aws"], now=NOW.replace(day=27))
    assert second.kept is not None
    assert second.kept.read_text() == before
    assert [(one.old.cost_per_h if one.old else 0, one.new.cost_per_h) for one in second.moved] == [(0.79, 0.77)]
    four = price("aws", "us-east-1", "A10G", 4)
    assert four is not None
    assert (four.cost_per_h, four.seen) == (5.1, NOW.date())


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


def test_a_file_in_which_most_prices_jump_is_refused_whole(site: Site, folder: Path) -> None:
    """Prices in cents, or of one accelerator: nothing is written."""
    header, *rows = AWS.strip().splitlines()
    cells = [row.split(",") for row in rows]
    cents = [",".join([*one[:6], f"{float(one[6]) * 100}", *one[7:]]) for one in cells]
    site.put("aws/vms.csv", "\n".join([header, *cents]))
    with pytest.raises(InputError, match="4 of 4 prices are more than 2 times as high or as low"):
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
        (None, "the server answers 404 Not Found"),
        ("", "the answer is empty"),
        ("<!doctype html><title>Rate limited</title>", "the answer is a web page, not prices"),
        ("a,b\n1,2\n", "the column accelerator and the column cost_per_h are absent"),
        (SKYPILOT, "holds no offer of an accelerator that we know"),
        (SKYPILOT + "g6.xlarge,4,16,L4,1,L4,free,,us-east-1,a\n", "price must be a number, got 'free'"),
        (b"\xff\xfe\x00", "the column accelerator"),
        (b"PK\x03\x04broken", "a damaged archive"),
        ("{", "not valid JSON"),
        ('{"data": []}', "no price list that is known"),
        ("[" * 100_000, "not valid JSON"),
        ("package pricing\n", "holds no offer of an accelerator that we know"),
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
    assert "no price was fetched, and prices stay as they are" in str(caught.value)
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
    assert "the server answers 503" in told
    assert "the connection broke after" in told


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
        ("http://x/y", "http://z", "--mirror is for a named source"),
        ("http://", None, "not a URL"),
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
    assert "remove" in caught.value.hint


def test_an_archive_that_unpacks_to_too_much_is_refused(site: Site, folder: Path) -> None:
    """65 MB of one letter pack into 64 KB."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("aws.csv", "a" * 65_000_000)
    site.put("catalog.zip", content.getvalue())
    with pytest.raises(InputError, match="unpacks to more than 64 MB"):
        update(f"{site.url}/catalog.zip")


def test_the_addresses_of_the_sources_are_whole() -> None:
    """Each named source has an address, and a directory for each main cloud it covers."""
    assert all(source.base_url.startswith("https://") for source in SOURCES.values())
    assert {"aws", "gcp", "azure"} <= set(SOURCES["skypilot"].directory_by_provider)
    assert data_folder().name


def test_a_url_is_fetched_whole(site: Site) -> None:
    """Byte for byte."""
    site.put("x", b"\x00\x01" * 100_000)
    assert fetch(f"{site.url}/x") == b"\x00\x01" * 100_000
