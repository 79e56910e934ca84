"""One training run that all tests of this folder look at."""

import pytest

from vit_jax.training.config import default_config, validate
from vit_jax.training.loop import train


def configuration():
    """Digits, in two checkpoints with a moving average of the parameters, and some images left behind."""
    config = default_config()
    config.duration = "4 steps"
    config.model.update(
        name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1
    )
    config.data.update(source="digits", batch_size=16, eval_batch_size=40)
    config.ema.decay = 0.5
    config.evaluation.update(every="2 steps", illustrate=5)
    config.checkpoint.every = "2 steps"
    config.log.tensorboard = False
    validate(config)
    return config


@pytest.fixture(scope="session")
def run(compile_cache, tmp_path_factory):
    """The result of the run and its workdir."""
    workdir = tmp_path_factory.mktemp("run")
    return train(configuration(), workdir), workdir
