"""Damage a file as accidents and attackers do: wrong values in right places, and bytes anywhere."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

_DEEP, _WHOLE = "@deep@", "@whole@"
# Values that are wrong nearly everywhere; texts among them say what they are about.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-9, 1e-308, 5e-324, 1e16, 1e300, 1e308, -1e308),
    *(2**31, 2**31 - 1, 2**53, 2**63, 2**63 - 1, -(2**63), 2**64, 10**30, 10**400, -(10**400)),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "0", "1", "-1", "nan", "inf", "1e999", "0x10", "1_000", "true", "null", "None", "2024-13-45"),
    *("9999-99-99", "0001-01-01", "2024-05-01T25:61:61", "\x00", "\x1b[2J\x1b[31mred", "\u202egnp", "\ud800", "é" * 50),
    *("[/]", "[red]", "[link=http://x]", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "../../../../etc/passwd"),
    *("/dev/null", "/", "~", "a,b", 'a"b', "a\nb", "a\tb", "{x}", "%s", "$(id)", "x" * 3_000, "x" * 200_000),
    *([], {}, [[]], [None], [1], [[1]], [[1], [1, 2]], [0] * 200, ["a", "b"], {"a": 1}, {"": {}}, [{}], [[[[[]]]]]),
    *(_DEEP, _WHOLE),
)
# Tried at every key: a wrong type, a number beyond sums or floats, a text that is none, or no such key.
GONE = "@gone@"
AT_EVERY_KEY: tuple[Any, ...] = (
    *(GONE, None, True, 0, -1, 0.5, 1e-308, 1e9, 1e16, 1e300, 2**31, 2**63, 10**400, float("nan"), float("inf")),
    *("", "x", "1e999", "\ud800", [], {}, [None], [[1]], {"a": 1}),
)
_CHUNKS = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"[" * 200_000,
    b"{" * 5_000,
    b'"',
    b"'",
    b"\r",
    b"\n\n",
    b"\xef\xbb\xbf",
)
_CHUNKS += (
    b"9" * 400,
    b"9" * 5_000,
    b"-",
    b",",
    b":",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"\x1b[2J",
    b"&a ",
    b"*a",
    b"!!int ",
)
_CHUNKS += (b"x" * 200_000, b"\t", b"#", b"\\", b"\\ud800", b"{}", b"[]", b"=", b"|", b";", b"%")


def mutated(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """The content of a file with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _once(content, suffix, rng)
    return content


def _once(content: bytes, suffix: str, rng: random.Random) -> bytes:
    readers = {"json": _json, "jsonl": _json_lines, "yaml": _yaml, "csv": _table, "txt": _lines, "go": _lines}
    readers["pairs"] = _pairs
    mutate = readers.get(suffix)
    if mutate is not None and rng.random() < 0.8:
        try:
            return mutate(content.decode(), rng)
        except (
            ArithmeticError,
            ValueError,
            RecursionError,
            yaml.YAMLError,
            csv.Error,
            AttributeError,
            LookupError,
            TypeError,
        ):
            pass  # what was damaged before: go on with its bytes
    return _bytes(content, rng)


def keys_of(content: bytes, suffix: str) -> list[str]:
    """The keys of a document, each list of things alike as one; of a table its columns, in one row and in all."""
    if suffix == "csv":
        columns = len(next(csv.reader(io.StringIO(content.decode()))))
        return [f"{kind}{place}" for place in range(columns) for kind in _ROWS]
    if suffix == "jsonl":
        lines = [json.loads(line) for line in content.decode().splitlines()]
        return list(dict.fromkeys(f"{n}{path}" for n, one in enumerate(lines) for _, _, path in _places(one)))
    if suffix not in ("json", "yaml"):
        return []
    return list(dict.fromkeys(path for _, _, path in _places(_parsed(content, suffix))))


_ROWS = ("row:", "rows:", "name:")


def with_value(content: bytes, suffix: str, key: str, value: Any, rng: random.Random) -> bytes:
    """The content with one value in the place of another: at one of the places that a key of :func:`keys_of` means."""
    if suffix == "csv":
        return _with_cells(content.decode(), key, value, rng)
    if suffix == "jsonl":
        lines = content.decode().splitlines()
        number, _, _ = key.partition(".")
        parsed = json.loads(lines[int(number)])
        lines[int(number)] = json.dumps(_with_value(parsed, key.removeprefix(number), value, rng))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return _dumped(_with_value(_parsed(content, suffix), key, value, rng))


def _parsed(content: bytes, suffix: str) -> Any:
    return yaml.safe_load(content) if suffix == "yaml" else json.loads(content)


def _with_value(parsed: Any, key: str, value: Any, rng: random.Random) -> Any:
    one, at = rng.choice([(one, at) for one, at, path in _places(parsed) if path == key])
    if value == GONE:
        del one[at]
    else:
        one[at] = value
    return parsed


def _with_cells(text: str, key: str, value: Any, rng: random.Random) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    kind, _, place = key.partition(":")
    chosen = {"row": [rng.choice(rows[1:])], "rows": rows[1:], "name": rows[:1]}[kind]
    for row in chosen:
        if value == GONE:
            del row[int(place)]
        else:
            row[int(place)] = str(value)
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _bytes(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    length = rng.choice((1, 2, 4, 16, 100))
    kind = rng.randrange(9)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + content[place + length :]
    if kind == 2:
        return content[:place] + rng.choice(_CHUNKS) + content[place:]
    if kind == 3:
        return content[:place] + rng.choice(_CHUNKS) + content[place + length :]
    if kind == 4:
        return content[:place] + content[place : place + length] * rng.choice((2, 3, 100)) + content[place + length :]
    if kind == 5 and content:
        place = min(place, len(content) - 1)
        return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    if kind == 6:
        return content[:place] + rng.randbytes(length) + content[place + length :]
    if kind == 7:
        return rng.choice(
            (b"", b"\n", b" ", b"null", b"[]", b"{}", b"0", b'""', rng.choice(_CHUNKS), content.hex().encode())
        )
    try:
        return content.decode().encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")), "replace")
    except UnicodeDecodeError:
        return content[::-1]


def _json(text: str, rng: random.Random) -> bytes:
    return _dumped(_in_structure(json.loads(text), rng))


def _json_lines(text: str, rng: random.Random) -> bytes:
    lines = text.splitlines()
    chosen = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind == 0:
        del lines[chosen]
    elif kind == 1:
        lines.insert(chosen, rng.choice(lines))
    else:
        lines[chosen] = _json(lines[chosen], rng).decode("utf-8", "surrogatepass")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _yaml(text: str, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return _lines(text, rng)
    content = _in_structure(yaml.safe_load(text), rng)
    return (
        _dumped(content) if rng.random() < 0.5 else _expanded(yaml.safe_dump(content)).encode("utf-8", "surrogatepass")
    )


def _dumped(content: Any) -> bytes:
    return _expanded(json.dumps(content)).encode("utf-8", "surrogatepass")


def _expanded(text: str) -> str:
    depth = 70 if len(text) % 2 else 100_000
    for mark, value in ((_DEEP, "[" * depth + "]" * depth), (_WHOLE, "9" * 5_000)):
        text = text.replace(f'"{mark}"', value).replace(f"'{mark}'", value)
    return text


def _places(content: Any) -> Iterator[tuple[Any, Any, str]]:
    """Every container with each of its keys, and the path of that key with lists as one place."""
    waiting = [(content, "")]
    while waiting:
        one, path = waiting.pop()
        keys = list(one) if isinstance(one, dict) else list(range(len(one))) if isinstance(one, list) else []
        for key in keys:
            where = f"{path}.{key}" if isinstance(one, dict) else f"{path}[]"
            yield one, key, where
            waiting.append((one[key], where))


def _in_structure(content: Any, rng: random.Random) -> Any:
    by_path: dict[str, list[tuple[Any, Any]]] = {}
    for one, key, path in _places(content):
        by_path.setdefault(path, []).append((one, key))
    if not by_path or rng.random() < 0.02:
        return rng.choice(VALUES)
    # Tables have most of the places, and each key of a document is one: all of them get the same number of faults.
    one, key = rng.choice(by_path[rng.choice(list(by_path))])
    kind = rng.randrange(10)
    if kind < 5:
        one[key] = rng.choice(VALUES)
    elif kind == 5:
        del one[key]
    elif kind == 6:
        other, where = rng.choice(by_path[rng.choice(list(by_path))])
        one[key], other[where] = other[where], one[key]
    elif kind == 7:
        one[key] = rng.choice(([one[key]], {"a": one[key]}, str(one[key])[:1000], [one[key]] * 3))
    elif kind == 8 and isinstance(one, dict):
        new = rng.choice((f"{key}x", "", "x" * 3_000, "\ud800", "melange", rng.choice(list(one)), "\x1b[2J", "unknown"))
        one[new] = one.pop(key)
    elif isinstance(one[key], int | float) and not isinstance(one[key], bool):
        one[key] = one[key] * rng.choice((-1, 0, 10, 1e3, 1e6, 1e12, 1e-3, 1e-6, 1.5))
    elif isinstance(one[key], list):
        one[key] = rng.choice((one[key][:-1], one[key] + one[key][:1], one[key] * 3, one[key][::-1]))
    else:
        one[key] = rng.choice(VALUES)
    return content


def _cell(rng: random.Random) -> str:
    value = rng.choice(VALUES)
    return _expanded(f'"{value}"').strip('"') if value in (_DEEP, _WHOLE) else str(value)


def _table(text: str, rng: random.Random) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    row, kind = rng.randrange(len(rows)), rng.randrange(9)
    column = rng.randrange(len(rows[row]))
    if kind < 4:
        rows[row][column] = _cell(rng)
    elif kind == 4:
        del rows[row][column]
    elif kind == 5:
        rows[row].insert(column, _cell(rng))
    elif kind == 6:
        rows.insert(row, rng.choice(rows))
    elif kind == 7:
        del rows[row]
    else:
        value = _cell(rng)
        for one in rows[1:]:
            if column < len(one):
                one[column] = value
    stream = io.StringIO()
    csv.writer(stream, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _pairs(text: str, rng: random.Random) -> bytes:
    """Lines of ``name=value``, as flags and settings are given."""
    if rng.random() < 0.2:
        return _lines(text, rng)
    lines = text.split("\n")
    chosen = rng.randrange(len(lines))
    name, _, value = lines[chosen].partition("=")
    value = rng.choice((_cell(rng), _cell(rng), f"{value}{value}", f"[{value}]", f"{{a: {value}}}", f"{value},{value}"))
    # A flag is a line here: a value with line ends would be several.
    lines[chosen] = f"{name}={value}".replace("\n", " ")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _lines(text: str, rng: random.Random) -> bytes:
    lines = text.split("\n")
    chosen = rng.randrange(len(lines))
    words = lines[chosen].split(" ")
    kind = rng.randrange(5)
    if kind == 0:
        del lines[chosen]
    elif kind == 1:
        lines.insert(chosen, rng.choice(lines))
    elif kind == 2:
        other = rng.randrange(len(lines))
        lines[chosen], lines[other] = lines[other], lines[chosen]
    else:
        words[rng.randrange(len(words))] = _cell(rng)
        lines[chosen] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")
