"""The layer rules of CONTRIBUTING.md, enforced: who may import whom, where each library lives, no import cycles.

Also prints, without failing, functions over 60 lines and files over 500.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rsp_hpc"
ANYONE = {"config", "errors", "log"}
MAY_IMPORT = {
    "products": set(), "kernels": set(), "parallel": set(), "simulate": {"products"},
    "algorithms": {"products", "kernels"}, "io": {"products"}, "report": {"products", "io"},
    "stages": {"products", "algorithms", "io", "parallel", "simulate", "report"},
    "cli": {"stages", "io", "parallel"},
    "config": set(), "errors": set(), "log": set(), "__init__": set(), "__main__": {"cli"},
}
HOME = {"mpi4py": "parallel/mpi.py", "h5py": "io/", "fitsio": "io/", "astropy.io": "io/", "blosc2": "io/", "pyarrow": "io/",
        "sqlite3": "io/", "cffi": "kernels/", "matplotlib": "report/", "jinja2": "report/", "click": "cli.py"}


def imports(tree: ast.AST, module: str) -> set[str]:
    """Absolute names of everything a module imports, lazily or not; `module` is its dotted name."""
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.add(stem)
            found.update(f"{stem}.{alias.name}" for alias in node.names)
    return found


def modules(root: Path) -> dict[str, ast.AST]:
    """Dotted name -> syntax tree of every module of the package (of the package itself: its name + '.__init__')."""
    return {".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
            for path in sorted((root / PACKAGE).rglob("*.py"))}


def layer(name: str) -> str:
    """'rsp_hpc.io.fits' -> 'io'."""
    return (name.split(".") + ["__init__"])[1]


def layer_faults(trees: dict[str, ast.AST]) -> list[str]:
    faults = []
    for module, tree in trees.items():
        own = layer(module)
        if own not in MAY_IMPORT:
            faults.append(f"{module}: layer {own} is not in the table")
            continue
        for name in imports(tree, module):
            if name.startswith(PACKAGE + ".") and layer(name) not in MAY_IMPORT[own] | ANYONE | {own, "__init__", "__version__"}:
                faults.append(f"{module} imports {name}: {own} may not import {layer(name)}")
            path = "/".join(module.split(".")[1:]) + ".py"
            faults += [f"{module} imports {name}: only {home} may" for library, home in HOME.items()
                       if (name == library or name.startswith(library + ".")) and not path.startswith(home)]
    return faults


def cycles(trees: dict[str, ast.AST]) -> list[str]:
    """Import cycles among the modules, ignoring imports inside functions (those are deliberate and lazy)."""
    graph = {}
    for module, tree in trees.items():
        top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.Try, ast.If))], [])
        graph[module] = {name for name in imports(top, module) if name in trees and name != module}
    found, done = [], set()

    def visit(module, path):
        if module in path:
            found.append(" -> ".join(path[path.index(module):] + [module]))
        elif module not in done:
            for name in sorted(graph[module]):
                visit(name, path + [module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return found


def test_layers():
    assert layer_faults(modules(ROOT)) == []


def test_no_cycles():
    assert cycles(modules(ROOT)) == []


@pytest.mark.parametrize("place, line, words", [
    ("algorithms/planted.py", "import mpi4py", "only parallel/mpi.py may"),
    ("algorithms/planted.py", "from ..io import fits", "may not import io"),
    ("algorithms/planted.py", "def f():\n    import h5py", "only io/ may"),
    ("stages/planted.py", "import cffi", "only kernels/ may"),
    ("report/planted.py", "from astropy.io import fits", "only io/ may"),
    ("products/planted.py", "from rsp_hpc.kernels import call", "may not import kernels"),
    ("planted/planted.py", "", "is not in the table"),
])
def test_a_planted_fault_is_found(tmp_path, place, line, words):
    path = tmp_path / PACKAGE / place
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert any(words in fault for fault in layer_faults(modules(tmp_path)))


def test_a_planted_cycle_is_found(tmp_path):
    folder = tmp_path / PACKAGE / "products"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from .b import x")
    (folder / "b.py").write_text("from .a import y")
    assert cycles(modules(tmp_path)) != []


def test_sizes_are_printed(capsys):
    """Functions over 60 lines (less the docstring) and files over 500: printed, to be explained or split."""
    long = []
    for module, tree in modules(ROOT).items():
        lines = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text().count("\n")
        long += [f"{module}: {lines} lines"] if lines > 500 else []
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = node.end_lineno - node.body[bool(ast.get_docstring(node)) and len(node.body) > 1].lineno + 1
                long += [f"{module}.{node.name}: {size} lines"] if size > 60 else []
    for path in sorted((ROOT / "csrc").glob("*.[ch]")):
        lines = path.read_text().count("\n")
        long += [f"csrc/{path.name}: {lines} lines"] if lines > 500 else []
    with capsys.disabled():
        print("\nover 60 lines a function or 500 a file:", *(long or ["none"]), sep="\n  ")
