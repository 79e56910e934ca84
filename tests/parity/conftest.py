"""Which reference cases are run: `pytest tests/parity --cases DIR --families vit,dino`."""

import json
from pathlib import Path

REFERENCE = Path(__file__).parent.parent / "reference"


def pytest_addoption(parser):
    parser.addoption("--cases", default=str(REFERENCE), help="folder of reference cases")
    parser.addoption("--families", default="", help="families to run, with commas; all if not given")


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--cases")).absolute()
    wanted = [family for family in metafunc.config.getoption("--families").split(",") if family]
    paths = sorted(folder.glob("*.json"))
    assert paths, f"no cases in {folder}"
    cases = [path.with_suffix("") for path in paths if _of(path, wanted, folder == REFERENCE)]
    metafunc.parametrize("case", cases, ids=lambda path: path.name)


def _of(path, wanted, ours):
    """Whether a case is to be run; of our own folder, what other tests use (`aux`, `metric`, timm's tags) is not."""
    about = json.loads(path.read_text())
    family = about.get("family") if isinstance(about, dict) else None
    if wanted:
        return family in wanted
    return not ours or (family not in (None, "aux", "metric"))
