"""Every format that is read, with a small valid file of it and the commands that read one."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from newer_formats import newer_formats, write_newer
from read_in_process import (
    Command,
    arrivals,
    beside_offers,
    cache,
    flags,
    journal,
    keys,
    packed_prices,
    replicas_of,
    report,
    run,
    schedule,
    settings,
    show_model,
    show_plan,
    show_quantized,
    unpacked,
)
from sample_logs import (
    EC2_SHOP,
    EVERY_KEY,
    FACTORS,
    FLEET,
    GENAI_PERF,
    GO_AWS,
    GO_AZURE,
    HF_QUANT,
    INFERENCE_PERF,
    KARPENTER_GCP,
    LANGFUSE,
    LIST,
    LITELLM,
    LLMPERF,
    OPENAI,
    OVER_TIME,
    RATES,
    RENTAL_PRICES,
    SIZES,
)
from samples import (
    AIBRIX,
    AIBRIX_LOAD,
    GPUHUNT,
    JOURNAL,
    LOAD_TESTS,
    LOG,
    MEASUREMENT_TABLE,
    METRICS,
    MODELS,
    OFFERS,
    RELEASE,
    SERVICE,
    SKYPILOT,
)

from melange.service.session import Session

MORE_LOAD_TESTS = {"genai-perf": GENAI_PERF, "inference-perf": INFERENCE_PERF, "llmperf": LLMPERF}


@dataclass(frozen=True)
class Format:
    """A kind of input.

    Parameters
    ----------
    name
        What to call it.
    suffix
        How its file is called.
    text
        A valid file.
    commands
        What reads it: arguments of ``melange`` in which ``{}`` is the file and ``{x}`` stands for the folder of the
        valid files, or functions of the path.
    """

    name: str
    suffix: str
    text: bytes
    commands: tuple[Command, ...]


def write_valid(folder: Path) -> None:
    """The valid files that commands need besides the one that is mutated."""
    (folder / "service.yaml").write_text(SERVICE)
    session = Session(folder / "service.yaml")
    session.workload().save(folder / "workload.json")
    session.profile().save(folder / "profile.json")
    session.plan().save(folder / "plan.json")
    on_requests = Session(folder / "service.yaml", settings=["slo={tpot_ms: 120}"])
    on_requests.certified().save(folder / "certified.json")
    (folder / "log.csv").write_text(LOG)
    (folder / "offers.csv").write_text(OFFERS)
    run("validate", str(folder / "plan.json"), "--requests", "20", "--seeds", "1", "--out", f"{folder}/report.json")
    for name, text in (("rates.csv", RATES), ("sizes.csv", SIZES), ("week.yaml", OVER_TIME)):
        (folder / name).write_text(text.replace("{x}", str(folder)))
    over_time = Session(folder / "week.yaml")
    over_time.demand().save(folder / "demand.json")
    over_time.schedule(quick=True).save(folder / "schedule.json")
    write_newer(folder)
    import duckdb

    duckdb.sql(f"COPY (FROM read_csv('{folder / 'log.csv'}')) TO '{folder / 'log.parquet'}' (FORMAT parquet)")


def formats(folder: Path) -> list[Format]:
    """All of them; ``folder`` is that of :func:`write_valid`."""
    rows = [line.split(",") for line in LOG.splitlines()]
    jsonl = "".join(
        json.dumps({"arrival_s": 0.5 * n, "input_tokens": int(row[1]), "output_tokens": int(row[2])}) + "\n"
        for n, row in enumerate(rows[1:])
    )
    quick = ("plan", "{}", "--quick")
    text = {
        name: (folder / name).read_bytes()
        for name in (
            *("workload.json", "profile.json", "plan.json", "certified.json"),
            *("demand.json", "schedule.json", "week.yaml"),
        )
    }
    anchor = ("profile", "{x}/service.yaml", "--anchor", "{}")
    log: tuple[Command, ...] = (("workload", "{}", "--out", "{}.out"), arrivals)
    profile: tuple[Command, ...] = (
        ("profile", "{}", "--out", "{}.out"),
        ("plan", "--workload", "{x}/workload.json", "--profile", "{}", "--quick", "--out", "{}.out"),
    )
    plan: tuple[Command, ...] = (
        show_plan,
        ("deploy", "{}", "--to", "haproxy"),
        ("deploy", "{}", "--to", "envoy", "--out", "{}.folder"),
        ("validate", "{}", "--requests", "20", "--seeds", "1", "--processes", "1", "--out", "{}.out"),
        ("plan", "{x}/service.yaml", "--quick", "--incumbent", "{}"),
    )
    return [
        Format("service", "service.yaml", SERVICE.encode(), (quick, ("profile", "{}", "--out", "{}.out"))),
        Format(
            "workload",
            "workload.json",
            text["workload.json"],
            (
                ("plan", "--workload", "{}", "--profile", "{x}/profile.json", "--quick", "--out", "{}.out"),
                ("profile", "{x}/service.yaml", "--workload", "{}"),
            ),
        ),
        Format("profile", "profile.json", text["profile.json"], profile),
        Format("plan", "plan.json", text["plan.json"], plan),
        Format("certified", "plan.json", text["certified.json"], plan),
        Format(
            "release",
            "release.json",
            json.dumps(RELEASE).encode(),
            ((*quick, "--out", "{}.out"), ("profile", "{}"), ("workload", "--histogram", "{}")),
        ),
        Format("aibrix", "aibrix.jsonl", json.dumps(AIBRIX).encode(), (("profile", "{}"),)),
        *(
            Format(
                f"hf-{name}",
                "config.json",
                json.dumps(one).encode(),
                (show_model, ("profile", "{x}/service.yaml", "--set", "model={}", "--set", "variants=[]")),
            )
            for name, one in MODELS.items()
        ),
        *(
            Format(
                f"load-{name}",
                f"{name}.json",
                json.dumps(one).encode(),
                (("profile", "{x}/service.yaml", "--anchor", "{}" if name == "own" else "L4={}"),),
            )
            for name, one in (LOAD_TESTS | MORE_LOAD_TESTS).items()
        ),
        Format(
            "load-aibrix",
            "aibrix.jsonl",
            "".join(json.dumps(one) + "\n" for one in AIBRIX_LOAD).encode(),
            (("profile", "{x}/service.yaml", "--anchor", "L4={}"),),
        ),
        Format("load-table", "points.csv", MEASUREMENT_TABLE.encode(), (anchor,)),
        Format("journal", "journal.jsonl", JOURNAL.encode(), (anchor, journal)),
        Format(
            "histogram-json",
            "h.json",
            json.dumps(
                {"input_edges": [100, 500], "output_edges": [25, 100], "request_rate": [[0.2, 0.1], [0.5, 0.2]]}
            ).encode(),
            (("workload", "--histogram", "{}", "--out", "{}.out"),),
        ),
        Format(
            "histogram-csv",
            "h.csv",
            b"input_tokens_upto rate,out_25,out_100\n100,0.2,0.1\n500,0.5,0.2\n",
            (("workload", "--histogram", "{}"), ("workload", "--histogram", "{}", "--rate", "3")),
        ),
        Format("metrics", "metrics.txt", METRICS.encode(), (("workload", "--metrics", "{}", "--rate", "4"),)),
        Format("log-csv", "log.csv", LOG.encode(), log),
        Format("log-jsonl", "log.jsonl", jsonl.encode(), log),
        Format("log-parquet", "log.parquet", (folder / "log.parquet").read_bytes(), log),
        Format("log-litellm", "spend.csv", LITELLM.encode(), log),
        Format("log-langfuse", "langfuse.jsonl", LANGFUSE.encode(), log),
        Format("log-openai", "openai.jsonl", OPENAI.encode(), log),
        Format("log-list", "list.json", LIST.encode(), log),
        Format("log-gzip", "log.csv.gz", gzip.compress(LOG.encode(), mtime=0), log),
        Format(
            "offers",
            "offers.csv",
            OFFERS.encode(),
            (
                ("catalog", "--file", "{}"),
                ("plan", "{x}/service.yaml", "--quick", "--set", "workload.rate=0.1", "--set", "offers.file={}"),
            ),
        ),
        Format("skypilot", "aws.csv", SKYPILOT.encode(), (("catalog", "--file", "{}"),)),
        Format("gpuhunt", "aws.csv", GPUHUNT.encode(), (("catalog", "--file", "{}"),)),
        *(
            Format(f"prices-{name}", file, text, (("catalog", "--file", "{}"),))
            for name, file, text in (
                ("aws-go", "prices.go", GO_AWS.encode()),
                ("azure-go", "prices.go", GO_AZURE.encode()),
                ("karpenter-gcp", "prices.json", json.dumps(KARPENTER_GCP).encode()),
                ("ec2-shop", "us-east-1.json", json.dumps(EC2_SHOP).encode()),
                ("rental", "latest.json", json.dumps(RENTAL_PRICES).encode()),
            )
        ),
        Format("prices-zip", "prices.zip", packed_prices(), (unpacked,)),
        Format("hf-quant", "hf_quant_config.json", json.dumps(HF_QUANT).encode(), (show_quantized,)),
        Format("service-keys", "service.yaml", EVERY_KEY.encode(), (beside_offers(folder),)),
        Format(
            "settings",
            "settings.pairs",
            b"slo.tpot_ms=100\nworkload.rate=9\noffers={gpus: [L4]}\nplan.max_types=1\n",
            (settings(("plan", f"{folder}/service.yaml", "--quick"), "--set"),),
        ),
        *(
            Format(
                f"options-{target}",
                "options.pairs",
                options,
                (settings(("deploy", f"{folder}/plan.json", "--to", target), "--option"),),
            )
            for target, options in (
                ("kubernetes", b"name=chat\nport=8000\nextra_args=[--x]\nnamespace=a\nbalancers=2\nscaling=keda\n"),
                ("nginx", b"listen=127.0.0.1:80\nbytes_per_token=4\nenvelope_bytes=100\nmax_body_bytes=null\n"),
                ("docker-compose", b"name=chat\nport=8000\nversion=v0.9\n"),
                ("terraform", b"name=chat\n"),
            )
        ),
        Format(
            "flags-log",
            "flags.pairs",
            b"--rate=max\n--window=1s\n--from=0s\n--to=20s\n--columns=arrival=TIMESTAMP\n--input-edges=100,1000\n"
            b"--output-edges=100\n--size=upper\n--where=ContextTokens=[121, 128, 135, 142]\n",
            (flags(("workload", f"{folder}/log.csv")),),
        ),
        Format(
            "flags-validate",
            "flags.pairs",
            b"--requests=20\n--seeds=1\n--scale=1\n--burstiness=1\n--policy=least-outstanding\n--target=0.9\n--scenario=ramp\n",
            (flags(("validate", f"{folder}/plan.json", "--processes", "1")),),
        ),
        Format(
            "flags-deploy",
            "flags.pairs",
            b"--to=haproxy\n--listen=0.0.0.0:80\n--bytes-per-token=4\n--replica=A10G=http://h:1\n--replica=L4=http://h:2\n",
            (flags(("deploy", f"{folder}/plan.json")),),
        ),
        Format("report", "report.json", (folder / "report.json").read_bytes(), (report,)),
        *(
            Format(
                name,
                f"{name}.csv",
                table.encode(),
                (
                    (
                        "workload",
                        f"--{name}",
                        "{}",
                        f"--{other}",
                        f"{{x}}/{other}.csv",
                        "--over",
                        "day",
                        "--out",
                        "{}.out",
                    ),
                    ("schedule", "{x}/week.yaml", "--quick", "--set", f"workload.{name}={{}}", "--out", "{}.out"),
                ),
            )
            for name, other, table in (("rates", "sizes", RATES), ("sizes", "rates", SIZES))
        ),
        Format("week", "week.yaml", text["week.yaml"], (("schedule", "{}", "--quick", "--out", "{}.out"),)),
        Format(
            "demand",
            "demand.json",
            text["demand.json"],
            (("schedule", "{x}/week.yaml", "--quick", "--set", "workload={file: {}, over: day}", "--out", "{}.out"),),
        ),
        Format(
            "schedule",
            "schedule.json",
            text["schedule.json"],
            (schedule, ("deploy", "{}", "--to", "keda"), ("deploy", "{}", "--to", "json")),
        ),
        Format("fleet", "fleet.yaml", FLEET.replace("{x}", str(folder)).encode(), (("plan", "{}", "--quick"),)),
        Format(
            "factors",
            "factors.json",
            json.dumps(FACTORS).encode(),
            (("plan", "{x}/service.yaml", "--quick", "--observed", "{}"),),
        ),
        Format(
            "replicas",
            "replicas.txt",
            b"L4=http://localhost:8000\n# x\nL4 http://localhost:8001\n",
            (replicas_of(folder),),
        ),
        Format("keys", "keys.txt", b"# keys\nabcdefghijklmnopqrstuvwxyz\n", (keys,)),
        Format("cache", "rates.json", b'{"0123": [1.5, ""], "4567": [0, "too long"]}', (cache,)),
        *(Format(*one) for one in newer_formats(folder)),
    ]
