"""The folder of measurements that scripts are given; without it they do nothing."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser of a script's command line, with the folder of measurements as its first argument."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    return parser


def is_missing(folder: Path) -> bool:
    """Whether there is no such folder; says so."""
    if folder.is_dir():
        return False
    print(f"skipped: no folder {folder}")
    return True
