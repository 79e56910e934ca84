"""Services get the numbers of a run and its configuration, go on where it goes on, and never hold or end it."""

import json
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from tests.runs import run
from vit_jax.errors import ConfigError
from vit_jax.training.report.writers import base
from vit_jax.training.report.writers.base import WRITERS, About, Writers, check_writers

CONFIG = {"seed": 3, "data": {"batch_size": 64}, "names": ["a", "b"]}


def about(folder, **more):
    return About("digits", "mine", CONFIG, folder, **more)


# ---- stand-ins that keep what they are told, with the signatures of the real packages


def wandb():
    module = ModuleType("wandb")
    module.Settings = lambda console: {"console": console}

    def init(project, name, id, resume, config, dir, settings):
        assert (resume, settings) == ("allow", {"console": "off"})
        logged = []
        module.runs.append({"id": id, "project": project, "config": config, "logged": logged, "dir": dir})

        def log(metrics, step):
            logged.append((step, metrics))

        return SimpleNamespace(id=id or "w1", log=log, finish=lambda: logged.append("end"))

    module.init = init
    return module


def mlflow():
    module = ModuleType("mlflow")
    module.entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: (step, key, value), Param=lambda key, value: (key, value)
    )

    class MlflowClient:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"id of {name}"

        def create_run(self, experiment_id, run_name):
            module.runs.append({"id": None, "project": experiment_id, "config": {}, "logged": []})
            return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

        def update_run(self, run_id, status):
            assert status == "RUNNING"
            module.runs.append({"id": run_id, "logged": []})

        def log_batch(self, run_id, metrics=(), params=()):
            assert len(params) <= 100
            module.runs[-1]["logged"] += [(step, {key: value}) for step, key, value in metrics]
            if params:
                module.runs[-1]["config"] |= dict(params)

        def set_terminated(self, run_id):
            module.runs[-1]["logged"].append("end")

    module.MlflowClient = MlflowClient
    return module


def trackio():
    module = ModuleType("trackio")

    def init(project, name, config, resume, embed):
        assert (resume, embed) == ("allow", False)
        logged = []
        module.runs.append({"id": name, "project": project, "config": config, "logged": logged})
        return SimpleNamespace(
            log=lambda metrics, step: logged.append((step, metrics)), finish=lambda: logged.append("end")
        )

    module.init = init
    return module


STAND_INS = {"wandb": wandb, "mlflow": mlflow, "trackio": trackio}


@pytest.fixture
def services(monkeypatch):
    """Stand-ins for all packages, by name."""
    modules = {name: make() for name, make in STAND_INS.items()}
    for name, module in modules.items():
        module.__spec__, module.runs = ModuleSpec(name, None), []
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_every_writer_has_a_stand_in():
    assert set(STAND_INS) == set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_numbers_and_configuration_arrive_and_the_next_attempt_goes_on(services, tmp_path, name):
    told = []
    with Writers([name], about(tmp_path), told.append) as writers:
        writers.write(3, {"train/loss": 0.5})
        writers.write(4, {"eval/accuracy": 0.25})
    known = json.loads((tmp_path / "writers" / f"{name}.json").read_text())["run"]
    with Writers([name], about(tmp_path), told.append) as writers:
        writers.write(5, {"train/loss": 0.4})
    assert told == []
    first, second = services[name].runs
    assert first["logged"] == [(3, {"train/loss": 0.5}), (4, {"eval/accuracy": 0.25}), "end"]
    assert second["logged"] == [(5, {"train/loss": 0.4}), "end"]
    assert first["id"] in (None, known)
    assert second["id"] == known
    assert first["project"] in ("mine", "id of mine")
    flat = {"seed": "3", "data.batch_size": "64", "names": "('a', 'b')"}
    assert first["config"] == (flat if name == "mlflow" else CONFIG)


def test_nothing_to_write_opens_nothing(services, tmp_path):
    with Writers(WRITERS, about(tmp_path), pytest.fail):
        pass
    assert not any(module.runs for module in services.values())


# ---- what fails


class Fails:
    """A run at a service that raises in one of its methods."""

    def __init__(self, where, error):
        self._where, self._error, self.run = where, error, "x"
        self._raise("opening")

    def _raise(self, where):
        if where == self._where:
            raise self._error

    def write(self, step, metrics):
        self._raise("writing")

    def close(self):
        self._raise("closing")


@pytest.mark.parametrize("error", [OSError("the network is gone"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("where", "doing"), [("opening", "opening it"), ("writing", "writing step 1"), ("closing", "closing it")]
)
def test_a_failure_is_told_once_and_the_others_go_on(tmp_path, where, doing, error):
    told, written = [], []
    good = SimpleNamespace(run="y", write=lambda *item: written.append(item), close=lambda: None)
    opened = {"wandb": lambda: Fails(where, error), "mlflow": lambda: good}
    with Writers(opened, about(tmp_path), told.append, lambda name, _: opened[name]()) as writers:
        for step in range(1, 4):
            writers.write(step, {"loss": 1.0})
    assert [step for step, _ in written] == [1, 2, 3]
    assert told == [
        f"log.writers: wandb failed at {doing}, {type(error).__name__}: {error}; the run continues without it, and "
        "metrics.jsonl has everything"
    ]


def test_one_that_hangs_holds_nobody(tmp_path):
    told, ends = [], threading.Event()
    hangs = SimpleNamespace(run="x", write=lambda *_: ends.wait(30), close=lambda: None)
    writers = Writers(["wandb"], about(tmp_path), told.append, lambda *_: hangs)
    writers.write(7, {"loss": 1.0})
    writers.close(patience=0.2)
    ends.set()
    assert told[0].startswith("log.writers: wandb was still writing step 7 after 0 s")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"log\.writers has 'wandb', which is not installed; pip install wandb"
    ):
        check_writers(["wandb"])


# ---- in a run


def test_a_run_writes_to_them_and_one_that_fails_does_not_end_it(services, trained, tmp_path):
    def broken(*_, **__):
        raise ValueError("not logged in")

    services["wandb"].init = broken
    command = ["train", "--config", trained.config, "--workdir", tmp_path / "run"]
    outcome = run(*command, "--config.log.writers=('mlflow','wandb')", "--config.log.project=digits")
    assert outcome.status == 0, outcome.err
    assert (
        outcome.err.count(
            "log.writers: wandb failed at opening it, ValueError: not logged in; the run continues"
        )
        == 1
    )
    (only,) = services["mlflow"].runs
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = [(line["step"], {name: x}) for line in written for name, x in line.items() if name != "step"]
    assert sorted(only["logged"][:-1], key=str) == sorted(expected, key=str)
    assert only["config"]["data.batch_size"] == "64"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("('wandbb',)", "log.writers is 'wandbb'; it must be one of wandb"),
        ("(1,)", "log.writers has 1; names must be strings"),
        ("'wandb'", "log.writers is 'wandb'; it must be a sequence of names, for example ('wandb',)"),
        ("wandb", "log.writers is 'wandb'; it must be a Python value such as ('wandb',)"),
    ],
)
def test_a_name_that_does_not_exist(trained, tmp_path, value, message):
    outcome = run("train", "--config", trained.config, "--workdir", tmp_path, f"--config.log.writers={value}")
    assert outcome.status == 2
    assert message in outcome.err
