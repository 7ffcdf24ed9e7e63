from datetime import date
from pathlib import Path

import pytest

from melange.catalog.bundled import offers
from melange.catalog.readers import read_offers, read_price_list
from melange.errors import InputError

LAMBDA = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice
cpu_4x_general,,,4.0,16.0,0.2,us-east-1,,
gpu_8x_v100,V100,8.0,92.0,448.0,6.32,us-east-1,"{'Gpus': [{'Name': 'V100', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': 16384}}]}",
gpu_2x_a6000,A6000,2.0,28.0,200.0,2.18,us-east-1,"{'Gpus': [{'Name': 'A6000', 'MemoryInfo': {'SizeInMiB': 49152}}]}",
gpu_1x_k80,K80,1.0,28.0,200.0,0.5,us-east-1,"{'Gpus': [{'Name': 'K80', 'MemoryInfo': {'SizeInMiB': 12288}}]}",
"""  # noqa: E501 (lines as published)
AWS = """\
InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Price,SpotPrice,Region,AvailabilityZone
g5.12xlarge,48,192,A10G,4,"{'Gpus': [{'Name': 'A10G', 'MemoryInfo': {'SizeInMiB': 24576}}]}",5.672,3.1,us-east-1,us-east-1a
g5.12xlarge,48,192,A10G,4,"{'Gpus': [{'Name': 'A10G', 'MemoryInfo': {'SizeInMiB': 24576}}]}",5.672,2.9,us-east-1,us-east-1b
p4d.24xlarge,96,1152,A100,8,"{'Gpus': [{'Name': 'A100', 'MemoryInfo': {'SizeInMiB': 40960}}]}",21.96,,us-east-1,us-east-1a
p4de.24xlarge,96,1152,A100-80GB,8,"{'Gpus': [{'Name': 'A100-80GB', 'MemoryInfo': {'SizeInMiB': 81920}}]}",27.45,,us-east-1,us-east-1a
"""  # noqa: E501 (lines as published)
GCP = """\
InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice
g2-standard-24,24,96,,,,us-central1,us-central1-a,0.9,0.3
,,,L4,2,"{'Gpus': [{'Name': 'L4', 'MemoryInfo': {'SizeInMiB': 24576}}]}",us-central1,us-central1-a,1.1,0.45
,,,T4,1,"{'Gpus': [{'Name': 'T4', 'MemoryInfo': {'SizeInMiB': 16384}}]}",us-central1,us-central1-a,0.35,0.1
"""
GPUHUNT = """\
instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags
p5.48xlarge,us-east-1,55.04,192,2048,8,H100,80.0,False,,nvidia,
Standard_NC24ads_A100_v4,eastus,3.673,24,220,1,A100,80.0,False,,nvidia,
Standard_NC24ads_A100_v4,eastus,0.68,24,220,1,A100,80.0,True,,nvidia,
m5.large,us-east-1,0.1,2,8,0,,,False,,,
"""


def write(path: Path, text: str) -> Path:
    """A file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_skypilot_folder_is_read_cloud_by_cloud(tmp_path: Path) -> None:
    """The latest version of each cloud; zones of a region count by their cheapest; accelerators by memory."""
    write(tmp_path / "catalogs/v5/aws/vms.csv", AWS.replace("5.672", "9.99"))
    write(tmp_path / "catalogs/v8/aws/vms.csv", AWS)
    write(tmp_path / "catalogs/v8/aws/images.csv", "Tag,Region\nx,y\n")
    write(tmp_path / "catalogs/v7/lambda/vms.csv", LAMBDA)
    found = {(o.provider, o.instance_type, o.market): o for o in read_offers(tmp_path)}
    assert found["aws", "g5.12xlarge", "on-demand"].cost_per_h == 5.672
    assert found["aws", "g5.12xlarge", "spot"].cost_per_h == 2.9
    assert found["aws", "p4d.24xlarge", "on-demand"].accelerator == "A100-40GB"
    assert found["aws", "p4de.24xlarge", "on-demand"].accelerator == "A100-80GB"
    assert found["lambda", "gpu_8x_v100", "on-demand"].accelerators == 8
    assert found["lambda", "gpu_2x_a6000", "on-demand"].interconnect == "pcie"
    assert found["aws", "g5.12xlarge", "spot"].interconnect == "pcie"
    assert len(found) == 6


def test_rows_without_figures_are_counted_in_a_caution(tmp_path: Path) -> None:
    """A K80 is not planned for, and not passed over in silence."""
    (caution,) = read_price_list(write(tmp_path / "lambda.csv", LAMBDA)).cautions
    assert caution.kind == "unknown-accelerator"
    assert "1 row was skipped, unknown accelerators: K80" in caution.message


def test_googles_accelerators_are_priced_with_their_host(tmp_path: Path) -> None:
    """Two L4 and the machine that holds them; a T4 whose host is any machine is left out."""
    prices = read_price_list(write(tmp_path / "gcp.csv", GCP))
    assert [(o.instance_type, o.market, o.cost_per_h) for o in prices.offers] == [
        ("g2-standard-24", "on-demand", 2.0),
        ("g2-standard-24", "spot", 0.75),
    ]
    assert "T4 without its host" in prices.cautions[0].message


def test_a_gpuhunt_folder_is_read_provider_by_provider(tmp_path: Path) -> None:
    """The file's name is the provider; the shape tells which A100 it is."""
    write(tmp_path / "aws.csv", GPUHUNT)
    write(tmp_path / "version.csv", "a,b\n1,2\n")
    found = read_offers(tmp_path)
    assert [(o.provider, o.accelerator, o.accelerators, o.market, o.cost_per_h) for o in found] == [
        ("aws", "H100-80GB", 8, "on-demand", 55.04),
        ("aws", "A100-PCIe-80GB", 1, "on-demand", 3.673),
        ("aws", "A100-PCIe-80GB", 1, "spot", 0.68),
    ]
    assert found[0].interconnect == "nvlink"


def test_an_own_table_needs_two_columns_only(tmp_path: Path) -> None:
    """An accelerator and a price, under the names that people use."""
    (offer,) = read_offers(write(tmp_path / "offers.csv", "GPU,Price\nH100,2.5\n"))
    assert (offer.accelerator, offer.accelerators, offer.cost_per_h) == ("H100-80GB", 1, 2.5)
    assert (offer.market, offer.seen, offer.max_instances) == ("on-demand", None, None)


def test_an_own_table_can_say_all_that_an_offer_has(tmp_path: Path) -> None:
    """Every field of an offer is a column; what is bundled can be written and read back."""
    columns = list(offers()[0].to_json())
    rows = [
        ",".join(str(value if value is not None else "") for value in offer.to_json().values()) for offer in offers()
    ]
    path = write(tmp_path / "offers.csv", "\n".join([",".join(columns), *rows]))
    assert read_offers(path) == offers()


def test_own_markets_links_and_limits_are_understood(tmp_path: Path) -> None:
    """Words for spot, an explicit link, how many are available, when it was seen."""
    text = "gpu,gpu_count,price,market,interconnect,max_instances,seen\nL40S,2,1.9,preemptible,NVLink,4,2026-08-01\n"
    (offer,) = read_offers(write(tmp_path / "offers.csv", text))
    assert (offer.market, offer.interconnect, offer.max_instances) == ("spot", "nvlink", 4)
    assert offer.seen == date(2026, 8, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("L4,1,-1,,,,", "offers.csv:2: cost_per_h must be > 0 and finite, got -1"),
        ("L4,1,0,,,,", "offers.csv:2: cost_per_h must be > 0 and finite, got 0"),
        ("L4,1,nan,,,,", "offers.csv:2: cost_per_h must be > 0 and finite, got nan"),
        ("L4,1,,,,,", "offers.csv:2: cost_per_h must be a number, got ''"),
        ("L4,1.5,1,,,,", "offers.csv:2: accelerators must be a whole number, got 1.5"),
        ("L5,1,1,,,,", "offers.csv:2: unknown accelerator 'L5'; did you mean 'L4'"),
        ("L4,1,1,weekly,,,", "offers.csv:2: market must be one of on-demand, spot, reserved, got 'weekly'"),
        ("L4,1,1,,ethernet,,", "offers.csv:2: interconnect must be nvlink, pcie or empty, got 'ethernet'"),
        (f"L4,1,1,,,{10**400},", "max_instances must be 0 to 1,000,000,000, got 1000"),
        ("L4,1,1,,,-3,", "offers.csv:2: max_instances must be a whole number >= 0, got '-3'"),
        ("L4,1,1,,,,yesterday", "offers.csv:2: seen must be a date such as 2026-08-22, got 'yesterday'"),
    ],
)
def test_bad_rows_of_an_own_table_are_named(row: str, message: str, tmp_path: Path) -> None:
    """File, line, field, what must hold and what was found."""
    text = f"gpu,gpu_count,price,market,interconnect,max_instances,seen\n{row}\n"
    with pytest.raises(InputError) as caught:
        read_offers(write(tmp_path / "offers.csv", text))
    assert message in str(caught.value)


def test_several_bad_rows_are_reported_together(tmp_path: Path) -> None:
    """One run shows them all, or the first few and how many more."""
    with pytest.raises(InputError) as caught:
        read_offers(write(tmp_path / "offers.csv", "gpu,price\nL4,-1\nL4,1\n" + "L4,0\n" * 7))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].rpartition(":")[2] for line in lines[:5]] == ["2", "4", "5", "6", "7"]
    assert lines[5] == "... and 3 more rows"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (AWS.replace("21.96", "-21.96"), "4: price must be > 0 and finite, got -21.96"),
        (AWS.replace("21.96", "0.0"), "4: price must be > 0 and finite, got 0.0"),
        (AWS.replace("A100,8", "A100,0.167"), "4: AcceleratorCount must be a whole number, got 0.167"),
        (GPUHUNT.replace("3.673", "nan"), "3: price must be > 0 and finite, got nan"),
        (GPUHUNT.replace("eastus,3.673,24,220,1,A100,80.0", "eastus,3.673,24,220,x,A100,80.0"), "3: gpu_count must be"),
    ],
)
def test_bad_rows_of_other_tools_are_left_out_and_counted(text: str, fault: str, tmp_path: Path) -> None:
    """One slip in somebody else's catalog does not keep the other rows from being used."""
    whole = read_price_list(write(tmp_path / "whole/aws.csv", AWS if "g5" in text else GPUHUNT))
    found = read_price_list(write(tmp_path / "aws.csv", text))
    assert len(found.offers) == len(whole.offers) - 1
    (caution,) = found.cautions
    assert caution.kind == "bad-rows"
    assert f"1 row was skipped: {tmp_path / 'aws.csv'}:{fault}" in caution.message


def test_a_catalog_of_bad_rows_alone_is_refused(tmp_path: Path) -> None:
    """With the first of them, each with its line."""
    with pytest.raises(InputError, match=r"aws\.csv:2: price must be > 0"):
        read_offers(write(tmp_path / "aws.csv", "\n".join(GPUHUNT.replace("55.04", "0").splitlines()[:2])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the column accelerator and the column cost_per_h are missing"),
        ("gpu,usd\nL4,1\n", "the column cost_per_h is missing; found gpu, usd"),
        ("gpu,price\n", "no offers"),
    ],
)
def test_tables_without_what_is_needed_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """Absent columns are named with what is there."""
    with pytest.raises(InputError, match=message):
        read_offers(write(tmp_path / "offers.csv", text))


def test_places_that_hold_no_prices_are_refused(tmp_path: Path) -> None:
    """A path that is not there, and a folder of other things."""
    with pytest.raises(InputError, match="no such file or folder"):
        read_offers(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="no catalog of SkyPilot"):
        read_offers(tmp_path)


@pytest.mark.heavy
def test_a_large_catalog_is_read_whole(tmp_path: Path) -> None:
    """50,000 rows, as in SkyPilot's file of AWS."""
    header, *rows = AWS.splitlines()
    text = "\n".join([header, *(row.replace("us-east-1", f"r{i}") for i in range(12_500) for row in rows)])
    path = write(tmp_path / "aws.csv", text)
    assert len(read_offers(path)) == 12_500 * 4


NAMES = """\
instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags
n1-standard-8,us-east1,0.73,8,30,1,T4,16,False,,nvidia,
n1-standard-8,us-east1,0.70,8,30,1,T4,16,False,,nvidia,
n1-standard-8,us-east1,2.86,8,30,1,V100,16,False,,nvidia,
n1-standard-8,us-east1,1.08,8,30,2,T4,16,False,,nvidia,
n1-standard-8,us-east1,0.20,8,30,1,T4,16,True,,nvidia,
a3-ultragpu-8g,us-central1-b,84.8,224,2952,8,H200,141,False,,nvidia,
a3-ultragpu-8g,us-central1-b,31.2,224,2952,8,H200,141,False,,nvidia,gcp-dws-calendar-mode
"""


def test_one_instance_name_may_hold_several_shapes(tmp_path: Path) -> None:
    """Accelerator, count and market belong to the key; of one shape the cheapest stays; rows with flags do not."""
    found = read_price_list(write(tmp_path / "gcp.csv", NAMES))
    assert sorted((o.accelerator, o.accelerators, o.market, o.cost_per_h, o.region) for o in found.offers) == [
        ("H200", 8, "on-demand", 84.8, "us-central1"),
        ("T4", 1, "on-demand", 0.7, "us-east1"),
        ("T4", 1, "spot", 0.2, "us-east1"),
        ("T4", 2, "on-demand", 1.08, "us-east1"),
        ("V100-16GB", 1, "on-demand", 2.86, "us-east1"),
    ]
    (caution,) = found.cautions
    assert (caution.kind, "gcp-dws-calendar-mode (1)" in caution.message) == ("flagged-rows", True)


VAST = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region
2x-H200-32-65536,H200,2,32,64.0,"{'Gpus': [{'Name': 'H200', 'Count': 2, 'MemoryInfo': {'SizeInMiB': 287542}}], 'TotalGpuMemoryInMiB': 287542}",5.18,0.00,"Michigan, US, NA"
2x-A100_SXM4-32-65536,A100,2,32,64.0,"{'Gpus': [{'Name': 'A100', 'Count': 2, 'MemoryInfo': {'SizeInMiB': 81920}}], 'TotalGpuMemoryInMiB': 81920}",1.49,0.00,"Slovenia, SI, EU"
"""  # noqa: E501 (lines as published)
RUNPOD = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Region,SpotPrice,Price,AvailabilityZone,GpuInfo
2x_A100-80GB_SECURE,A100-80GB,2.0,16.0,234.0,IN,2.78,2.78,AP-IN-1,"{'Gpus': [{'Name': 'A100 PCIe', 'Manufacturer': 'Nvidia', 'Count': 2, 'MemoryInfo': {'SizeInMiB': 80}}], 'TotalGpuMemoryInMiB': 160}"
"""  # noqa: E501 (lines as published)


def test_memory_is_read_as_each_cloud_means_it(tmp_path: Path) -> None:
    """Vast gives the memory of all accelerators, RunPod GiB under the name of MiB, Vast 0.00 where it sells no spot."""
    vast = read_price_list(write(tmp_path / "vast/vms.csv", VAST))
    assert [(o.accelerator, o.accelerators, o.market) for o in vast.offers] == [
        ("H200", 2, "on-demand"),
        ("A100-40GB", 2, "on-demand"),
    ]
    assert not vast.cautions
    runpod = read_price_list(write(tmp_path / "runpod/vms.csv", RUNPOD))
    assert [(o.accelerator, o.interconnect, o.market) for o in runpod.offers] == [
        ("A100-PCIe-80GB", "pcie", "on-demand"),
        ("A100-PCIe-80GB", "pcie", "spot"),
    ]


def test_a_form_that_nobody_says_is_warned_of(tmp_path: Path) -> None:
    """An H100 of a provider that nothing is known of may be a card."""
    (caution,) = read_price_list(write(tmp_path / "somebody.csv", GPUHUNT.replace("p5.48xlarge", "x8"))).cautions
    assert (caution.kind, "H100 of somebody" in caution.message) == ("assumed-part", True)


@pytest.mark.parametrize("name", ["offers.csv", "aws.csv"])
def test_prices_that_cannot_be_right_are_warned_of(name: str, tmp_path: Path) -> None:
    """In an own table as in a catalog."""
    text = "gpu,gpu_count,price\nH100,8,0.55\n" if name == "offers.csv" else GPUHUNT.replace("55.04", "0.55")
    (caution,) = read_price_list(write(tmp_path / name, text)).cautions
    assert caution.kind == "implausible-price"


def test_names_in_a_price_list_are_one_line(tmp_path: Path) -> None:
    """Rows with a line end or a zero-width character in a name are faults with their lines, in any format."""
    own = tmp_path / "offers.csv"
    own.write_text(
        'provider,instance_type,accelerator,cost_per_h,source\naws,g6,L4,0.8,"two\nlines"\n'
        'aws,"a\ntouch x",L4,0.7,\nzero\u200bwidth,g6,L4,0.6,\n'
    )
    with pytest.raises(InputError) as caught:
        read_offers(own)
    assert str(caught.value) == (
        f"{own}:4: offer: instance_type must be one line of visible characters, got the character '\\n'\n"
        f"{own}:6: offer: provider must be one line of visible characters, got the character '\\u200b'"
    )
    own.write_text("".join(own.read_text().splitlines(keepends=True)[:3]))
    assert [one.source for one in read_offers(own)] == ["two lines"]
    (tmp_path / "aws.csv").write_text(
        "InstanceType,AcceleratorName,AcceleratorCount,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
        'g6.xlarge,L4,1,L4,0.79,,us-east-1,a\n"g6\n.xlarge",L4,1,L4,0.1,,us-east-1,a\n'
    )
    found = read_price_list(tmp_path / "aws.csv")
    assert [one.instance_type for one in found.offers] == ["g6.xlarge"]
    assert "aws.csv:3: offer: instance_type must be one line" in found.cautions[0].message
