from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.workload.histograms import read_histogram, read_metrics
from melange.workload.scrapes import DIALECTS
from melange.workload.workload import Buckets

Write = Callable[[str, str], Path]
TABLE = "input_tokens_upto,out_25,out_100\n100,20,10\n500,50,20\n"
RELEASE = {
    "gpu_info": {"A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]}},
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}
METRICS = """# HELP vllm:request_prompt_tokens Number of prefill tokens processed.
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{engine="0",le="10.0",model_name="llama"} 30.0
vllm:request_prompt_tokens_bucket{engine="0",le="20.0",model_name="llama"} 40.0
vllm:request_prompt_tokens_bucket{engine="0",le="50.0",model_name="llama"} 40.0
vllm:request_prompt_tokens_bucket{engine="0",le="+Inf",model_name="llama"} 40.0
vllm:request_prompt_tokens_sum{engine="0",model_name="llama"} 320.0
vllm:request_prompt_tokens_count{engine="0",model_name="llama"} 40.0
vllm:request_generation_tokens_bucket{engine="0",le="5.0",model_name="llama"} 10.0
vllm:request_generation_tokens_bucket{engine="0",le="10.0",model_name="llama"} 40.0
vllm:request_generation_tokens_bucket{engine="0",le="+Inf",model_name="llama"} 40.0
vllm:request_generation_tokens_sum{engine="0",model_name="llama"} 350.0
vllm:request_generation_tokens_count{engine="0",model_name="llama"} 40.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="llama"} 38.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="llama"} 2.0
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
process_start_time_seconds 1.7e+09
"""


def test_percent_table_needs_a_rate(write: Write) -> None:
    """A table that adds up to 100 holds shares: they are scaled to the rate, and there must be one."""
    path = write("histogram.csv", TABLE)
    workload = read_histogram(path, request_rate=8)
    assert workload.request_rate.ravel() == pytest.approx([1.6, 0.8, 4.0, 1.6])
    assert workload.input_tokens.tolist() == [[100, 100], [500, 500]]
    assert [caution.kind for caution in workload.cautions] == ["upper-edges"]
    with pytest.raises(InputError, match="holds shares but no rate"):
        read_histogram(path)


def test_table_of_rates(write: Write) -> None:
    """Rates are taken as they are, and scaled where a rate is asked for and the table says that it holds rates."""
    rates = TABLE.replace("50,20", "5,2")
    assert read_histogram(write("rates.csv", rates)).total_rate == pytest.approx(37)
    named = rates.replace("input_tokens_upto", "input_rate")
    assert read_histogram(write("named.csv", named), request_rate=74).request_rate[0, 0] == pytest.approx(40)


def test_json_table(write: Write) -> None:
    """Edges and shares, or rates, in JSON."""
    content = {"input_edges": [100, 500], "output_edges": [25], "share": [[0.25], [0.75]]}
    path = write("histogram.json", json.dumps(content))
    assert read_histogram(path, request_rate=4).request_rate.tolist() == [[1], [3]]
    rates = {"input_edges": [100, 500], "output_edges": [25], "request_rate": [[2], [3]]}
    assert read_histogram(write("rates.json", json.dumps(rates))).total_rate == 5


def test_release_configuration(write: Write) -> None:
    """The release's distribution has numbered sizes, unless edges are given for them."""
    path = write("example.json", json.dumps(RELEASE))
    workload = read_histogram(path)
    assert workload.buckets.is_ordinal
    assert workload.request_rate.ravel() == pytest.approx([6, 3, 15, 6])
    grid = Buckets(input_edges=(100, 500), output_edges=(25, 100))
    assert read_histogram(path, buckets=grid, request_rate=10).input_tokens[1, 0] == 500


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", TABLE.replace("50,20", "50,10"), "shares must add up to 1 (or 100 %), got 90"),
        ("a.csv", TABLE.replace("50,20", "50,-20"), "cells must be >= 0 and finite, got 101-500 in, 26-100 out: -20"),
        ("a.csv", TABLE.replace("50,20", "nan,20"), "cells must be >= 0"),
        ("a.csv", TABLE.replace("50,20", "50,many"), "a.csv:3: must be a number, got 'many'"),
        ("a.csv", TABLE.replace("50,20", "50"), "a.csv:3: must have 3 cells as the first line has, got 2"),
        ("a.csv", TABLE.replace("500,", "50,"), "edges must ascend"),
        ("a.csv", TABLE.replace("out_25", "short"), "must be an upper edge in tokens"),
        ("a.csv", "output_tokens_upto,25,100\n100,20,10\n500,50,20\n", "the table is transposed"),
        ("a.csv", "upto,in_25,in_100\n100,20,10\n500,50,20\n", "the table is transposed"),
        ("a.csv", "", "must be a table"),
        ("a.csv", "upto,25\n100,0\n", "every cell is 0"),
        ("a.json", "{}", "no table found"),
        ("a.json", '{"input_edges": [1, 2, 3], "output_edges": [1, 2], "share": [[1, 0, 0], [0, 0, 0]]}', "transposed"),
        ("a.json", '{"input_edges": [1, 2], "output_edges": [1], "share": [[1], ["x"]]}', "must be a table of numbers"),
        ("a.json", '{"share": [[0.5], [0.4]]}', "shares must add up to 1"),
        ("a.json", '{"share": 5}', "must have 1 x 1 cells"),
    ],
)
def test_tables_that_cannot_be(write: Write, name: str, text: str, problem: str) -> None:
    """Each says where and what: wrong sums, signs, shapes, axes."""
    with pytest.raises(InputError) as caught:
        read_histogram(write(name, text), request_rate=1)
    assert problem in str(caught.value)


def test_paper_edges_tell_a_transposed_table(write: Write) -> None:
    """The paper's output edges down and its input edges across, without labels, are still distinguished."""
    inputs = "25,100,250,500,1000,2000,4000,8000,12000,16000"
    rows = "\n".join(f"{edge},{','.join(['1'] * 10)}" for edge in (25, 100, 250, 500, 1000, 2000))
    with pytest.raises(InputError, match="transposed: outputs go down"):
        read_histogram(write("t.csv", f"upto,{inputs}\n{rows}\n"))


PAPER = Path(__file__).parents[3] / "shared" / "data" / "paper" / "arena_histogram_pct.csv"


@pytest.mark.skipif(not PAPER.exists(), reason="needs the folder ../shared/data")
def test_arena_table_of_the_paper() -> None:
    """The rounded percentages of the paper's Arena histogram add up well enough."""
    workload = read_histogram(PAPER, request_rate=16)
    assert workload.buckets.shape == (10, 6)
    assert workload.total_rate == pytest.approx(16)


def test_long_names_of_labels_are_read_once(write: Write) -> None:
    """A word without a value is no label however long it is, and does not take minutes."""
    sample = "vllm:request_success_total{x" + "y" * 200_000 + ',finished_reason="abort",model_name="llama"} 5.0\n'
    workload = read_metrics(write("metrics.txt", METRICS + sample), request_rate=4)
    assert workload.failed_requests == 7


def test_metrics_are_a_product_of_marginals(write: Write) -> None:
    """30 of 40 prompts up to 10, 10 of 40 outputs up to 5; sizes make the sums of tokens right."""
    workload = read_metrics(write("metrics.txt", METRICS), request_rate=4)
    assert workload.buckets == Buckets(input_edges=(10, 20), output_edges=(5, 10))
    assert workload.request_rate.ravel() == pytest.approx([0.75, 2.25, 0.25, 0.75])
    assert workload.input_token_rate == pytest.approx(4 * 320 / 40)
    assert workload.output_token_rate == pytest.approx(4 * 350 / 40)
    assert workload.requests == 40
    assert workload.failed_requests == 2
    assert [caution.kind for caution in workload.cautions] == ["independent-marginals", "failed-rows"]


@pytest.mark.parametrize(
    "more", [' # {trace_id="a}b"} 3.1 1700000000.5', " 1700000000000", ' 1700000000 # {trace_id="x"} 2']
)
def test_the_count_is_the_sample_s_and_not_its_exemplar_s(write: Callable[[str, str], Path], more: str) -> None:
    """OpenMetrics adds a time, and an example request with its own value."""
    lines = (f"{one}{more}" if "_bucket{" in one else one for one in METRICS.splitlines())
    found = read_metrics(write("metrics.txt", "\n".join([*lines, "# EOF", ""])), request_rate=4)
    expected = read_metrics(write("plain.txt", METRICS), request_rate=4)
    assert found.requests == expected.requests
    assert found.request_rate.tolist() == expected.request_rate.tolist()


def test_two_scrapes_make_a_rate(write: Write) -> None:
    """The counts between two texts over the time between them; engines add up."""
    earlier = write("1.txt", METRICS)
    twice = METRICS.replace(" 30.0", " 60.0").replace(" 40.0", " 80.0").replace(" 10.0\n", " 20.0\n")
    later = write("2.txt", twice.replace(" 320.0", " 640.0").replace(" 350.0", " 700.0"))
    workload = read_metrics(later, earlier=earlier, elapsed_s=20)
    assert workload.total_rate == pytest.approx(2)
    assert workload.requests == 40
    both = write("both.txt", METRICS + METRICS.replace('engine="0"', 'engine="1"'))
    assert read_metrics(both, request_rate=1).requests == 80
    with pytest.raises(InputError, match="counts less than"):
        read_metrics(earlier, earlier=later, elapsed_s=20)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("up 1\n", "no histogram of request sizes; known: vllm:request_prompt_tokens (vLLM)"),
        (METRICS.replace('le="+Inf"', 'le="60"'), "missing or has no +Inf bucket"),
        (METRICS.replace('le="10.0"', 'le="1e400"'), "must have an edge >= 0 such as le=\"100.0\", got le='1e400'"),
        (METRICS.replace('le="10.0"', 'le=""'), "must have an edge such as"),
        (METRICS.replace('le="10.0"', 'le="10.5"'), "must be whole numbers"),
        (METRICS.replace(" 320.0", " nan"), "must end in a number, 0 to 1e+16, got 'nan'"),
        (METRICS.replace(" 320.0", " -1"), "must end in a number, 0 to 1e+16, got '-1'"),
        (METRICS + METRICS.replace("vllm:", "ray_vllm_"), "contains metrics of vLLM and vLLM on Ray"),
        (
            METRICS + METRICS.replace('engine="0"', 'engine="1"').replace('le="20.0"', 'le="30.0"'),
            "the servers in this file count vllm:request_prompt_tokens in different buckets",
        ),
        (METRICS + METRICS.replace("llama", "qwen"), "contains several models: llama, qwen"),
        (METRICS.replace(" 320.0", " many"), "must end in a number, got 'many'"),
        (METRICS.replace('le="20.0",model_name="llama"} 40', 'le="20.0",model_name="llama"} 4'), "must not decrease"),
    ],
)
def test_metrics_that_cannot_be(write: Write, text: str, problem: str) -> None:
    """Absent or broken histograms and several models are errors."""
    with pytest.raises(InputError) as caught:
        read_metrics(write("metrics.txt", text), request_rate=1)
    assert problem in str(caught.value)


def test_metrics_need_a_rate_and_can_name_a_model(write: Write) -> None:
    """One text has no time in it; one of several models can be chosen."""
    path = write("metrics.txt", METRICS + METRICS.replace("llama", "qwen"))
    with pytest.raises(InputError, match="count 40 requests, but not over which time"):
        read_metrics(path, model="qwen")
    assert read_metrics(path, model="qwen", request_rate=1).requests == 40


def renamed(name: str) -> str:
    """The same counts under another engine's names."""
    dialect = next(one for one in DIALECTS if one.input.startswith(name))
    text = METRICS.replace("vllm:request_prompt_tokens", dialect.input)
    text = text.replace("vllm:request_generation_tokens", dialect.output)
    if "sglang" in name:
        return text + 'sglang:num_aborted_requests_total{model_name="llama"} 2.0\n'
    return text.replace("vllm:request_success_total", next(iter(dialect.failed)))


@pytest.mark.parametrize("name", ["vllm:", "ray_vllm_", "ray_vllm:", "sglang:"])
def test_every_engine_says_the_same(write: Write, name: str) -> None:
    """vLLM, vLLM on Ray in both of its ways, SGLang: the same counts are the same workload."""
    ours = read_metrics(write("vllm.txt", METRICS), request_rate=4)
    theirs = read_metrics(write("other.txt", renamed(name)), request_rate=4)
    assert theirs.request_rate.tolist() == ours.request_rate.tolist()
    assert theirs.input_tokens.tolist() == ours.input_tokens.tolist()
    assert theirs.buckets == ours.buckets
    assert theirs.failed_requests == ours.failed_requests == 2


def test_series_of_ray_s_workers_add_up(write: Write) -> None:
    """Ray labels each worker and replica; the requests are those of all."""
    one = renamed("ray_vllm_")
    two = one.replace('engine="0"', 'engine="0",WorkerId="b"') + one.replace('engine="0"', 'engine="0",WorkerId="a"')
    assert read_metrics(write("ray.txt", two), request_rate=1).requests == 80


def overflowing(above: int, total_tokens: float) -> str:
    """Some prompts above the last edge of 50."""
    text = METRICS.replace('le="+Inf",model_name="llama"} 40', f'le="+Inf",model_name="llama"}} {40 + above}', 1)
    return text.replace(" 320.0", f" {total_tokens}")


@pytest.mark.parametrize(
    ("max_context", "edge", "words"),
    [
        (131072, 131072, "at the model's context of 131,072 tokens"),
        (None, 100, "at 100 tokens, the next step of the edges"),
        (40, 100, "at 100 tokens, the next step of the edges"),
    ],
)
def test_requests_above_the_last_edge_are_planned_for_at_the_context(
    write: Write, max_context: int | None, edge: int, words: str
) -> None:
    """One in 41: a bucket of its own, the completion taken off the prompt, and a caution that says so."""
    path = write("m.txt", overflowing(1, 1e6))
    workload = read_metrics(path, request_rate=41, max_context=max_context)
    assert workload.buckets.input_edges == (10, 20, 50, edge)
    assert workload.request_rate[-1].sum() == pytest.approx(1)
    assert (workload.input_tokens[-1] + workload.output_tokens[-1]).tolist() == pytest.approx([edge, edge])
    (caution,) = [one for one in workload.cautions if one.kind == "overflow"]
    assert "1 of 41 requests (2.44%) of vllm:request_prompt_tokens are larger than its last edge 50" in caution.message
    assert words in caution.message


def test_the_total_of_tokens_bounds_what_lies_above_the_last_edge(write: Write) -> None:
    """30 prompts of at least 1 token and 10 of at least 11 leave 860 of 1,000 tokens for the one above 50."""
    workload = read_metrics(write("m.txt", overflowing(1, 1000.0)), request_rate=41, max_context=131072)
    assert workload.input_tokens[-1].tolist() == [860.0, 860.0]
    assert workload.input_token_rate == pytest.approx(1000)
    assert "at 860 tokens, the most that the total of tokens allows" in " ".join(map(str, workload.cautions))


def test_completions_above_the_last_edge_share_the_context(write: Write) -> None:
    """The output's turn: what the prompt leaves of the context."""
    text = METRICS.replace(
        'request_generation_tokens_bucket{engine="0",le="+Inf",model_name="llama"} 40',
        'request_generation_tokens_bucket{engine="0",le="+Inf",model_name="llama"} 44',
    )
    text = text.replace(" 350.0", " 1e6")
    workload = read_metrics(write("m.txt", text), request_rate=1, max_context=4096)
    assert workload.buckets.output_edges == (5, 10, 4096)
    assert (workload.input_tokens[:, -1] + workload.output_tokens[:, -1]).tolist() == pytest.approx([4096, 4096])


def test_a_model_and_its_adapters_add_up(write: Write) -> None:
    """Several names are one traffic; one that is not there is an error with those that are."""
    path = write("metrics.txt", METRICS + METRICS.replace("llama", "llama-sql"))
    both = read_metrics(path, model=["llama", "llama-sql"], request_rate=1)
    assert both.requests == 80
    assert "80 requests of llama, llama-sql" in both.source
    with pytest.raises(InputError, match="unknown model 'lama'; did you mean 'llama'"):
        read_metrics(path, model="lama", request_rate=1)
    with pytest.raises(InputError) as caught:
        read_metrics(path, request_rate=1)
    assert "workload: {model: ...}, or --model" in caught.value.hint
