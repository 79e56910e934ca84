"""Our Vision Transformer computes what timm's does, to the rule of the reference cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.cases import assert_close, load_case, nhwc, timm_config, timm_parameters, tolerance
from vit_jax.models.registry import model_functions

CASES = [
    "vit_timm_token",
    "vit_timm_gap_cls",
    "vit_timm_gap_nocls",
    "vit_timm_map",
    "vit_timm_clip",
    "vit_timm_deit3",
    "vit_timm_reg4_swiglu",
    "vit_timm_qknorm",
    "vit_timm_dynamic",
    "vit_google_numerics",
]


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_input_gradient(name):
    about, arrays, weights = load_case(name)
    config = timm_config(about["config"])
    apply = model_functions(config).apply
    params = timm_parameters(weights, config)
    images = jnp.asarray(nhwc(arrays["in.pixel_values"]))
    capture = ("encoded", "pooled", "blocks")

    def weighted(images):
        logits, captured = apply(params, images, capture=capture)
        return jnp.sum(logits * arrays["cot"]), (logits, captured)

    (_, (logits, captured)), gradient = jax.jit(jax.value_and_grad(weighted, has_aux=True))(images)
    outputs = {"logits": logits, "pre_logits": captured["pooled"]}
    if config.pool_norm == "before":
        outputs["forward_features"] = captured["encoded"]
    for layer in range(config.depth):
        patches = captured["blocks"][layer][:, config.prefix_tokens :]
        grid = (images.shape[1] // config.patch_size[0], images.shape[2] // config.patch_size[1])
        outputs[f"intermediates.{layer}"] = np.transpose(patches, (0, 2, 1)).reshape(2, -1, *grid)
    for output, ours in outputs.items():
        if f"out.{output}" in arrays:
            assert_close(ours, arrays[f"out.{output}"], tolerance(about, output), f"{name} {output}")
    theirs = nhwc(arrays["grad.pixel_values"])
    assert_close(gradient, theirs, 2e-5 * np.abs(theirs).max(), f"{name} gradient")
