import json
import math
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.profile.formats.measurement_files import dump_measurements, read_measurements, save_measurements
from melange.profile.measurement import Measurement, split_name
from melange.slo import Slo

BENCH_SERVE = {
    "date": "20260101-120000",
    "backend": "openai",
    "model_id": "meta-llama/Llama-3.1-8B",
    "request_rate": "inf",
    "max_concurrency": 16,
    "duration": 20.0,
    "completed": 100,
    "failed": 2,
    "total_input_tokens": 102400,
    "total_output_tokens": 25600,
    "request_throughput": 5.0,
    "mean_ttft_ms": 80.0,
    "median_ttft_ms": 75.0,
    "p99_ttft_ms": 200.0,
    "mean_tpot_ms": 12.0,
    "mean_itl_ms": 12.5,
    "mean_e2el_ms": 3140.0,
}
AIPERF = {
    "request_throughput": {"unit": "requests/sec", "avg": 5.0},
    "request_latency": {"unit": "ms", "avg": 3140.0, "p50": 3000.0, "p99": 4000.0},
    "time_to_first_token": {"unit": "ms", "avg": 80.0, "p99": 200.0},
    "inter_token_latency": {"unit": "ms", "avg": 12.0},
    "input_sequence_length": {"unit": "tokens", "avg": 1024.0},
    "output_sequence_length": {"unit": "tokens", "avg": 256.0},
    "benchmark_duration": {"unit": "sec", "avg": 20.0},
    "request_count": {"unit": "requests", "avg": 100.0},
    "error_request_count": None,
    "input_config": {"endpoint": {"model_names": ["llama"]}, "loadgen": {"concurrency": 16}},
}

# The same as aiperf 0.13 writes it: the load is that of a phase.
AIPERF_PHASES = AIPERF | {
    "input_config": {
        "models": {"items": [{"name": "llama"}]},
        "endpoint": {"urls": ["http://127.0.0.1:8000"], "type": "completions"},
        "phases": [
            {"name": "warmup", "kind": "warmup", "type": "poisson", "exclude_from_results": True, "rate": 9.0},
            {"name": "profiling", "kind": "profiling", "type": "poisson", "requests": 100, "rate": 5.5},
        ],
    }
}


def distribution(mean: float, **percentiles: float) -> dict[str, object]:
    """A metric of guidellm."""
    return {"successful": {"mean": mean, "percentiles": percentiles}, "errored": {"mean": 0.0}}


GUIDELLM = {
    "benchmarks": [
        {
            "duration": 20.0,
            "metrics": {
                "request_totals": {"successful": 100, "errored": 0, "incomplete": 4, "total": 104},
                "requests_per_second": distribution(5.0),
                "request_concurrency": distribution(15.7),
                "request_latency": distribution(3.14, p50=3.0, p99=4.0),
                "prompt_token_count": distribution(1024.0),
                "output_token_count": distribution(256.0),
                "time_to_first_token_ms": distribution(80.0),
                "time_per_output_token_ms": distribution(12.265625),
                "inter_token_latency_ms": distribution(12.0),
            },
        }
    ]
}
AIBRIX = [
    {"metric": "TPUT", "mean": 5.0},
    {"metric": "TT", "mean": 1280.0},
    {"metric": "E2E", "mean": 3.14, "P50": 3.0, "P90": 3.5, "P99": 4.0},
    {"metric": "TTFT", "mean": 0.08, "P50": 0.075, "P90": 0.1, "P99": 0.2},
    {"metric": "TPOT", "mean": 0.012, "P50": 0.011, "P90": 0.013, "P99": 0.02},
]


def write(path: Path, content: object) -> Path:
    """A file of JSON."""
    path.write_text(json.dumps(content))
    return path


def aibrix(path: Path, rate: float) -> Path:
    """A file of AIBrix's benchmark, one metric a line."""
    head = {
        "input_tokens": 1024,
        "output_tokens": 256,
        "request_rate": rate,
        "seed": 0,
        "model": "llama",
        "samples": 100,
    }
    path.write_text("".join(json.dumps(head | line) + "\n" for line in AIBRIX))
    return path


@pytest.mark.parametrize("name", ["vllm", "aiperf", "aiperf-phases", "guidellm", "aibrix"])
def test_every_tool_says_the_same_in_its_own_units(tmp_path: Path, name: str) -> None:
    """One and the same test: 1024 tokens in, 256 out, 5 requests/s, 80 ms to the first token, 12 ms for each other."""
    contents = {"vllm": BENCH_SERVE, "aiperf": AIPERF, "aiperf-phases": AIPERF_PHASES, "guidellm": GUIDELLM}
    path = aibrix(tmp_path / "a.jsonl", 5.5) if name == "aibrix" else write(tmp_path / "a.json", contents[name])
    (point,) = read_measurements(path)
    assert (point.input_tokens, point.output_tokens, point.achieved_rate) == (1024, 256, 5.0)
    assert point.ttft_s["mean"] == pytest.approx(0.08)
    assert (point.itl_s if name == "aibrix" else point.tpot_s)["mean"] == pytest.approx(0.012)
    assert point.latency_s["mean"] == pytest.approx(3.14)
    assert point.samples == 100
    assert point.replica_type == point.accelerator == ""


def test_what_only_one_tool_says(tmp_path: Path) -> None:
    """Concurrency, failures, offered rates, and guidellm's TPOT, which counts the first token."""
    (vllm,) = read_measurements(write(tmp_path / "v.json", BENCH_SERVE))
    (guidellm,) = read_measurements(write(tmp_path / "g.json", GUIDELLM))
    assert (vllm.concurrency, vllm.offered_rate, vllm.failed, vllm.model) == (
        16,
        math.inf,
        2,
        "meta-llama/Llama-3.1-8B",
    )
    assert vllm.ttft_s == {"mean": 0.08, "p50": 0.075, "p99": 0.2}
    assert guidellm.ntpot_s["mean"] == pytest.approx(3.14 / 256)
    assert (guidellm.concurrency, guidellm.latency_s["p99"]) == (15.7, 4.0)


def test_what_aiperf_sent_is_what_its_version_says(tmp_path: Path) -> None:
    """A concurrency, or the rate of the phase that was no warm-up; without either nothing is guessed."""
    (old,) = read_measurements(write(tmp_path / "a.json", AIPERF))
    (new,) = read_measurements(write(tmp_path / "b.json", AIPERF_PHASES))
    assert (old.model, old.offered_rate, old.concurrency) == ("llama", math.inf, 16)
    assert (new.model, new.offered_rate, new.concurrency) == ("llama", 5.5, None)
    for config in ({}, {"loadgen": {}}, {"phases": []}, {"phases": [{"name": "profiling", "requests": 100}]}):
        with pytest.raises(InputError, match=r"input_config\.(loadgen|phases)"):
            read_measurements(write(tmp_path / "c.json", AIPERF | {"input_config": config}))


def test_several_runs_in_one_file(tmp_path: Path) -> None:
    """AIBrix's rates one after the other, `Infinity` among them, as Python writes it; results appended by vLLM."""
    path = aibrix(tmp_path / "a.jsonl", math.inf)
    path.write_text(path.read_text() + aibrix(tmp_path / "b.jsonl", 2.0).read_text())
    assert [point.offered_rate for point in read_measurements(path)] == [math.inf, 2.0]
    lines = tmp_path / "v.jsonl"
    lines.write_text("".join(json.dumps(BENCH_SERVE | {"request_rate": rate}) + "\n" for rate in (1.5, "inf")))
    assert [point.offered_rate for point in read_measurements(lines)] == [1.5, math.inf]


def test_names_say_what_was_measured(tmp_path: Path) -> None:
    """NAME=PATH, patterns included; a file that exists under the whole text is a path."""
    write(tmp_path / "a.json", BENCH_SERVE)
    write(tmp_path / "b.json", AIPERF)
    points = read_measurements(f"A10G tp2={tmp_path}/*.json")
    assert [point.replica_type for point in points] == ["A10G tp2", "A10G tp2"]
    assert [Path(point.source).name for point in points] == ["a.json", "b.json"]
    odd = write(tmp_path / "L4=c.json", BENCH_SERVE)
    assert read_measurements(odd)[0].replica_type == ""
    assert split_name("aws/us-east-1/g5.xlarge") == ("aws/us-east-1/g5.xlarge", 1)


def test_own_form_round_trip(tmp_path: Path) -> None:
    """What is written is read again, an infinite rate and an SLO included."""
    points = (
        Measurement(
            input_tokens=1000,
            output_tokens=100,
            accelerator="L4",
            tensor_parallel=2,
            offered_rate=math.inf,
            achieved_rate=2.0,
            tpot_s={"mean": 0.05, "p99": 0.07},
        ),
        Measurement(input_tokens=10, output_tokens=10, max_request_rate=3.0, slo=Slo(tpot_s=0.05), source="bench"),
        Measurement(
            input_tokens=10,
            output_tokens=20,
            max_request_rate=2.0,
            max_request_rate_low=1.5,
            max_request_rate_high=math.inf,
            slo=Slo(tpot_s=0.05),
            source="bench",
        ),
    )
    path = save_measurements(tmp_path / "m.json", points)
    read = read_measurements(path)
    assert [one.to_json() | {"source": ""} for one in read] == [one.to_json() | {"source": ""} for one in points]
    assert json.loads(dump_measurements(points))["melange"] == "measurements/1"


def test_own_table(tmp_path: Path) -> None:
    """A column a field, empty cells unknown, percentiles as columns of their own."""
    path = tmp_path / "m.csv"
    path.write_text(
        "accelerator,tensor_parallel,input_tokens,output_tokens,concurrency,tpot_s,tpot_p99_s,max_request_rate,slo_tpot_s\n"
        "L4,2,1000,100,8,0.05,0.07,,\nL4,,500,50,,,,4.5,0.1\n"
    )
    first, second = read_measurements(path)
    assert (first.tensor_parallel, first.concurrency, first.tpot_s) == (2, 8.0, {"mean": 0.05, "p99": 0.07})
    assert (second.max_request_rate, second.slo, second.source) == (4.5, Slo(tpot_s=0.1), f"{path}:3")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"weather": "fine"}, "unknown format"),
        ({"melange": "plan/1"}, "measurements/1 is needed"),
        ({"melange": "measurements/1", "measurements": []}, "at least one"),
        ([{"input_tokens": 1, "output_tokens": 1, "tpot": 3}], "unknown key 'tpot'; did you mean 'tpot_s'"),
        ([{"input_tokens": 1, "tpot_s": 0.1}], "output_tokens is absent"),
        ([{"input_tokens": 0, "output_tokens": 1, "tpot_s": 0.1}], r"input_tokens must be 1 to 1e\+09, got 0"),
        ([{"input_tokens": 5, "output_tokens": 1, "tpot_s": 1e20}], r"tpot_s\.mean must be 0 or 1e-09 to 1e\+09"),
        ([{"input_tokens": 5, "output_tokens": 1, "achieved_rate": 1e20}], r"achieved_rate must be 1e-09 to 1e\+09"),
        ([{"input_tokens": 5, "output_tokens": 1, "tpot_s": "fast"}], r"tpot_s\.mean must be a number, got 'fast'"),
        ([{"input_tokens": 5, "output_tokens": 1, "tpot_s": {"p50x": 1}}], "statistics are mean, p50"),
        (
            [{"input_tokens": 5, "output_tokens": 5, "ttft_s": 1}],
            "a mean tpot_s, itl_s, ntpot_s or latency_s is needed",
        ),
        ([{"input_tokens": 5, "output_tokens": 5, "max_request_rate": 1}], "needs the slo"),
        (
            [{"input_tokens": 5, "output_tokens": 5, "max_request_rate": 1, "max_request_rate_low": 2}],
            "must be >= max_request_rate_low >= 0 and <= max_request_rate_high, got 1 between 2 and 1",
        ),
        (BENCH_SERVE | {"completed": 0}, "completed must be > 0, got 0"),
        (BENCH_SERVE | {"mean_tpot_ms": "12"}, "mean_tpot_ms must be a number"),
        (
            AIPERF | {"time_to_first_token": {"avg": 3, "unit": "min"}},
            r"time_to_first_token\.unit must be one of s, .*'min'",
        ),
        (
            AIPERF | {"time_to_first_token": {"avg": 3, "unit": ["ms"]}},
            r"time_to_first_token\.unit must be one of s, .*\['ms'\]",
        ),
        (AIPERF | {"input_sequence_length": {"avg": None, "unit": "tokens"}}, r"input_sequence_length\.avg is missing"),
        (AIPERF | {"request_throughput": 5}, "request_throughput must be a metric with unit and avg"),
        ({"benchmarks": []}, "must hold at least one"),
        (
            {"benchmarks": [{"metrics": {}}]},
            r"benchmarks\[0\]\.metrics\.prompt_token_count\.successful\.mean is missing",
        ),
    ],
)
def test_bad_files_are_refused_with_file_and_field(tmp_path: Path, content: object, complaint: str) -> None:
    """Each says what must hold, what was found, and where."""
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(InputError, match=complaint) as caught:
        read_measurements(path)
    assert str(path) in str(caught.value)


def test_bad_tables_name_the_line(tmp_path: Path) -> None:
    """A cell that is no number, and a row that is too short."""
    path = tmp_path / "bad.csv"
    path.write_text("input_tokens,output_tokens,tpot_s\n10,10,0.1\n10,ten,0.1\n")
    with pytest.raises(InputError, match=r"bad\.csv:3: output_tokens must be a number, got 'ten'"):
        read_measurements(path)
    path.write_text("input_tokens,output_tokens,tpot_s\n10,10\n")
    with pytest.raises(InputError, match=r"bad\.csv:2: must have 3 cells"):
        read_measurements(path)


def test_aibrix_without_a_throughput_line(tmp_path: Path) -> None:
    """A file that was cut off at its start is refused."""
    path = aibrix(tmp_path / "a.jsonl", 5.0)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[1:]))
    with pytest.raises(InputError, match="metric TPUT is missing"):
        read_measurements(path)


def test_absent_files_and_contradictions(tmp_path: Path) -> None:
    """No file under a pattern; a file that names another accelerator than the one given."""
    with pytest.raises(InputError, match="no such file"):
        read_measurements(tmp_path / "*.json")
    write(tmp_path / "m.json", [{"input_tokens": 5, "output_tokens": 5, "tpot_s": 0.1, "accelerator": "L4"}])
    with pytest.raises(InputError, match="says L4 was measured, but A10G was given"):
        read_measurements(f"A10G={tmp_path}/m.json")
