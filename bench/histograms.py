"""Write the bundled histograms, ``src/melange/workload/data/*.json``, from traces that are not in the repository.

    python bench/histograms.py [FOLDER]

FOLDER contains ``traces/*.parquet`` and ``paper/arena_histogram_pct.csv``; default ``../shared/data``. If it is
missing, the script prints a message and changes nothing.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES

TARGET = Path(__file__).parent.parent / "src" / "melange" / "workload" / "data"
# An Arena cell gets its mean sizes from the VTC sample if the sample has at least this many requests in it, and the
# whole cell is below the sample's limit of 1,023 tokens.
ARENA_SAMPLE = 10
ARENA_SAMPLE_TOKENS = 1023
ABOUT: dict[str, dict[str, Any]] = {
    "azure-conversation": {
        "file": "azure_2023_conv",
        "source": "Azure LLM inference trace 2023, conversation (Splitwise, ISCA 2024), one production hour",
        "url": "https://github.com/Azure/AzurePublicDataset",
        "license": "CC BY 4.0",
        "date": "2023-11-16",
    },
    "azure-code": {
        "file": "azure_2023_code",
        "source": "Azure LLM inference trace 2023, code (Splitwise, ISCA 2024), one production hour",
        "url": "https://github.com/Azure/AzurePublicDataset",
        "license": "CC BY 4.0",
        "date": "2023-11-16",
    },
    "mooncake-conversation": {
        "file": "mooncake_conversation",
        "source": "Mooncake conversation trace (FAST 2025), one production hour, long contexts; prompt lengths "
        "include prefixes that a cache may hold",
        "url": "https://github.com/kvcache-ai/Mooncake",
        "license": "Apache-2.0",
        "date": "2025-02",
    },
    "arxiv-summarization": {
        "file": "arxiv_summarization_4k_llama2",
        "source": "arXiv summarization, up to 4k tokens, Llama-2 tokenizer (etalon / Vidur); lengths only",
        "url": "https://github.com/project-etalon/etalon",
        "license": "Apache-2.0 / MIT",
        "date": "2024",
    },
    "sharegpt": {
        "file": "sharegpt_8k_llama2",
        "source": "ShareGPT, up to 8k tokens, Llama-2 tokenizer (etalon / Vidur); lengths only",
        "url": "https://github.com/project-etalon/etalon",
        "license": "Apache-2.0 / MIT",
        "date": "2024",
    },
}
ARENA = {
    "source": "Chatbot Arena: shares of 201,570 LMSYS-Chat-1M requests by size, on the edges of the Mélange paper "
    "(arXiv 2404.14527); mean sizes within a cell from 1,500 Arena first turns (VTC artifact) where at least "
    f"{ARENA_SAMPLE} of them fall into it (cells up to 1,000 tokens), else from those of the same input or output "
    "bucket, else the geometric mean of the edges; no real arrival times",
    "url": "https://huggingface.co/datasets/lmsys/lmsys-chat-1m",
    "license": "figures derived from LMSYS-Chat-1M; VTC artifact Apache-2.0",
    "date": "2023-08",
    "requests": 201570,
    "request_rate": None,
    "duration_s": None,
}


def fine_edges(coarse: tuple[int, ...]) -> np.ndarray:
    """Eight edges per octave, the default edges, and common round numbers, up to the last default edge."""
    last = coarse[-1]
    octaves = np.floor(2.0 ** (np.arange(0, 18 * 8) / 8) + 0.5)
    rounds = [digit * 10**power for power in range(6) for digit in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5, 8)]
    edges = np.unique(np.concatenate([octaves, rounds, coarse])).astype(int)
    whole = {int(edge) for edge in edges if 1 <= edge <= last}
    return np.array(sorted(whole))


def histogram(inputs: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None = None) -> dict[str, Any]:
    """The non-empty cells of the fine grid, as columns."""
    input_edges, output_edges = fine_edges(DEFAULT_INPUT_EDGES), fine_edges(DEFAULT_OUTPUT_EDGES)
    i, o = np.searchsorted(input_edges, inputs), np.searchsorted(output_edges, outputs)
    cell, inverse = np.unique(i * len(output_edges) + o, return_inverse=True)
    n = np.bincount(inverse, weight)
    sums = [np.bincount(inverse, sizes if weight is None else sizes * weight) for sizes in (inputs, outputs)]
    low = [np.concatenate([[0], edges[:-1]]) for edges in (input_edges, output_edges)]
    rows, columns = cell // len(output_edges), cell % len(output_edges)
    return {
        "input_over": low[0][rows].tolist(),
        "input_upto": input_edges[rows].tolist(),
        "output_over": low[1][columns].tolist(),
        "output_upto": output_edges[columns].tolist(),
        "requests": _numbers(n),
        "input_tokens": _numbers(sums[0]),
        "output_tokens": _numbers(sums[1]),
    }


def _numbers(values: np.ndarray) -> list[float]:
    return [int(value) if float(value).is_integer() else round(float(value), 3) for value in values]


def from_trace(file: Path, about: dict[str, Any]) -> dict[str, Any]:
    """One trace as a document."""
    connection = duckdb.connect()
    names = [row[0] for row in connection.execute(f"DESCRIBE FROM '{file}'").fetchall()]
    columns = connection.execute(f"FROM '{file}'").fetchnumpy()
    inputs, outputs = columns["input_tokens"].astype(float), columns["output_tokens"].astype(float)
    duration_s = burstiness = None
    if "arrival_s" in names:
        arrivals = np.sort(columns["arrival_s"])
        gaps = np.diff(arrivals)
        duration_s = round(float(arrivals[-1] - arrivals[0]), 6)
        # The burstiness is unknown if the clock is too coarse for the gaps (Mooncake: steps of 3 s).
        burstiness = None if (gaps == 0).mean() > 0.1 else round(float(gaps.std() / gaps.mean()), 4)
    about = {key: value for key, value in about.items() if key != "file"}
    return about | {
        "requests": len(inputs),
        "request_rate": None if duration_s is None else len(inputs) / duration_s,
        "duration_s": duration_s,
        "burstiness": burstiness,
        "cells": histogram(inputs, outputs),
    }


def arena(folder: Path) -> dict[str, Any]:
    """The Arena histogram: LMSYS shares, with mean sizes from the VTC sample if it has enough requests."""
    with (folder / "paper" / "arena_histogram_pct.csv").open() as stream:
        header, *lines = list(csv.reader(stream))
    input_edges = [int(line[0]) for line in lines]
    output_edges = [int(name.removeprefix("out_")) for name in header[1:]]
    shares = np.array([[float(value) for value in line[1:]] for line in lines])
    sample = duckdb.connect().execute(f"FROM '{folder / 'traces' / 'arena_vtc_sample.parquet'}'").fetchnumpy()
    i = np.searchsorted(input_edges, sample["input_tokens"])
    o = np.searchsorted(output_edges, sample["output_tokens"])
    cells: dict[str, list[float]] = {name: [] for name in ("input_over", "input_upto", "output_over", "output_upto")}
    cells |= {"requests": [], "input_tokens": [], "output_tokens": []}
    total = float(ARENA["requests"])  # type: ignore[arg-type]
    for row, column in np.argwhere(shares > 0):
        requests = shares[row, column] / shares.sum() * total
        is_whole = max(input_edges[row], output_edges[column]) <= ARENA_SAMPLE_TOKENS
        for name, edges, index, place in (("input", input_edges, row, i), ("output", output_edges, column, o)):
            low, high = (edges[index - 1] if index else 0), edges[index]
            alike = place == index
            near = alike & (i == row) & (o == column)
            seen = sample[f"{name}_tokens"][near if is_whole and near.sum() >= ARENA_SAMPLE else alike]
            is_known = high <= ARENA_SAMPLE_TOKENS and len(seen) >= ARENA_SAMPLE
            mean = float(seen.mean()) if is_known else float(np.sqrt(max(low, 1) * high))
            cells[f"{name}_over"].append(low)
            cells[f"{name}_upto"].append(high)
            cells[f"{name}_tokens"].append(round(mean * requests, 3))
        cells["requests"].append(round(requests, 3))
    return ARENA | {"burstiness": None, "cells": cells}


def main() -> None:
    """Write all documents, and print a summary of each."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent.parent / "shared" / "data"
    if not (folder / "traces").is_dir():
        print(f"skipped: no folder {folder / 'traces'}; the histograms are unchanged")
        return
    documents = {
        name: from_trace(folder / "traces" / f"{about['file']}.parquet", about) for name, about in ABOUT.items()
    }
    documents["arena"] = arena(folder)
    TARGET.mkdir(exist_ok=True)
    for name, document in sorted(documents.items()):
        target = TARGET / f"{name}.json"
        target.write_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
        rate = document["request_rate"]
        cells = document["cells"]
        tokens = [sum(cells[f"{axis}_tokens"]) / sum(cells["requests"]) for axis in ("input", "output")]
        print(
            f"{name:24} {document['requests']:>8,} requests  {len(cells['requests']):>6,} cells  "
            f"{target.stat().st_size / 1024:>6.0f} KiB  mean {tokens[0]:7.1f} in {tokens[1]:6.1f} out  "
            + (f"{rate:.3f}/s" if rate else "no arrival times")
        )


if __name__ == "__main__":
    main()
