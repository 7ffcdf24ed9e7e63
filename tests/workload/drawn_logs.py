"""Request logs drawn at random, with what real ones have: quotes, blanks, mixed types, bad rows, odd line ends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SIZES: list[Callable[[random.Random], str]] = [
    lambda r: str(r.randint(0, 900)),
    lambda r: f"{r.randint(1, 900)}.0",
    lambda r: f" {r.randint(1, 90)} ",
    lambda r: f"+{r.randint(1, 90)}",
    lambda r: f"{r.randint(1, 9)}e2",
    lambda r: f"0{r.randint(1, 90)}",
    lambda r: "1_00",
]
_BAD_SIZES = ["", "x", "-3", "5.5", "nan", "inf", "true", "NULL", "1e400", "0x10", "\u0665", "None", "9" * 20]
_BAD_TIMES = ["", "soon", "nan", "-inf", "2026-11-01", "12:61", "true", "2026-13-01 00:00:00"]


def _moment(r: random.Random, at: float, kind: str) -> str:
    if kind == "s":
        return f"{at:.3f}"
    if kind == "ms":
        return str(int(1.7e12 + at * 1000))
    day, rest = divmod(at, 86400)
    clock = f"2026-11-{1 + int(day):02d}{r.choice('T ')}{int(rest // 3600):02d}:{int(rest % 3600 // 60):02d}"
    return f"{clock}:{rest % 60:09.6f}{r.choice(['', 'Z', '+00:00', '+05:30', '-08'])}"


def _rows(r: random.Random) -> list[dict[str, str]]:
    kind, second = r.choice(["s", "ms", "iso", "iso", "s"]), r.choice(["", "", "iso", "s"])
    bad, odd = r.choice([0.0, 0.0, 0.0, 0.01, 0.3]), r.choice([0.0, 0.0, 0.2, 1.0])
    found, at = [], r.choice([0.0, 1000.0])
    for _ in range(r.choice([1, 5, 60, 180, 400])):
        at += r.expovariate(1.0)
        row = {"model": r.choice(["a", "b", "B", "", "a,b", 'quo"te', "two\nlines"])}
        row["status"] = r.choice(["200", "500"])
        row["arrival"] = _moment(r, at, second if second and r.random() < 0.1 else kind)
        for role in ("prompt", "answer"):
            row[role] = r.choice(_SIZES)(r) if r.random() < odd else str(r.randint(0, 900))
        if r.random() < bad:
            name = r.choice(["arrival", "prompt", "answer"])
            row[name] = r.choice(_BAD_TIMES if name == "arrival" else _BAD_SIZES)
            row["model"] = r.choice(["broken", row["model"]])
        found.append(row)
    return found


def draw_log(folder: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """A log and how it is read."""
    r = random.Random(seed)
    rows = _rows(r)
    where = r.choice([None, None, {"model": ["a", "b"]}, {"status": 200}, {"prompt": [5, 7, 9]}])
    names = ["arrival", "prompt", "answer", "model", "status"]
    r.shuffle(names)
    roles = {"arrival": "arrival", "input": "prompt", "output": "answer"}
    if r.random() < 0.5:
        path, text = folder / f"log-{seed}.csv", _csv(r, rows, names)
    else:
        inner = r.choice(["", "", "usage"])
        path, text = folder / f"log-{seed}.{r.choice(['jsonl', 'json'])}", ""
        text = _json(r, rows, names, inner, path.suffix == ".json")
        roles |= {role: f"usage.{roles[role]}" for role in ("input", "output") if inner}
        where = where if not inner or not where or "prompt" not in where else {"usage.prompt": [5, 7, 9]}
    if r.random() < 0.1 and not path.name.endswith("json"):
        path, packed = path.with_name(path.name + ".gz"), True
    else:
        packed = False
    content = r.choice([b"", b"\xef\xbb\xbf"]) + text.encode()
    if packed:
        import gzip

        content = gzip.compress(content)
    path.write_bytes(content)
    return path, {"columns": roles, "where": where}


def _csv(r: random.Random, rows: list[dict[str, str]], names: list[str]) -> str:
    delimiter, end, quoted = r.choice([",", ",", ";", "\t"]), r.choice(["\n", "\n", "\r\n"]), r.choice([0.0, 0.2, 1.0])
    blank, short = r.choice([0.0, 0.05]), r.choice([0.0, 0.0, 0.0, 0.01])

    def cell(value: str) -> str:
        needs = any(sign in value for sign in (delimiter, '"', "\n"))
        return '"' + value.replace('"', '""') + '"' if needs or r.random() < quoted else value

    lines = [delimiter.join(names)]
    for row in rows:
        cells = [cell(row[name]) for name in names]
        if r.random() < short:
            cells = cells[:-1] if r.random() < 0.5 else [*cells, "9"]
        lines += [""] * (r.random() < blank) + [delimiter.join(cells)]
    return end.join(lines) + r.choice(["", end])


def _json(r: random.Random, rows: list[dict[str, str]], names: list[str], inner: str, is_list: bool) -> str:
    as_text, damage = r.choice([0.0, 0.0, 0.1, 1.0]), r.choice([0.0, 0.0, 0.02])

    def value(text: str) -> Any:
        if text in ("true", "NULL", "None"):
            return {"true": True, "NULL": None, "None": r.choice([[1], {"a": 1}, False])}[text]
        try:
            number = json.loads(text.strip().lstrip("+"))
        except ValueError:
            return text
        return text if isinstance(number, str) or r.random() < as_text else number

    lines = []
    for row in rows:
        one = {name: value(row[name]) for name in names if row[name] or r.random() < 0.5}
        if inner:
            nested = {name: one.pop(name) for name in ("prompt", "answer") if name in one}
            one[inner] = json.dumps(nested) if r.random() < 0.05 else nested
        text = json.dumps(one, ensure_ascii=r.random() < 0.5)
        lines.append(text[:-3] if r.random() < damage and not is_list else text)
    if is_list:
        return "[" + ",\n".join(lines) + "]"
    return r.choice(["\n", "\r\n"]).join(lines) + "\n"
