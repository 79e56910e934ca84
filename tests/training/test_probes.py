"""Probes in a run: when they are asked, of what, what they decide; and what is refused before anything is compiled."""

import json

import numpy as np
import pytest

from vit_jax.data.base import Selection
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import ConfigError
from vit_jax.training.config.defaults import default_config
from vit_jax.training.experiment import build
from vit_jax.training.loop import train

STEPS = 5


def records(count, classes=4, seed=0):
    """Classes are brightnesses, so that even fresh models tell them apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = 60 * labels[:, None, None, None] + rng.integers(0, 40, (count, 8, 8, 1))
    return ArraySource(images.astype(np.uint8), labels, num_classes=classes)


TRAIN, EVALUATION = records(52), records(21, seed=1)


def configuration(objective="classification", **evaluation):
    config = default_config()
    config.duration = f"{STEPS} steps"
    config.model.update(
        name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1
    )
    config.objective.name = objective
    if objective == "mae":
        config.objective.update(decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.data.update(batch_size=16, train_transforms="flip_lr")
    config.evaluation.every = "3 steps"
    config.evaluation.update(evaluation)
    config.checkpoint.every = config.log.every = "5 steps"
    config.log.update(tensorboard=False, progress=False)
    return config


def evaluations(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {name.removeprefix("eval/") for name in line if name.startswith("eval/")}
        for line in lines
        if any(name.startswith("eval/") for name in line)
    }


def test_probes_of_a_run(tmp_path, compile_cache):
    config = configuration(
        "mae", probes=("knn:2 steps", "rank", "fewshot:100%"), shots=(1, 5), monitor="knn20_accuracy"
    )
    result = train(config, tmp_path, sources=(TRAIN, EVALUATION))
    near, rank = {"knn10_accuracy", "knn20_accuracy"}, {"rankme", "feature_std"}
    every = {"loss"} | near | rank | {"fewshot1_accuracy", "fewshot5_accuracy"}
    assert evaluations(tmp_path) == {2: near, 3: {"loss"} | rank, 4: near, 5: every}
    assert result.metrics.keys() == every
    assert result.metrics["knn10_accuracy"] > 0.5
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"]["metric"] == "knn20_accuracy"
    assert summary["best"]["step"] in (2, 4, 5)
    assert (
        summary["best"]["waited"] == (5 - summary["best"]["step"] + 1) // 2
    )  # what did not measure it does not count


def test_the_bank_is_every_training_record_once_under_evaluation_transforms():
    config = configuration(probes=("knn",))
    config.data.balanced = True
    uneven = Selection(TRAIN, np.arange(30) // 2)
    batches = list(build(config, (uneven, EVALUATION)).data.bank_batches())
    mask = np.concatenate([batch["mask"] for batch in batches])
    for name, expected in uneven.take(np.arange(30)).items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches])[mask], expected)
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in batches])[mask], np.arange(30))


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (
            dict(probes=("fewshot",)),
            r"evaluation\.shots has 25, but class '0' has 13 .*shots=\(1, 5, 10\)",
        ),
        (dict(probes=("knn",), neighbours=(60,)), r"evaluation\.neighbours has 60, but there are only 52"),
        (
            dict(probes=("knn:0 steps",)),
            r"an interval in evaluation\.probes is '0 steps'; it must be at least one",
        ),
        (dict(probes=("rank",), monitor="knn10_accuracy"), r"evaluation\.monitor .* rankme, feature_std"),
    ],
)
def test_what_is_refused(evaluation, expected):
    with pytest.raises(ConfigError, match=expected):
        build(configuration(**evaluation), (TRAIN, EVALUATION))


def test_records_without_labels_have_only_a_rank():
    def unlabelled(source):
        class Unlabelled(ArraySource):
            fields = ("image",)
            labels = None

            def take(self, indices):
                return {"image": super().take(indices)["image"]}

            def __getitem__(self, index):
                return {name: value for name, value in super().__getitem__(index).items() if name != "label"}

        every = source.take(np.arange(len(source)))
        return Unlabelled(every["image"], every["label"], num_classes=4)

    sources = unlabelled(TRAIN), unlabelled(EVALUATION)
    with pytest.raises(ConfigError, match=r"evaluation\.probes has 'knn', which needs labels"):
        build(configuration("mae", probes=("knn", "rank")), sources)
    assert build(configuration("mae", probes=("rank",)), sources).task.probes[0].name == "rank"
