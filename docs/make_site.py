"""Build the documentation site in build/site, from pages that are written into build/pages: ``make docs-site``.

The pages of docs/ as they are, with links that leave the folder turned to pages of the site; and three pages that are
written here: the changelog, the examples with their files, and the Python reference, one entry a public name.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import melange

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".out": "text"}
# Rows of generated or recorded data are not shown whole.
MOST_LINES = 120
# Pages that take the place of files outside of docs/.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
# What lets the search work in files is fetched by the theme; ours takes its place.
SHIM = 'src="https://unpkg.com/iframe-worker/shim"'
LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)")


def examples() -> list[Path]:
    """The example files that are shown: those at the top, and those of the small folders."""
    folder = ROOT / "examples"
    shown = [*folder.glob("*"), *(folder / "week").glob("*"), *(folder / "cost-gate").glob("*")]
    return sorted(path for path in shown if path.suffix in LANGUAGES)


def slug(title: str) -> str:
    """The anchor of a heading that is a file's name."""
    return re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-")


def examples_page() -> str:
    """One section a file, below one for each folder."""
    parts = ["# Examples\n\nThe files of `examples/`. Each script's output is stored beside it and tested.\n"]
    folder = None
    for path in examples():
        name = path.relative_to(ROOT / "examples").as_posix()
        if path.parent.name != "examples" and path.parent != folder:
            folder = path.parent
            parts.append(f"## {folder.name}\n")
        lines = path.read_text().splitlines()
        more = f"\n... {len(lines) - MOST_LINES:,} more lines" if len(lines) > MOST_LINES else ""
        text = "\n".join(lines[:MOST_LINES]) + more
        level = "##" if path.parent.name == "examples" else "###"
        parts.append(f"{level} {name}\n\n```{LANGUAGES[path.suffix]}\n{text}\n```\n")
    return "\n".join(parts)


def python_page() -> str:
    """The public names, in the order of the stages that they belong to."""
    stages = ("slo", "workload", "catalog", "profile", "plan", "validate", "deploy", "service", "errors")
    module = {name: getattr(melange, name).__module__ for name in melange.__all__}
    parts = ["# Python\n\nThe public names of `import melange`, by stage. Fields with units: [glossary](glossary.md)\n"]
    for stage in stages:
        names = sorted(name for name in module if module[name].split(".")[1] == stage)
        parts.append(f"## {stage.upper() if stage == 'slo' else stage.capitalize()}\n")
        parts += [f"::: {module[name]}.{name}\n" for name in names]
    missing = {name for name in module if module[name].split(".")[1] not in stages}
    if missing:
        raise SystemExit(f"docs/make_site.py: no stage for {', '.join(sorted(missing))}")
    return "\n".join(parts)


def linked(text: str, page: Path) -> str:
    """A page whose links lead to pages of the site: ``page`` is the file that the text was read from."""

    def turned(found: re.Match[str]) -> str:
        target = (page.parent / found["target"]).resolve()
        if target.is_relative_to(ROOT / "docs") or not target.exists():
            return found[0] if page.is_relative_to(ROOT / "docs") else f"]({target.relative_to(ROOT / 'docs')})"
        up = "../" * (len(page.relative_to(ROOT).parts) - 2)
        name = target.relative_to(ROOT).as_posix()
        if name in PAGES:
            return f"]({up}{PAGES[name]}{found['anchor'] or ''})"
        if name.startswith("examples/"):
            return f"]({up}examples.md#{slug(name.removeprefix('examples/'))})"
        raise SystemExit(f"{page.relative_to(ROOT)}: {found['target']} has no page on the site")

    return LINK.sub(turned, text)


def write(folder: Path) -> None:
    """Write all pages into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        target = folder / page.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(linked(page.read_text(), page))
    for picture in [*(ROOT / "docs").glob("*.svg"), *(ROOT / "docs").glob("*.png")]:
        shutil.copy(picture, folder)
    (folder / "changelog.md").write_text(linked((ROOT / "CHANGELOG.md").read_text(), ROOT / "CHANGELOG.md"))
    (folder / "examples.md").write_text(examples_page())
    (folder / "python.md").write_text(python_page())


def build(pages: Path, site: Path) -> None:
    """Build the site, strictly, and let it load nothing from elsewhere."""
    write(pages)
    zensical = Path(sys.executable).with_name("zensical")
    subprocess.run([zensical, "build", "--strict", "--clean"], cwd=ROOT, check=True)
    shutil.copy(ROOT / "docs" / "frame_worker.js", site / "assets" / "javascripts")
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        page.write_text(page.read_text().replace(SHIM, f'src="{up}assets/javascripts/frame_worker.js"'))


if __name__ == "__main__":
    build(ROOT / "build" / "pages", ROOT / "build" / "site")
