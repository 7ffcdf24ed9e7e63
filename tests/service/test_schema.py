import re
from importlib.resources import files
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.service.reading import read_plan_section, read_section, read_service

SMALLEST = "model: m\nslo: {tpot_ms: 120}\nworkload: {dataset: arena, rate: 4}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A service file with only what is needed."""
    file = tmp_path / "service.yaml"
    file.write_text(SMALLEST)
    return file


def test_the_smallest_service_gets_the_documented_defaults(path: Path) -> None:
    """Headroom 0.1, continuous shares, on-demand, estimates."""
    service = read_service(path)
    options = service.plan.to_options({}, {})
    assert (options.headroom, options.slices, options.gap) == (0.1, None, 1e-3)
    assert (service.offers.market, service.profile.source) == (["on-demand"], ["estimate"])
    assert service.slo.to_slo().limits == {"tpot": 0.12}


def test_the_template_is_a_valid_service(tmp_path: Path) -> None:
    """What melange init writes can be planned as it is, also with every comment's key taken in."""
    text = files("melange").joinpath("service.template.yaml").read_text()
    (tmp_path / "service.yaml").write_text(text)
    assert read_service(tmp_path / "service.yaml").workload.source == ("dataset", "azure-conversation")


def test_paths_are_relative_to_the_file(path: Path) -> None:
    """A service can be planned from any folder."""
    assert read_service(path).path("requests.parquet") == path.parent / "requests.parquet"


def test_settings_replace_keys_of_the_file(path: Path) -> None:
    """--set reaches any key, and naming another source of traffic replaces the one in the file."""
    service = read_service(path, ["workload.rate=32", "workload.trace=log.csv", "plan.require=A10G", "offers.max.L4=2"])
    assert service.workload.source == ("trace", "log.csv")
    assert (service.workload.rate, service.plan.require, service.offers.max) == (32, ["A10G"], {"L4": 2})


def test_every_fault_is_reported_with_its_line_and_the_nearest_key(path: Path) -> None:
    """All at once, so that a file is mended in one go."""
    path.write_text("model: m\nslo: {tpot: 120}\nworkload:\n  dataset: arena\n  rate: -3\nplan: {headrom: 0.1}\n")
    with pytest.raises(InputError) as caught:
        read_service(path)
    lines = str(caught.value).replace(str(path), "F").splitlines()
    assert "F:2: slo: unknown key 'tpot'; did you mean 'tpot_ms' or 'ntpot_ms'?" in lines
    assert "F:5: workload.rate: must be > 0 and finite, got -3" in lines
    assert "F:6: plan: unknown key 'headrom'; did you mean 'headroom'?" in lines
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model: [", r"service\.yaml:1: not valid YAML"),
        ("just words", "must hold a mapping"),
        ("slo: {tpot_ms: 1}\nworkload: {}\n", r"model is required"),
        (SMALLEST + "folder: /tmp\n", "unknown key 'folder'"),
        (SMALLEST + "plan: {slices: many}\n", r"yaml:4: plan\.slices: must be a whole number, got 'many'"),
    ],
)
def test_a_file_that_is_no_service_is_refused(path: Path, text: str, complaint: str) -> None:
    """Each with the place and what was found."""
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_service(path)


@pytest.mark.parametrize("setting", ["workload.rate", "=3", "model.name=x", "a..b=1"])
def test_a_setting_that_is_none_is_refused(path: Path, setting: str) -> None:
    """KEY=VALUE, and keys only where the file has keys."""
    with pytest.raises(InputError, match="--set"):
        read_service(path, [setting])


def test_two_sources_of_traffic_are_refused(path: Path) -> None:
    """The file must say which one."""
    path.write_text(SMALLEST.replace("rate: 4", "trace: log.csv"))
    with pytest.raises(InputError, match="exactly one of trace, table, dataset"):
        _ = read_service(path).workload.source


def test_continuous_on_the_command_line_replaces_slices() -> None:
    """A release's slice factor can be lifted, and both at once in one file cannot be meant."""
    assert read_plan_section({"slices": 8}, ["plan.shares=continuous"]).to_options({}, {}).slices is None
    with pytest.raises(InputError, match="exclude each other"):
        read_plan_section({"slices": 8, "shares": "continuous"}).to_options({}, {})


def test_settings_outside_of_the_section_are_refused() -> None:
    """Without a service there is no workload to set."""
    with pytest.raises(InputError, match=r"only plan\.\* applies"):
        read_plan_section({}, ["workload.rate=3"])


def test_flags_make_a_workload_section() -> None:
    """Absent flags keep the defaults; bad ones are named like keys of the file."""
    assert read_section({"dataset": "arena", "rate": 2, "window": None}).rate == 2
    with pytest.raises(InputError, match=r"workload\.buckets\.input\.0: must be a whole number, got 'x'"):
        read_section({"dataset": "arena", "buckets": {"input": ["x"], "output": None}})


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("workload.rate=8", "--set workload.rate=8 contradicts --rate 4"),
        ("workload.trace=log.csv", "--set workload.trace=log.csv contradicts --dataset arena"),
        ("workload.dataset=azure-code", "--set workload.dataset=azure-code contradicts --dataset arena"),
        ("workload.buckets.input=[10]", "contradicts --input-edges [100]"),
        ("workload={rate: 8}", "--set workload={rate: 8} contradicts --rate 4"),
        ("workload={trace: log.csv}", "--set workload={trace: log.csv} contradicts --dataset arena"),
        ("workload={buckets: {input: [10]}}", "contradicts --input-edges [100]"),
    ],
)
def test_a_setting_that_contradicts_a_flag_is_refused_with_both_values(setting: str, complaint: str) -> None:
    """Neither wins silently."""
    given = {"dataset": "arena", "rate": 4, "buckets": {"input": [100], "output": None}}
    with pytest.raises(InputError) as found:
        read_section(given, [setting])
    assert complaint in str(found.value)


def test_a_setting_that_agrees_with_a_flag_is_taken() -> None:
    """Also one of a key that no flag gives."""
    section = read_section(
        {"dataset": "arena", "rate": 4}, ["workload.rate=4.0", "workload.dataset=arena", "workload.size=upper"]
    )
    assert (section.rate, section.size) == (4, "upper")


def test_a_fault_within_a_setting_is_of_the_command_line(tmp_path: Path) -> None:
    """Not of a line of the file; and YAML takes a space after a colon."""
    path = tmp_path / "service.yaml"
    path.write_text("model: m\nslo: {tpot_ms: 80}\noffers: {gpus: [L4]}\nworkload: {dataset: arena, rate: 1}\n")
    with pytest.raises(InputError) as error:
        read_service(path, ["offers.max={L4:1}"])
    assert str(error.value).startswith("--set: offers.max.L4:1: ")
    assert str(error.value).endswith("YAML takes a space after the colon: L4: 1")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("slo=3", "--set: slo: must be a section of keys with values, got 3"),
        ("offers.max=3", "--set: offers.max: must be a section of keys with values, got 3"),
        ("offers.gpus=3", "--set: offers.gpus.0: must be text, got 3"),
        ("plan.spare_replicas=1.5", "--set: plan.spare_replicas: must be a whole number, got 1.5"),
        ("start_up.boot=-5", "--set: start_up.boot must be a duration such as"),
        ("switching={expected: .nan}", "--set switching: must be a number, got NaN"),
        ("switching={expected: soon}", "--set: switching.expected must be a duration such as"),
        ("schedule.spot.max_share=7", "--set: schedule.spot: max_share must be 0 to 1, got 7"),
        ("schedule.drain=-1", "--set: schedule.drain must be a duration such as"),
    ],
)
def test_values_are_checked_when_the_service_is_read(tmp_path: Path, setting: str, said: str) -> None:
    """Also those that a quick plan does not use."""
    path = tmp_path / "service.yaml"
    path.write_text("model: m\nslo: {tpot_ms: 80}\nworkload: {dataset: arena, rate: 4}\n")
    assert read_service(path, ["start_up.boot=5m", "schedule.drain=1m"]).start_up is not None
    with pytest.raises(InputError, match=re.escape(said)):
        read_service(path, [setting])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("offers.prices.L4=abc", "--set: offers.prices: the rule for L4: must be"),
        ("schedule.spot.max_share=7", "--set: schedule.spot: max_share must be 0 to 1, got 7"),
        ("schedule={horizon: 3}", "--set: schedule: unknown key 'horizon'"),
        ("classes.batch.share=0.2", "--set: classes.batch.slo is required"),
        ("classes.default={share: 0.1, slo: {tpot_ms: 60}}", "--set: classes: default is the name of"),
    ],
)
def test_a_fault_that_a_setting_causes_is_not_blamed_on_the_file(tmp_path: Path, setting: str, said: str) -> None:
    """Also if the fault is of a section that the file has; the file's own faults keep their lines."""
    path = tmp_path / "service.yaml"
    text = (
        "model: m\nslo: {tpot_ms: 80}\nworkload: {dataset: arena, rate: 4}\noffers:\n  prices: {L4: 1.0}\n"
        "plan: {shares: continuous}\nschedule:\n  spot: {max_share: 0.5}\n"
    )
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_service(path, [setting])
    assert str(caught.value).startswith(said)
    path.write_text(text.replace("tpot_ms", "tpot"))
    with pytest.raises(InputError) as caught:
        read_service(path, [setting, "slo.attainment=0.9"])
    lines = str(caught.value).split("\n")
    assert f"{path}:2: slo: unknown key 'tpot'; did you mean 'tpot_ms' or 'ntpot_ms'?" in lines
    assert any(line.startswith(said) for line in lines)


def test_a_section_that_is_faulty_in_the_file_keeps_its_line_under_a_setting(tmp_path: Path) -> None:
    """A setting of another key in the section changes the section, but not what is wrong with it."""
    path = tmp_path / "service.yaml"
    path.write_text(
        "model: m\nslo: {tpot_ms: 80}\nworkload: {dataset: arena, rate: 4}\nclasses:\n  batch: {share: 0.2}\n"
        "schedule:\n  spot: {max_share: 7}\n"
    )
    with pytest.raises(InputError) as caught:
        read_service(path, ["classes.batch.share=0.3", "schedule.spot.zones=2"])
    assert sorted(str(caught.value).split("\n")) == [
        f"{path}:5: classes.batch.slo is required",
        f"{path}:6: schedule.spot: max_share must be 0 to 1, got 7",
    ]
