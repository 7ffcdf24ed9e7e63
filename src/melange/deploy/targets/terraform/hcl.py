"""HCL from data structures, so that text from a plan is always a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Expression:
    """Text that is code and not a value, such as ``var.region``; never text from a plan.

    Parameters
    ----------
    code
        The text.
    """

    code: str


@dataclass(frozen=True, slots=True)
class Block:
    """A block: ``kind "label" "label" { ... }``.

    Parameters
    ----------
    kind
        An identifier.
    labels
        Labels, which are quoted.
    body
        Attributes by name; a block or a list of blocks is nested, whatever its key.
    """

    kind: str
    labels: tuple[str, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)


def hcl_text(blocks: Iterable[Block]) -> str:
    r"""Blocks with an empty line between them, formatted as ``terraform fmt`` does.

    >>> print(hcl_text([Block("variable", ("zone",), {"type": Expression("string"), "default": "${a}"})]), end="")
    variable "zone" {
      type    = string
      default = "\u0024{a}"
    }
    """
    return "\n".join("\n".join(_block(one, "")) + "\n" for one in blocks)


def identifier(text: str) -> str:
    """A valid HCL name made from any text; different texts may give the same name.

    >>> identifier("us-east-1"), identifier("1x")
    ('us-east-1', '_1x')
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "_"
    return plain if _IDENTIFIER.fullmatch(plain) else f"_{plain}"


def quoted(text: str) -> str:
    """A text as a literal: quotes and templates in it have no effect."""
    escaped = "".join(
        _ESCAPES.get(c, c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
        for c in text
    )
    # Templates are parsed before escapes are decoded, so an escaped first character starts none. $${ means the same,
    # but python-hcl2 does not read it everywhere.
    return '"' + escaped.replace("${", r"\u0024{").replace("%{", r"\u0025{") + '"'


def _block(block: Block, indent: str) -> list[str]:
    if not _IDENTIFIER.fullmatch(block.kind):
        raise ValueError(f"a block's kind must be an identifier, got {block.kind!r}")
    head = " ".join([block.kind, *map(quoted, block.labels), "{"])
    inner = f"{indent}  "
    lines = [f"{indent}{head}"]
    attributes = [(key, value) for key, value in block.body.items() if not _nested(value)]
    lines += _attributes(attributes, inner)
    for value in block.body.values():
        for nested in _nested(value):
            lines += ["", *_block(nested, inner)] if len(lines) > 1 else _block(nested, inner)
    return [*lines, f"{indent}}}"]


def _nested(value: Any) -> Sequence[Block]:
    if isinstance(value, Block):
        return [value]
    return value if isinstance(value, list) and value and isinstance(value[0], Block) else []


def _attributes(pairs: Sequence[tuple[str, Any]], indent: str) -> list[str]:
    """Attributes; equals signs of consecutive one-line attributes are aligned."""
    texts = [(key, _value(value, indent)) for key, value in pairs]
    lines: list[str] = []
    run: list[tuple[str, str]] = []
    for key, text in [*texts, ("", "\n")]:
        if "\n" not in text:
            run.append((key, text))
            continue
        width = max((len(one) for one, _ in run), default=0)
        lines += [f"{indent}{one:<{width}} = {value}" for one, value in run]
        run = []
        if key:
            lines.append(f"{indent}{key} = {text}")
    return lines


def _value(value: Any, indent: str) -> str:
    if isinstance(value, Expression):
        return value.code
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        pairs = [(key if _IDENTIFIER.fullmatch(key) else quoted(key), one) for key, one in value.items()]
        return "\n".join(["{", *_attributes(pairs, f"{indent}  "), f"{indent}}}"])
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(one, indent) for one in value)}]"
    raise TypeError(f"{type(value).__name__} is not a value in HCL")
