"""What the documents show runs, and lists what there is."""

import contextlib
import dataclasses
import glob
import io
import itertools
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from typing import Any, get_type_hints

import jax
import pytest

import vit_jax
from tests import stage
from tests.runs import run
from vit_jax import cli
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.model import CAPTURES
from vit_jax.training.config import load_config
from vit_jax.weights.remote import hub

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.M | re.S)
# What stands on a page for data, machines or services that are not here: such a command is read and its configuration
# loaded, with every override, but not run.
ELSEWHERE = re.compile(r"ARCHIVES|DATA|wandb|v5e|\$|/mnt/|^plan |--sweep")


# The same calls with smaller models and fewer steps: this is about whether they run.
SMALLER = {
    '"vit_tiny_patch16_224", epochs=30': '"vit_mu_patch4_8", epochs=2',
    "benchmark vit_small_patch16_224": "benchmark vit_mu_patch4_8 --seconds 0.1",
    "random_resized_crop(224)": "random_resized_crop(32)",
    # Fitting linear classifiers takes minutes where programs are compiled without optimisation, as in these tests.
    "knn,linear,rank": "knn,rank",
    "('knn', 'linear:10 epochs', 'rank')": "('knn', 'rank:10 epochs')",
    "duration=500": "duration=6",
    "duration=40": "duration=12",
    "duration=60": "duration=18",
    "evaluation.every=20": "evaluation.every=6",
    "checkpoint.every=20": "checkpoint.every=6",
}


def commands(text):
    """The `vit-jax` commands of a block of shell, as words."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        said = re.search(r"(?:^|&& )\s*(?:JAX_PLATFORMS=cpu |srun \S+ )?(?:\.venv/bin/)?vit-jax (.*)", line)
        if said:
            command = said[1].rstrip("& ")
            inner = command.count('"') % 2 == 1  # the command itself is a quoted argument of another
            found.append(shlex.split(command.removesuffix('"') if inner else command, comments=True))
    return found


def blocks(page):
    """The blocks of a page in order, but for those that need more than is here or are pieces of a file."""
    text = re.sub(r"<!-- (?:needs|from) [^>]*-->\n```\w+\n.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return BLOCK.findall(text)


@pytest.fixture(scope="module")
def staged(compile_cache, tmp_path_factory):
    """A folder with what the pages ask for."""
    folder = tmp_path_factory.mktemp("staged")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "snapshot", lambda name, *_, **__: folder / "hub" / name)
        stage.set_up(folder)
        yield folder


@pytest.fixture
def here(staged, tmp_path, monkeypatch):
    """The folder that a page's commands run in, one after the other."""
    shutil.copytree(staged, tmp_path / "docs")
    monkeypatch.chdir(tmp_path / "docs")


def try_command(words):
    """Run a command, or read it and load its configuration where what it needs is elsewhere."""
    if ELSEWHERE.search(" ".join(words)):
        words = [re.sub(r"\$\w+", "0", word) for word in words]
        parsed, rest = cli._parser().parse_known_args(words)
        overrides = cli._overrides(rest, words[0])
        if getattr(parsed, "config", None):
            load_config(str(ROOT / parsed.config), overrides)
        return
    found = [sorted(glob.glob(word)) if "/*" in word else [word] for word in words]
    outcome = run(*itertools.chain(*found))
    assert outcome.status == 0, (words, outcome.err[-2000:])


def test_commands_are_found():
    assert commands(".venv/bin/vit-jax train --config x.py \\\n  --workdir y  # said\n") == [
        ["train", "--config", "x.py", "--workdir", "y"]
    ]
    assert commands('ssh "cd x && vit-jax data check y"\n') == [["data", "check", "y"]]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_page(page, here):
    """Commands and blocks of Python run in the order of the page, each after those before."""
    namespace, out = {"__name__": "docs"}, io.StringIO()
    for kind, text in blocks(page):
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        if kind == "bash":
            for words in commands(text):
                try_command(words)
            continue
        with (
            contextlib.redirect_stdout(out),
            jax.numpy_dtype_promotion("standard"),
        ):  # as everywhere but in tests
            exec(compile(text, str(page), "exec"), namespace)
    said = out.getvalue()
    if page.stem == "train":
        assert "stopped early: {'by': 'callback', 'reason': 'good enough'}" in said
    if page.stem == "python":
        assert float(re.search(r"^loss \S+ accuracy (\S+)$", said, re.M)[1]) > 0.9
    if page.stem == "models":
        assert said.endswith("(1, 2, 17, 17)\n")


def test_links_and_files_are_there():
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", BLOCK.sub("", text)):
            assert (page.parent / target).exists(), (page.name, target)
        for named in re.findall(
            r"`((?:benchmarks|configs|colabs|tests|vit_jax|docs)/[a-z\d_/.]+\.\w+)", text
        ):
            assert (ROOT / named).exists(), (page.name, named)


def test_pieces_of_files_are_as_they_are_there():
    pieces = [
        (name, text)
        for page in PAGES
        for name, text in re.findall(
            r"<!-- from (\S+) -->\n```\w+\n(.*?)^```$", page.read_text(), re.M | re.S
        )
    ]
    assert len(pieces) >= 9
    for name, text in pieces:
        # Of a file, or of a class in it; empty lines are the formatter's.
        there, text = (re.sub(r"\n\n+", "\n", code) for code in ((ROOT / name).read_text(), text))
        assert text in there or textwrap.indent(text, "    ") in there, (name, text)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("config", [ViTConfig, Preprocessing])
def test_every_option_of_a_model_is_listed(config):
    rows = {}
    for names, defaults in re.findall(
        r"^\| (`.*?`) \| (`.*?`) \|", (ROOT / "docs" / "models.md").read_text(), re.M
    ):
        rows |= dict(zip(re.findall(r"`(.*?)`", names), re.findall(r"`(.*?)`", defaults)))
    for field in dataclasses.fields(config):
        assert rows.get(field.name) == repr(field.default), field.name


def test_everything_that_can_be_captured_is_listed():
    text = (ROOT / "docs" / "models.md").read_text().split("## What can be captured")[1]
    assert set(CAPTURES) <= set(re.findall(r"`(\w+)`", text))


def test_public_functions_say_what_they_return():
    for name in (
        "create_model",
        "load",
        "train",
        "preprocessing",
        "evaluate",
        "list_models",
        "save",
    ):
        assert get_type_hints(getattr(vit_jax, name))["return"] is not Any, name
    assert get_type_hints(vit_jax.Classifier.fit)["return"] is vit_jax.Classifier
    assert (Path(vit_jax.__file__).parent / "py.typed").is_file()  # so that checkers and editors look
