"""Files, names, links and places of imports are as the documents say."""

import ast
import re
from collections.abc import Iterator, Mapping

import melange
from documents import PACKAGE, PAGES, ROOT, blocks, code, everywhere, page, project, prose, spans

Modules = Mapping[str, ast.Module]

# Words of the documents that the code puts together from parts.
COMPOSED = {
    "ttft_seconds",
    "tpot_seconds",
    "latency_seconds",
    "t_moe_layer",
    "t_latent_layer",
    "t_quantize_layer",
}
# The only places where a library is imported.
HOMES = {
    "highspy": ("plan/milp/highs.py",),
    "ibis": ("workload/",),
    "duckdb": ("workload/",),
    "pydantic": ("service/", "serve/", "ui/", "deploy/target.py"),
    "fastapi": ("serve/api.py", "serve/guard.py", "serve/mcp_http.py", "ui/page_server.py", "ui/visitors.py"),
    "uvicorn": ("cli/mcp.py", "cli/serve.py", "cli/ui.py"),
    "mcp": ("serve/mcp_server.py", "serve/mcp_http.py"),
    "mcp_types": ("serve/mcp_server.py",),
    "typer": ("cli/",),
    "rich": ("cli/", "present/terminal/"),
    "plotly": ("present/",),
    "kaleido": ("present/figures/",),
    "numba": ("replica/simulated/",),
    "llvmlite": ("replica/simulated/",),
    "ray": ("processes.py",),
    "aiohttp": ("measure/",),
    "httptools": ("deploy/live/receive.py", "deploy/live/link.py"),
    "uvloop": ("deploy/live/serve.py",),
    "aiohappyeyeballs": ("deploy/live/links.py",),
    "aiconfigurator_core": ("profile/",),
}


def paths_in(text: str) -> Iterator[str]:
    """What looks like a file or folder of the repository in the prose of a page."""
    for span in spans(text):
        yield from re.findall(r"(?<![\w/.:-])[\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml|csv|json|yaml|lp|out)\b", span)
        yield from re.findall(r"(?<![\w/.:-])(?:src|docs|bench|tests|examples)/[\w./-]*", span)
        yield from re.findall(r"^[\w-]+(?:/[\w-]+)*/$", span)


def test_every_file_that_a_document_names_exists() -> None:
    """As seen from the root or from the package."""
    named = everywhere(paths_in)
    assert len(named) > 60
    assert [(at, path) for at, path in named if not any((root / path).exists() for root in (ROOT, PACKAGE))] == []


def test_every_page_and_script_that_the_code_names_exists() -> None:
    """Comments and docstrings point to what is there."""
    named = set(re.findall(r"(?<![\w/.-])(?:bench|docs|examples)/[\w/-]+\.(?:py|md|yaml|json)\b", code()))
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_name_of_code_that_a_document_gives_exists() -> None:
    """Words in backticks with underscores or capitals inside are names, and some code or table has them."""
    known = set(re.findall(r"\w+", code())) | COMPOSED
    looks_like_code = re.compile(r"[a-z]+(_[a-z0-9]+)+|[A-Z]\w*[a-z]\w*[A-Z]\w*|[A-Z]+(_[A-Z]+)+")
    named = [(at, span) for at, span in everywhere(spans) if looks_like_code.fullmatch(span)]
    assert len(named) > 100
    assert [(at, name) for at, name in named if name.removeprefix("melange_") not in known] == []


def test_every_dotted_name_resolves(modules: Modules) -> None:
    """Those of the documents, and those by which docstrings refer to each other."""
    named = [name for _, span in everywhere(spans) for name in re.findall(r"\bmelange(?:\.[A-Za-z_]\w*)+", span)]
    named += re.findall(r":\w+:`~?(melange(?:\.\w+)+)`", code())
    assert len(named) > 30
    assert sorted({name for name in named if not resolves(name, modules)}) == []


def resolves(dotted: str, modules: Modules) -> bool:
    """Whether ``melange.x.y`` is a folder, a module, or what one defines at its top or in a class there."""
    parts = dotted.split(".")[1:]
    if (PACKAGE / "/".join(parts)).is_dir() or parts[0] in melange.__all__:
        return True
    for end in range(len(parts), 0, -1):
        tree = modules.get("/".join(parts[:end]) + ".py")
        if tree is not None:
            return end == len(parts) or parts[end] in defined(tree)
    return False


def defined(tree: ast.Module) -> set[str]:
    """What a module defines at its top."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = {one.id for node in assigned for one in ast.walk(node) if isinstance(one, ast.Name)}
    return targets | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    """To a file, and to a heading in it where the link names one."""
    dead = []
    for path in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(path.read_text())):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
                dead.append((path.name, link))
    assert dead == []


def anchors(text: str) -> set[str]:
    """What links to the headings of a page end in, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_lists_every_page() -> None:
    """A page that nothing points to is read by nobody."""
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", page("docs/index.md")))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_every_target_and_extra_that_a_document_names_exists() -> None:
    """``make test-engine`` can be made, and ``pip install '.[live]'`` works."""
    text = "\n".join(path.read_text() for path in PAGES)
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= set(project()["project"]["optional-dependencies"])


def test_libraries_are_imported_where_the_documents_say(modules: Modules) -> None:
    """One file knows HiGHS; only pictures know Plotly, logs Ibis, the command line Typer."""
    astray = [
        (path, library)
        for path, tree in modules.items()
        for library in imports(tree) & set(HOMES)
        if not path.startswith(HOMES[library])
    ]
    assert astray == []


def imports(tree: ast.Module) -> set[str]:
    """The packages that a module imports from."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_the_floors_of_the_architecture_are_those_of_the_contract() -> None:
    """The page names every floor that import-linter knows, in an order that it keeps to."""
    layers = project()["tool"]["importlinter"]["contracts"][0]["layers"]
    floor = {name: -level for level, layer in enumerate(layers) for name in re.findall(r"melange\.(\w+)", layer)}
    drawn = next(block for block in blocks(page("docs/architecture.md"), "", "text") if " < " in block)
    levels = [re.findall(r"\w+", level) for level in drawn.split("<")]
    assert {name for level in levels for name in level} == set(floor)
    order = [floor[name] for level in levels for name in sorted(level, key=floor.__getitem__)]
    assert order == sorted(order)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """Once, in mkdocs.yml, beside the pages that docs/make_site.py writes."""
    named = re.findall(r"^ +- [^\n]*: ([\w/-]+\.md)$", page("mkdocs.yml"), re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert set(named) == pages | {"python.md", "examples.md", "changelog.md"}
