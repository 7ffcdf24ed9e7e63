"""Real vLLM servers on the CPU: random-weight Llamas that these tests write themselves, each pinned to a core."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S, STOP_LIMIT_S = 180.0, 30.0
HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, VOCABULARY, MAX_CONTEXT = 512, 8, 4, 1408, 2048, 4096
KV_BYTES, MAX_SEQUENCES, MAX_BATCHED_TOKENS = 2**28, 64, 2048
NAME = "llama"  # of whatever size, so that a balancer may send a request to any
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers.

    Parameters
    ----------
    url
        Where.
    name
        What it calls its model.
    layers
        How many that has.
    log
        What it said.
    folder
        Where its model's configuration and tokenizer are.
    process
        Its process.
    """

    url: str
    name: str
    layers: int
    log: Path
    folder: Path
    process: subprocess.Popen[bytes]


def write_model(folder: Path, layers: int) -> Path:
    """A Llama of this many layers without weights, and a byte-level tokenizer trained on random words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    choose = random.Random(7)
    words = ["".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=choose.randint(2, 8))) for _ in range(4000)]
    tokenizer.train_from_iterator((" ".join(choose.choices(words, k=20)) for _ in range(4000)), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    contents = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": layers,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HIDDEN // HEADS,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": MAX_CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    return folder


def server_command(model: Path, core: int, port: str) -> list[str]:
    """What starts a server of a model on a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", NAME, "--load-format", "dummy"]
    command += ["--dtype", "bfloat16", "--max-model-len", str(MAX_CONTEXT), "--max-num-seqs", str(MAX_SEQUENCES)]
    command += ["--max-num-batched-tokens", str(MAX_BATCHED_TOKENS), "--kv-cache-memory-bytes", str(KV_BYTES)]
    command += ["--enforce-eager", "--distributed-executor-backend", "uni", "--no-enable-prefix-caching"]
    command += ["--disable-uvicorn-access-log", "--host", "127.0.0.1", "--port", port]
    return command


@contextlib.contextmanager
def serving(folder: Path, layers: int, core: int) -> Iterator[Server]:
    """A server of that model on a free port and on one core, ended by SIGTERM."""
    model = write_model(folder / f"llama-{layers}", layers)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = server_command(model, core, str(port))
    log = folder / f"llama-{layers}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | SETTINGS, stdout=output, stderr=subprocess.STDOUT)
    server = Server(url=f"http://127.0.0.1:{port}", name=NAME, layers=layers, log=log, folder=model, process=process)
    try:
        _wait_for(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: Server) -> None:
    """Until ``/health`` answers; says what the server said where it ends first or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=2):
            return
        time.sleep(0.25)
    raise RuntimeError(f"{server.name} did not start:\n{server.log.read_text(errors='replace')[-3000:]}")
