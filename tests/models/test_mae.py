"""The masked autoencoding objective computes the loss that transformers' model does."""

import jax
import jax.numpy as jnp
import pytest

from tests.parity.sources import prepare
from tests.reference.cases import assert_close, load_case, nhwc, tolerance, weights_file
from vit_jax.models.functional import parameters
from vit_jax.objectives.mae import Mae
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.weights.load import load


@pytest.mark.parametrize("name", ["mae_hf_pretrain", "mae_hf_pretrain_normpix"])
def test_loss_is_that_of_transformers(name, tmp_path):
    about, arrays, _ = load_case(name)
    source, _ = prepare(about, weights_file(name), tmp_path)
    model, config = load(source, verbose=False), about["config"]
    options = MaeOptions(
        mask_ratio=config["mask_ratio"],
        normalise_pixels=config["norm_pix_loss"],
        decoder_width=config["decoder_hidden_size"],
        decoder_depth=config["decoder_num_hidden_layers"],
        decoder_heads=config["decoder_num_attention_heads"],
        decoder_mlp_dim=config["decoder_intermediate_size"],
    )
    objective = Mae(model.config.encoder, options)
    batch = {"image": jnp.asarray(nhwc(arrays["in.pixel_values"])), "noise": jnp.asarray(arrays["in.noise"])}
    loss, _ = objective.loss(parameters(model), {}, batch, jax.random.key(0))
    assert_close(loss, arrays["out.loss"], tolerance(about, "loss"), name)
