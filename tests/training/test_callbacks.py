"""Stopping early and callbacks: the run ends where it should, interrupted or not, and loses nothing."""

import json
import os
import signal

import pytest

from tests.training.test_loop import configuration, lines, programs, steps_in  # noqa: F401, a fixture
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.errors import ConfigError, Preempted
from vit_jax.objectives.classification import Classification
from vit_jax.training import loop
from vit_jax.training.parts.monitor import Improvement, Monitor
from vit_jax.training.report.callbacks import Callback, StopTraining

# ---- the monitor by itself


def follow(values, **settings):
    """After which of these evaluations it stops, and the best of them."""
    improvement = Improvement(Monitor("x", **settings))
    for step, value in enumerate(values, 1):
        improvement.note(step, {"x": value})
        if improvement.exhausted:
            break
    return step, improvement.step


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "values", "stops", "best"),
    [
        ({"mode": "max", "patience": 2}, [0.1, 0.3, 0.2, 0.3, 0.9], 4, 2),  # as good is not better
        ({"mode": "min", "patience": 2}, [0.3, 0.1, 0.2, 0.1, 0.0], 4, 2),
        ({"mode": "max", "patience": 0}, [0.3, 0.2, 0.1, 0.0], 4, 1),
        ({"mode": "max", "patience": 1, "min_delta": 0.1}, [0.1, 0.15, 0.9], 2, 1),
        ({"mode": "min", "patience": 1, "min_delta": 0.1}, [0.5, 0.35, 0.3], 3, 2),
        ({"mode": "min", "patience": 2}, [NAN, NAN, 0.1], 2, 0),
        ({"mode": "min", "patience": 2}, [NAN, 0.1, NAN, 0.2], 4, 2),
        ({"mode": "max", "patience": 2}, [INF, 0.1, 0.1, 0.1], 4, 2),
    ],
)
def test_patience(settings, values, stops, best):
    assert follow(values, **settings) == (stops, best)


def test_what_is_saved_goes_on_and_that_of_another_metric_does_not():
    first = Improvement(Monitor("x", "max", 3))
    for step, value in enumerate([0.5, 0.4, 0.3], 1):
        first.note(step, {"x": value})
    saved = json.loads(json.dumps(first.to_json()))
    again = Improvement(first.monitor, saved)
    again.note(4, {"x": 0.2})
    assert again.exhausted
    assert again.reason() == "3 evaluations without improvement on x 0.5000 at step 1"
    other = Improvement(Monitor("y", "max", 3), saved)
    assert (other.best, other.waited) == (None, 0)


# ---- in a run


ACCURACIES = {2: 0.2, 4: 0.5, 6: 0.4, 8: 0.5, 10: 0.9}


@pytest.fixture(autouse=True)
def evaluations(monkeypatch):
    """Accuracies by step; the step that is evaluated is counted in `Run.evaluate`."""
    seen = {}
    real = loop.Run.evaluate

    def evaluate(self, number, state, *, whole):
        seen["step"] = number
        return real(self, number, state, whole=whole)

    def made_up(step, params, buffers, batches):
        batches.close()
        return {"accuracy": ACCURACIES[seen["step"]], "loss": 1.0, "top5_accuracy": 1.0}

    monkeypatch.setattr(loop.Run, "evaluate", evaluate)
    monkeypatch.setattr("vit_jax.training.run.evaluate", made_up)


def early(**changes):
    changes = {"evaluation__every": 2, "evaluation__patience": 2, "checkpoint__every": 3} | changes
    return configuration(log__every=3, log__tensorboard=False, **changes)


def train(workdir, config=None, **more):
    return loop.train(config or early(), workdir, **more)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Filled by the first test that needs a run which nobody interrupted."""
    return {}


def whole(stopped, tmp_path_factory):
    if not stopped:
        workdir = tmp_path_factory.mktemp("whole")
        stopped.update(workdir=workdir, result=train(workdir))
    return stopped["result"], stopped["workdir"]


def test_a_run_stops_after_its_patience(stopped, tmp_path_factory, capsys):
    result, workdir = whole(stopped, tmp_path_factory)
    reason = "2 evaluations without improvement on accuracy 0.5000 at step 4"
    assert "step 8  stopped early: " + reason in capsys.readouterr().err
    assert (result.step, result.metrics["accuracy"], int(result.state.step)) == (8, 0.5, 8)
    assert result.summary["stopped_early"] == {"by": "patience", "reason": reason}
    assert result.summary["best"] == {"metric": "accuracy", "best": 0.5, "step": 4, "waited": 2}
    assert json.loads((workdir / "summary.json").read_text()) == result.summary
    # The learning rate is that of the whole duration; the steps since the last line are in the last one.
    trained = [line for line in lines(workdir) if "train/loss" in line]
    assert [line["step"] for line in trained] == [3, 6, 8]
    rate = float(result.experiment.optimisation.schedule(7))
    assert trained[-1]["train/learning_rate"] == pytest.approx(rate, rel=1e-5)
    # The best was saved although no checkpoint was due, and is the one that --best takes.
    assert steps_in(workdir) == [6, 8]  # 4 was, until 8 was as good
    saved = Checkpoints(workdir / "checkpoints", read_only=True)
    assert saved.best_step() == 8  # of equal ones the later, as ever
    assert saved.metadata(8)["monitor"] == "accuracy"


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_interrupted_it_stops_at_the_same_step(stopped, tmp_path_factory, tmp_path, monkeypatch, stop):
    expected, other = whole(stopped, tmp_path_factory)
    real, calls = loop.shard_batch, []

    def hooked(batch, mesh):
        calls.append(batch)
        if len(calls) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(batch, mesh)

    monkeypatch.setattr(loop, "shard_batch", hooked)
    with pytest.raises(Preempted):
        train(tmp_path)
    result = train(tmp_path)
    assert fingerprint(result.state) == fingerprint(expected.state)
    assert (result.step, result.metrics) == (expected.step, expected.metrics)
    assert result.summary["stopped_early"] == expected.summary["stopped_early"]
    assert (tmp_path / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_started_again_it_only_reports_and_goes_on_with_more_patience(stopped, tmp_path, capsys, monkeypatch):
    train(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    compile_step = loop.compile_step
    monkeypatch.setattr(loop, "compile_step", None)
    again = train(tmp_path)
    assert again.step == 8
    assert again.summary["stopped_early"]["by"] == "patience"
    assert "to resume it, raise evaluation.patience, or set it to 0" in capsys.readouterr().err
    for path, content in files.items():
        assert path.name == "summary.json" or path.read_bytes() == content, path
    monkeypatch.setattr(loop, "compile_step", compile_step)
    longer = train(tmp_path, early(evaluation__patience=3))
    assert (longer.step, longer.metrics["accuracy"]) == (10, 0.9)
    assert longer.summary["stopped_early"] is None


def test_another_metric_and_its_own_direction(tmp_path):
    result = train(tmp_path, early(evaluation__monitor="loss", evaluation__patience=1))
    assert (result.step, result.summary["best"]["step"]) == (4, 2)
    metadata = Checkpoints(tmp_path / "checkpoints", read_only=True).metadata(4)
    assert (metadata["monitor"], metadata["monitor_mode"]) == ("loss", "min")


@pytest.mark.parametrize("monitor", ["acuracy", "count", "eval/loss", "train_loss"])
def test_a_metric_that_does_not_exist_is_refused_before_compiling(tmp_path, monkeypatch, monitor):
    monkeypatch.setattr(loop, "compile_step", None)
    names = "accuracy, loss, top5_accuracy"
    with pytest.raises(ConfigError, match=f"evaluation.monitor is '{monitor}'; it must be one of {names}"):
        train(tmp_path, early(evaluation__monitor=monitor))


# ---- callbacks


class Told(Callback):
    """Notes what it is told, and may raise something."""

    def __init__(self, word="", step=0, error=None):
        self.word, self.step, self.error = word, step, error
        self.steps, self.evaluations, self.ends = [], [], []

    def on_step(self, step, metrics):
        self.steps.append((step, metrics))
        self._raise("on_step", step)

    def on_evaluation(self, step, metrics):
        self.evaluations.append((step, metrics["accuracy"]))
        self._raise("on_evaluation", step)

    def on_end(self, result):
        self.ends.append(result)
        self._raise("on_end", result.step)

    def _raise(self, word, step):
        if (word, step) == (self.word, self.step):
            raise self.error


def test_callbacks_are_told_of_every_step_once_and_in_order(tmp_path):
    told = Told()
    result = train(tmp_path, early(evaluation__patience=0), callbacks=[told])
    assert [step for step, _ in told.steps] == list(range(1, 11))
    assert set(told.steps[0][1]) == {"loss", "accuracy", "gradient_norm", "learning_rate"}
    assert told.evaluations == list(ACCURACIES.items())
    assert told.ends == [result]
    line = next(line for line in lines(tmp_path) if "train/loss" in line)
    assert line["train/loss"] == pytest.approx(sum(m["loss"] for _, m in told.steps[:3]) / 3)


@pytest.mark.parametrize(
    ("word", "step", "ends"),
    [
        ("on_step", 1, 2),
        ("on_step", 4, 4),
        ("on_evaluation", 4, 4),
    ],  # a step is told of while the next is computed
)
def test_a_callback_ends_the_run_for_good(tmp_path, monkeypatch, word, step, ends):
    told = Told(word, step, StopTraining("it is enough"))
    result = train(tmp_path, callbacks=[told])
    assert result.step == ends
    assert result.summary["stopped_early"] == {"by": "callback", "reason": "it is enough"}
    assert told.evaluations[-1] == (ends, ACCURACIES[ends])
    assert told.ends == [result]
    assert steps_in(tmp_path)[-1] == ends
    again = train(tmp_path)
    assert (again.step, again.summary["stopped_early"]) == (ends, result.summary["stopped_early"])
    monkeypatch.setitem(ACCURACIES, 7, 0.7)
    longer = early(duration="7 steps", evaluation__patience=0)
    assert train(tmp_path, longer, allow_change=["duration"]).step == 7


@pytest.mark.parametrize(
    ("word", "step", "saved"),
    [("on_step", 1, 2), ("on_step", 4, 4), ("on_evaluation", 4, 4), ("on_evaluation", 10, 10)],
)
def test_an_error_in_a_callback_ends_the_run_and_loses_nothing(tmp_path, word, step, saved):
    config = early(evaluation__patience=0)
    told = Told(word, step, ValueError("the plot is empty"))
    with pytest.raises(ValueError, match="the plot is empty") as caught:
        train(tmp_path, config, callbacks=[told])
    assert caught.traceback[-1].name == "_raise"
    assert steps_in(tmp_path)[-1] == saved
    assert told.ends == []
    result = train(tmp_path, config)
    assert (result.step, result.summary["stopped_early"]) == (10, None)


def test_an_error_at_the_end_comes_after_the_summary(tmp_path):
    with pytest.raises(ValueError, match="late"):
        train(tmp_path, callbacks=[Told("on_end", 8, ValueError("late"))])
    assert json.loads((tmp_path / "summary.json").read_text())["step"] == 8


def test_callbacks_may_compute(tmp_path):
    import jax.numpy as jnp

    class Computes:
        def on_step(self, step, metrics):
            self.total = float(jnp.asarray([metrics["loss"]]).sum())

    train(tmp_path, early(duration="2 steps"), callbacks=[callback := Computes()])
    assert callback.total > 0


class Misspelled:
    def on_epoch_end(self, step, metrics):
        pass


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            Misspelled(),
            "callback Misspelled has on_epoch_end, which is never called; there are on_step, on_eval",
        ),
        (
            print,
            "callback 'builtin_function_or_method' has no methods that could be called; give an object with on_step",
        ),
        (Callback, "callback 'type' has no methods that could be called"),
    ],
)
def test_what_cannot_be_told_anything_is_refused(tmp_path, callback, message):
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, callbacks=[callback])


def test_callbacks_are_several(tmp_path):
    with pytest.raises(
        ConfigError, match=r"callbacks is of type Misspelled; give a sequence .*: \[Misspelled"
    ):
        train(tmp_path, callbacks=Misspelled())


# ---- an objective of one's own


class Negated(Classification):
    def loss(self, params, buffers, batch, key):
        value, out = super().loss(params, buffers, batch, key)
        return -value, out


@pytest.mark.parametrize("rank", [0, 2])  # with factors, it is inside of another
def test_an_objective_of_ones_own_belongs_to_the_run(tmp_path, rank):
    config = early(duration="2 steps", lora__rank=rank)
    first = train(tmp_path, config, objective=Negated)
    assert first.experiment.task.kind == "Negated"
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).metadata(2)["objective"] == "Negated"
    plain = train(tmp_path / "plain", config)
    assert fingerprint(first.state.params) != fingerprint(plain.state.params)
    message = (
        "the run was started with objective=Negated, and it is now Classification; give the same objective"
    )
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, config)
    assert train(tmp_path, config, objective=Negated).step == 2
    assert train(tmp_path, config, allow_change=["objective"]).step == 2
