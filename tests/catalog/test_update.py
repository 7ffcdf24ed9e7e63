"""Current prices over HTTP: from files as the public catalogs have them, on a loopback server."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path

import pytest
from price_files import (
    AWS,
    EC2_SHOP,
    GPUHUNT,
    KARPENTER_AWS,
    KARPENTER_AZURE,
    KARPENTER_GCP,
    NOW,
    RENTAL,
    RUNPOD,
    SKYPILOT,
    archive,
    price,
    update,
)
from price_server import Site

from melange.catalog.bundled import offers
from melange.catalog.catalog import load_catalog
from melange.catalog.current import data_folder
from melange.catalog.fetching import fetch
from melange.catalog.sources import SOURCES
from melange.catalog.update import update_prices


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


def test_machines_that_the_table_leaves_out_stay_out(site: Site, folder: Path) -> None:
    """Retired and confidential ones of Azure, and on-demand prices of machines that Google rents out on spot alone."""
    azure = ("Standard_NC24s_v3,1,1,V100,4,V100,1,1", "Standard_NCC40ads_H100_v5,1,1,H100,1,H100,5,1")
    rows = [*(f"{row},eastus,x" for row in azure), "Standard_NC24ads_A100_v4,1,1,A100,1,A100,3.6,1,eastus,x"]
    site.put("azure/vms.csv", SKYPILOT + "\n".join(rows))
    site.put("gcp/vms.csv", SKYPILOT + "a3-highgpu-1g,1,1,H100,1,H100,11,5.5,us-central1,us-central1-a")
    found = update("skypilot", site, providers=["azure", "gcp"])
    taken = {(one.new.instance_type, one.new.market) for one in (*found.moved, *found.added)}
    assert taken == {
        ("Standard_NC24ads_A100_v4", "on-demand"),
        ("Standard_NC24ads_A100_v4", "spot"),
        ("a3-highgpu-1g", "spot"),
    }


def test_a_price_of_no_region_gives_way_to_those_of_regions(site: Site, folder: Path) -> None:
    """The bundled spot price of Azure's A100 belongs to no region; a fetched one of eastus takes its place."""
    assert price("azure", "", "A100-PCIe-80GB", 1, "spot") is not None
    site.put("azure/vms.csv", SKYPILOT + "Standard_NC24ads_A100_v4,1,1,A100,1,A100,3.6,0.9,eastus,x\n")
    update("skypilot", site, providers=["azure"])
    assert price("azure", "", "A100-PCIe-80GB", 1, "spot") is None
    assert price("azure", "eastus", "A100-PCIe-80GB", 1, "spot") is not None


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


def test_machines_that_are_rented_out_whole_only_have_no_price_of_one(site: Site, folder: Path) -> None:
    """The source says from how many accelerators on."""
    row = {"provider": "coreweave", "gpu": "b200", "vram_gb": 180, "usd_hr": 8.6, "kind": "on-demand", "min_gpus": 8}
    site.put("latest.json", json.dumps({"date": "2026-11-25", "offers": [row]}))
    found = update("gpurentalprices", site, providers=["coreweave"], accept_jumps=True)
    assert {one.new.accelerators for one in (*found.moved, *found.added)} <= {8}
    assert price("coreweave", "", "B200", 1) is None


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
        ("aws.csv.gz", gzip.compress(AWS.encode(), mtime=0)),
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


def test_the_addresses_of_the_sources_are_whole() -> None:
    """Each named source has an address, and a directory for each main cloud it covers."""
    assert all(source.base_url.startswith("https://") for source in SOURCES.values())
    assert {"aws", "gcp", "azure"} <= set(SOURCES["skypilot"].directory_by_provider)
    assert data_folder().name


def test_a_url_is_fetched_whole(site: Site) -> None:
    """Byte for byte."""
    site.put("x", b"\x00\x01" * 100_000)
    assert fetch(f"{site.url}/x") == b"\x00\x01" * 100_000
