"""Our masked autoencoder computes what transformers' does, to the rule of the reference cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.cases import assert_close, hf_blocks, load_case, nhwc, tolerance
from vit_jax.models.vit_config import ViTConfig
from vit_jax.objectives.mae import Mae, hidden_patch_losses, patch_targets
from vit_jax.objectives.options import MaeOptions
from vit_jax.trees import unflatten


def mae_case(name) -> tuple[dict, dict, Mae, dict]:
    about, arrays, weights = load_case(name)
    config = about["config"]
    encoder = ViTConfig(
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_dim=config["intermediate_size"],
        norm_epsilon=config["layer_norm_eps"],
        pool="none",
        num_classes=0,
        # Checkpoints carry the fixed tables; as learned ones they come from the file (the cases' are zero).
        position="learned",
    )
    options = MaeOptions(
        mask_ratio=config["mask_ratio"],
        normalise_pixels=config["norm_pix_loss"],
        decoder_width=config["decoder_hidden_size"],
        decoder_depth=config["decoder_num_hidden_layers"],
        decoder_heads=config["decoder_num_attention_heads"],
        decoder_mlp_dim=config["decoder_intermediate_size"],
    )
    encoder_blocks = hf_blocks(weights, "vit.encoder.layer", encoder.depth, encoder.heads)
    decoder_blocks = hf_blocks(
        weights, "decoder.decoder_encoder.layer", options.decoder_depth, options.decoder_heads
    )
    flat = {
        "encoder/patch_embed/kernel": weights["vit.embeddings.patch_embeddings.projection.weight"].transpose(
            2, 3, 1, 0
        ),
        "encoder/patch_embed/bias": weights["vit.embeddings.patch_embeddings.projection.bias"],
        "encoder/class_token": weights["vit.embeddings.cls_token"][0],
        "encoder/norm/scale": weights["vit.layernorm.weight"],
        "encoder/norm/bias": weights["vit.layernorm.bias"],
        "encoder/pos_embed": weights["vit.embeddings.position_embeddings"][0],
        "decoder/pos_embed": weights["decoder.decoder_pos_embed"][0],
        "decoder/embed/kernel": weights["decoder.decoder_embed.weight"].T,
        "decoder/embed/bias": weights["decoder.decoder_embed.bias"],
        "decoder/mask_token": weights["decoder.mask_token"][0],
        "decoder/norm/scale": weights["decoder.decoder_norm.weight"],
        "decoder/norm/bias": weights["decoder.decoder_norm.bias"],
        "decoder/head/kernel": weights["decoder.decoder_pred.weight"].T,
        "decoder/head/bias": weights["decoder.decoder_pred.bias"],
    }
    flat |= {f"encoder/blocks/{name}": value for name, value in encoder_blocks.items()}
    flat |= {f"decoder/blocks/{name}": value for name, value in decoder_blocks.items()}
    return about, arrays, Mae(encoder, options), unflatten(flat)


@pytest.mark.parametrize("name", ["mae_hf_pretrain", "mae_hf_pretrain_normpix"])
def test_parity(name):
    about, arrays, objective, params = mae_case(name)
    images, noise = jnp.asarray(nhwc(arrays["in.pixel_values"])), jnp.asarray(arrays["in.noise"])
    options, model = objective.options, objective.model

    def weighted(images):
        patches, mask = objective.functions.apply(params, images, noise, options.mask_ratio)
        return jnp.sum(patches * arrays["cot"]), (patches, mask)

    (_, (patches, mask)), gradient = jax.jit(jax.value_and_grad(weighted, has_aux=True))(images)
    np.testing.assert_array_equal(mask, arrays["out.mask"])
    assert_close(patches, arrays["out.logits"], tolerance(about, "logits"), name)
    theirs = nhwc(arrays["grad.pixel_values"])
    assert_close(gradient, theirs, 2e-5 * np.abs(theirs).max(), f"{name} gradient")
    target = patch_targets(images, model.patch_size, options.normalise_pixels)
    loss = (hidden_patch_losses(patches, target) * mask).sum() / mask.sum()
    assert_close(loss, arrays["out.loss"], tolerance(about, "loss"), f"{name} loss")
    through_objective, _ = objective.loss(params, {}, {"image": images, "noise": noise}, jax.random.key(0))
    assert_close(through_objective, arrays["out.loss"], tolerance(about, "loss"), f"{name} objective")
