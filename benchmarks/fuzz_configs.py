"""Gives thousands of wrong configurations to the loader: each must be accepted or be refused with one line.

    python benchmarks/fuzz_configs.py --files 30000 --json fuzz.json

A third are single keys on the command line (misspelled keys, values of wrong types, out of range, extreme, hostile), a
third JSON files with something changed, a third configurations as they are stored in checkpoints. What is refused must
name the key where there is one. `every_case` gives every key with every kind of mistake; `--sample N` runs N of these
through the real command, whose slowest is reported.
"""

import copy
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzzing
from damaged_weights import VALUES

from vit_jax.data.transforms.spec import parse
from vit_jax.errors import VitError
from vit_jax.objectives.options import OBJECTIVES, options_of
from vit_jax.training.config import default_config, load_config, read_saved, to_json, validate
from vit_jax.training.config.overrides import settable

GOOD = ("loaded", "refused")
WRONG_TYPES = (
    "abc",
    "[]",
    "{}",
    "(1, 2",
    "b'x'",
    "0x10",
    "{1: 2}",
    "[1, 'a', None]",
    "('(',)",
    "(('a', -1),)",
    "true",
)
EXTREMES = (
    *(
        "-1",
        "0",
        "-0.5",
        "2",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e30",
        "9" * 30,
        "-" + "9" * 30,
        "9" * 400,
        "9" * 5000,
    ),
    *("200%", "-5 steps", "1e99 epochs", "3 parsecs", "(nan,)", "((-1, 1e999),)", "('a{99999999999}',)"),
)
HOSTILE = (
    *(
        "",
        "\x1b[31m",
        "a\nb",
        "\0",
        "\ud800",
        "‮",
        "__import__('os').system('x')",
        "(" * 3000,
        "[" * 3000,
        "x" * 100_000,
    ),
    *("../../etc/passwd", "https://example.org/x", "${HOME}", "%s%n", "None", "None.__class__"),
)


def every_key() -> Iterator[tuple[list[str], str, Any, dict[str, Any]]]:
    """Yield what must be set for a key to have a meaning, the key, its default, and what else may be set.

    The options of every objective are its own keys, even where another has one of the same name.
    """
    config = default_config()
    default_name = config.objective.name
    for name in OBJECTIVES:
        config.objective.name = name
        defaults = settable(config)
        own = {f"objective.{field.name}" for field in dataclasses.fields(options_of(name))}
        for key, default in defaults.items():
            elsewhere = key.startswith("objective.") and key != "objective.name"
            if key in own or (name == default_name and not elsewhere):
                yield [] if name == default_name else [f"objective.name={name}"], key, default, defaults


def every_case() -> Iterator[tuple[list[str], str, str, bool]]:
    """Yield what is set before, each key, or a misspelled one, with a value; and whether it must be refused."""
    for before, key, default, known in every_key():
        for position in {0, len(key) // 2, len(key) - 1}:
            typo = key[:position] + key[position + 1 :]
            if typo not in known and not any(name.startswith(f"{typo}.") for name in known):
                yield before, typo, "1", True
        free = isinstance(default, str)
        number = isinstance(default, int | float)
        for value in WRONG_TYPES:
            wrong = number and not isinstance(default, bool) and value not in ("0x10",) and not free
            yield before, key, value, wrong
        for value in (*EXTREMES, *HOSTILE):
            refused = ("nan", "inf", "-inf", "1e400", "9" * 400, "9" * 5000, *HOSTILE[:12])
            yield before, key, value, number and value in refused


def attempt(action: Any, key: str = "") -> str:
    """Return what loading comes to: `loaded`, `refused`, or what is wrong with how it failed."""
    try:
        action()
    except VitError as error:
        line = str(error)
        if not line.isprintable() or len(line) > 2100:
            return "more than a line"
        return "refused" if key.rpartition(".")[2][:60] in line else f"does not name {key}: {line[:100]}"
    except fuzzing.Slow:
        return "slow"
    except BaseException as error:
        return f"{type(error).__name__} {str(error)[:100]}"
    return "loaded"


def changed(document: Any, rng: random.Random) -> Any:
    """Return a document with a value changed, dropped, doubled in depth or called otherwise."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = document
        while isinstance(place, dict) and place:
            key = rng.choice(list(place))
            if not isinstance(place[key], dict) or rng.random() < 0.2:
                break
            place = place[key]
        if not isinstance(place, dict) or not place:
            continue
        key = rng.choice(list(place))
        match rng.randrange(6):
            case 0:
                del place[key]
            case 1:
                place[rng.choice((key + "x", "", "a.b", "__class__", "items", "_fields", "\n", "lock"))] = (
                    place.pop(key)
                )
            case 2:
                place[key] = {key: place[key]}
            case _:
                place[key] = rng.choice(
                    (*VALUES, {"a": {"b": 1}}, [{"source": "x"}], -5, 10**400, float("nan"))
                )
    return document


def work(first: int, last: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Make and load the configurations of a batch within the limits; return what each came to."""
    tally = fuzzing.Tally(GOOD, seed, keep)
    defaults, cases = json.loads(to_json(default_config())), list(every_case())
    parse("decode|resize(8)")  # imports what it needs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        # Sequences are parsed as Python literals, which compiles without executing.
        limits = fuzzing.Limits(allowed=("compile",))
        for limits.number in range(first, last):
            rng = random.Random(f"{seed}/{limits.number}")
            kind, content = ("override", "json", "saved")[limits.number % 3], b""
            if kind == "override":
                before, key, value, _ = rng.choice(cases)
                path.write_text("{}")
                content = f"{key}={value}".encode(errors="replace")
                overrides = [*before, f"{key}={value}"]
                with limits:
                    outcome = attempt(lambda overrides=overrides: load_config(str(path), overrides), key)
            else:
                document = changed(defaults, rng)
                text = json.dumps(document)
                if rng.random() < 0.3:
                    start = rng.randrange(len(text))
                    text = (
                        text[:start]
                        + rng.choice(("", "{", "]", '"', "9" * 5000, "[" * 5000, "\0"))
                        + text[start + 1 :]
                    )
                content = text.encode(errors="surrogatepass")
                path.write_bytes(content)
                with limits:
                    if kind == "json":
                        outcome = attempt(lambda: load_config(str(path)))
                    else:
                        outcome = attempt(lambda document=document: validate(read_saved(document)))
            if executed := limits.executed():
                outcome = f"executed {executed}"
            tally.add(limits.number, kind, "changed", outcome, content)
    return tally.result(limits)


def sample(count: int) -> int:
    """Run some of the cases through the real command; return 1 if one does anything but say one line in a second."""
    rng, wrong, slowest, total = random.Random(0), 0, 0.0, 0
    cases = [case for case in every_case() if case[3] and "\0" not in case[2] and "\ud800" not in case[2]]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text("{}")
        for given, key, value, _ in rng.sample(cases, count):
            overrides = [f"--config.{text}" for text in [*given, f"{key}={value}"]]
            command = [
                sys.executable,
                "-m",
                "vit_jax.cli",
                "train",
                "--config",
                str(config),
                "--workdir",
                f"{folder}/run",
            ]
            before = os.times()
            begun = time.monotonic()
            process = subprocess.run([*command, *overrides], capture_output=True, text=True, check=False)
            after = os.times()
            slowest = max(
                slowest,
                after.children_user + after.children_system - before.children_user - before.children_system,
            )
            total += time.monotonic() - begun
            line = process.stderr
            named = key.rpartition(".")[2][:60] in line
            if process.returncode != 2 or line.count("\n") != 1 or "Traceback" in line or not named:
                wrong += 1
                print(f"{key}={value[:40]!r}: status {process.returncode}, {line[-200:]!r}")
    print(
        f"{count} commands: {wrong} wrong; slowest {slowest:.2f} s of processor time, {total / count:.2f} s on average"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    if "--sample" in sys.argv:
        sys.exit(sample(int(sys.argv[sys.argv.index("--sample") + 1])))
    sys.exit(fuzzing.main(__doc__, __file__, work, GOOD, size=10_000))
