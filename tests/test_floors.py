"""Modules import only from floors below their own; flax stays in models; what must be instant imports no jax."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vit_jax.models.families import families

PACKAGE = Path(__file__).parent.parent / "vit_jax"
FLOORS = {
    "errors": 0,
    "version": 1,
    "absent_tpu": 1,
    "allocation": 1,
    "onednn": 1,
    "compiler_options": 2,
    "trees": 1,
    "paths": 1,
    "random": 1,
    "processes": 1,
    "models": 2,
    "checkpoints": 2,
    "data": 2,
    "evaluation.metrics": 2,  # which objectives name
    "weights": 3,
    "objectives": 4,
    "evaluation": 5,
    "training": 6,
    "inference": 7,
    "planning": 7,
    "commands": 8,
    "cli": 9,
    "": 9,  # vit_jax/__init__.py
}
JAX_FREE = (
    "vit_jax",
    "vit_jax.cli",
    "vit_jax.errors",
    "vit_jax.models.vit.config",
    "vit_jax.models.preprocessing",
    "vit_jax.models.names.resolve",
    "vit_jax.models.flops",
    "vit_jax.objectives.options",
    "vit_jax.objectives.outputs.classes",
    "vit_jax.training.config.load",
    "vit_jax.training.devices.distributed",
    "vit_jax.training.config.durations",
    "vit_jax.training.guard.supervisor",
    "vit_jax.training.guard.watchdog",
)


def part(module: str) -> str:
    """The part of the package a module belongs to: `models` of `vit_jax.models.vit.model`."""
    names = module.split(".")[1:]
    return next((two for two in (".".join(names[:2]),) if two in FLOORS), names[0] if names else "")


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in the file; names imported from vit_jax itself included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "vit_jax" else [module]
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    relative = path.relative_to(PACKAGE).with_suffix("")
    own = part(".".join(("vit_jax", *(name for name in relative.parts if name != "__init__"))))
    for module in imports(path):
        if module.split(".")[0] != "vit_jax":
            continue
        other = part(module)
        same = other == own
        assert same or FLOORS[other] < FLOORS[own], f"{relative} (floor {FLOORS[own]}) imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_flax_lives_in_models_and_jax_above_the_data(path):
    relative = path.relative_to(PACKAGE)
    roots = {module.split(".")[0] for module in imports(path)}
    if relative.parts[0] != "models":
        assert "flax" not in roots
    if relative.parts[0] == "data":
        assert "jax" not in roots


@pytest.mark.parametrize("module", JAX_FREE)
def test_instant_modules_import_no_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_floors_cover_the_package():
    parts = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES} - {"__init__"}
    assert parts == {name.partition(".")[0] for name in FLOORS} - {""}


def imported_at_once(nodes):
    """What is imported when a module is: not in functions, and not for type checkers alone."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imported_at_once(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported_at_once(ast.iter_child_nodes(node))


def circle(graph):
    """One circle in a graph, as a list of its nodes; empty if there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node) :]
        if node not in done:
            path.append(node)
            for other in graph[node]:
                if found := visit(other):
                    return found
            done.add(path.pop())
        return []

    return next(filter(None, map(visit, graph)), [])


def test_no_module_imports_itself_by_way_of_others():
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {
        name: sorted({*imported_at_once(ast.parse(path.read_text()).body)} & names.keys() - {name})
        for name, path in names.items()
    }
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c"]
    assert not (found := circle(graph)), " -> ".join(found)


def test_no_folder_has_more_than_sixteen_files():
    counts = Counter(str(path.parent.relative_to(PACKAGE.parent)) for path in FILES)
    assert not {folder: count for folder, count in counts.items() if count > 16}


def asked_kinds(path):
    """The names of classes that a file asks `isinstance` about, or compares types with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                yield from (name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name))
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(s, ast.Call) and getattr(s.func, "id", "") == "type" for s in sides):
                yield from (side.id for side in sides if isinstance(side, ast.Name))


def test_nothing_above_models_and_layouts_asks_which_family_a_configuration_is_of():
    kinds = {family.config.__name__ for family in families()}
    assert kinds >= {
        "ViTConfig",
        "MaeConfig",
        "TextConfig",
        "ImageTextConfig",
        "DinoHeadConfig",
        "UperNetConfig",
    }
    assert "MaeConfig" in asked_kinds(PACKAGE / "weights/layouts/transformers/layout.py")
    for path in FILES:
        relative = str(path.relative_to(PACKAGE))
        if not relative.startswith(("models/", "weights/layouts/")):
            asked = kinds.intersection(asked_kinds(path))
            assert not asked, f"{relative} asks whether a configuration is a {asked}; ask its family"


def test_layers_know_no_family():
    folders = {family.config.__module__.rpartition(".")[0] for family in families()}
    assert folders >= {"vit_jax.models.vit", "vit_jax.models.swin", "vit_jax.models.heads.upernet"}
    for path in FILES:
        if path.is_relative_to(PACKAGE / "models/layers"):
            known = {
                module for module in imports(path) if any(f"{module}.".startswith(f"{f}.") for f in folders)
            }
            assert not known, f"{path.relative_to(PACKAGE)} imports {known}"
