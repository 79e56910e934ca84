"""Modules import only from floors below their own; flax stays in models; what must be instant imports no jax."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vit_jax"
FLOORS = {
    "errors": 0,
    "version": 1,
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
    "objectives": 3,
    "weights": 3,
    "evaluation": 4,
    "training": 5,
    "inference": 6,
    "planning": 6,
    "commands": 7,
    "cli": 8,
    "": 8,  # vit_jax/__init__.py
}
JAX_FREE = (
    "vit_jax",
    "vit_jax.cli",
    "vit_jax.errors",
    "vit_jax.models.vit_config",
    "vit_jax.models.preprocessing",
    "vit_jax.models.names",
    "vit_jax.models.flops",
    "vit_jax.objectives.options",
    "vit_jax.training.config",
    "vit_jax.training.distributed",
    "vit_jax.training.durations",
    "vit_jax.training.supervisor",
    "vit_jax.training.watchdog",
)


def part(module: str) -> str:
    """The part of the package a module belongs to: `models` of `vit_jax.models.vit`."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


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
    own = relative.parts[0] if relative.parts != ("__init__",) else ""
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
    assert parts == set(FLOORS) - {""}
