"""The report's evaluation is that of training: the same metrics to the bit, on one device and on eight."""

import jax
import numpy as np
import pytest

from tests.tiny import randomised
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.evaluation.report import Report
from vit_jax.evaluation.tally import Tally
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build


@pytest.mark.parametrize("devices", [1, 8])
def test_metrics_do_not_change_by_a_bit(devices):
    config = default_config()
    config.duration = "1 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=32, depth=1, heads=2, mlp_dim=64)
    config.data.update(batch_size=64, eval_batch_size=104)
    experiment = build(config, devices=jax.devices()[:devices])
    shapes = jax.eval_shape(experiment.task.objective.init, jax.random.key(0))[0]
    params = jax.device_put(
        randomised(shapes), jax.tree.map(lambda x: x.sharding, experiment.abstract_state.params)
    )
    where = (
        experiment.task.objective,
        experiment.devices.replicated,
        experiment.devices.placement,
        experiment.devices.evaluation_options,
    )
    plain = evaluate(compile_evaluation(*where), params, {}, experiment.eval_batches())
    tally, seen = Tally(10), []

    def see(rows):
        tally.add(rows)
        seen.append(rows)

    step = compile_evaluation(*where, rows=True)
    assert evaluate(step, params, {}, experiment.eval_batches(numbered=True), see) == plain
    report = Report.of(tally, experiment.task.objective.class_names)
    assert (report.accuracy, report.top5_accuracy) == (plain["accuracy"], plain["top5_accuracy"])
    index, label = (np.concatenate([rows[name] for rows in seen]) for name in ("index", "label"))
    np.testing.assert_array_equal(index, np.arange(360))
    np.testing.assert_array_equal(label, experiment.data.eval_source.labels)
