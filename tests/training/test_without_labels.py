"""Runs on images that nobody has labelled."""

import numpy as np
import pytest

from tests.training.test_loop import configuration, lines
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import ConfigError
from vit_jax.training import loop
from vit_jax.training.experiment import build


def images(count=32, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ArraySource(pixels, None)


def masked(**changes):
    """A masked autoencoder, which needs no label."""
    config = configuration(duration="2 steps", accumulation=1, evaluation__illustrate=3, **changes)
    config.objective = {"name": "mae", "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    return config


def test_what_needs_no_label_is_trained_and_evaluated_without(tmp_path):
    result = loop.train(masked(), tmp_path, sources=(images(), images(20, seed=1)))
    assert "label" not in result.experiment.abstract_batch()
    assert result.experiment.data.train_source.num_classes == 0
    assert np.isfinite(result.metrics["loss"])
    assert lines(tmp_path)[-1]["eval/loss"] == result.metrics["loss"]
    # Spread over the records; they are named by their place alone.
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["0.png", "1.png", "2.png"]


def test_records_to_evaluate_on_may_have_labels_all_the_same():
    labelled = ArraySource(np.zeros((8, 8, 8, 1), np.uint8), np.arange(8) % 2, ("a", "b"))
    experiment = build(masked(), (images(), labelled))
    assert experiment.data.eval_source.class_names == ("a", "b")
    assert next(experiment.eval_batches())["label"].tolist()[:4] == [0, 1, 0, 1]


def test_a_label_that_is_needed_is_missed_by_name():
    labelled = ArraySource(np.zeros((16, 8, 8, 1), np.uint8), np.arange(16) % 6)
    with pytest.raises(
        ConfigError, match=r"num_classes is 6, and the data has no classes; choose data with labels"
    ):
        build(configuration(), (images(), images()))
    message = (
        r"^the evaluation data has image but no label, which objective 'classification' needs \(its first record: "
        r"record 0 of the arrays\); choose data that has it, or data.eval_transforms that create it\.$"
    )
    with pytest.raises(ConfigError, match=message):
        build(configuration(), (labelled, images()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(data__balanced=True), "data.balanced is on, but the training data has image and no label"),
        (dict(evaluation__baselines=("nearest_neighbour",)), "but the data has no labels to learn"),
    ],
)
def test_what_needs_labels_says_so(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(masked(**changes), (images(), images()))
