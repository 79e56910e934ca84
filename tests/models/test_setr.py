"""SETR's decoders: chains by hand, parameters and operations, published sizes, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels, tiny
from tests.weights.models import assert_same, opened, write
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.heads.parts import resized
from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.norm import layer_norm
from vit_jax.models.registry import model_config
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.segmentation.heads.setr import SetrMla, SetrNaive, SetrPup

BARE = tiny(num_classes=0, pool="none", pool_norm="none")
UP = SetrConfig(BARE, 3, taps=(1, 2), channels=8, convs=2, scale=2, auxiliary=(0,))
MLA = SetrConfig(BARE, 3, taps=(1, 2), decoder="mla", channels=8, branch_channels=4, auxiliary=(1,))


def by_hand(head, x, scale):
    """One of the chains of 1x1 convolutions, of numbers alone."""
    x = layer_norm(x, head["norm"]["scale"], head["norm"]["bias"], 1e-6)
    for index in range(len(head["convs"])):
        conv = head["convs"][str(index)]
        norm = conv["norm"]
        x = x @ conv["kernel"][0, 0]
        x = (x - norm["mean"]) / np.sqrt(norm["variance"] + 1e-5) * norm["scale"] + norm["bias"]
        x = resized(jnp.maximum(x, 0), tuple(scale * side for side in x.shape[1:3]))
    return x @ head["head"]["kernel"] + head["head"]["bias"]


def test_a_chain_convolves_and_enlarges():
    images = pixels(2, 16, 12)
    config = replace(UP, encoder=replace(BARE, image_size=(16, 12)))
    params = parameters(config)
    model = functions(config)
    logits, (further,) = jax.jit(lambda params: model.bind(params).with_auxiliary(images))(params)
    encoder = functions(config.encoder)
    first, last = encoder.features(params["encoder"], {}, images, levels=("blocks/0", "blocks/1"))
    np.testing.assert_allclose(logits, by_hand(params["decoder"], last, 2), atol=2e-4)
    np.testing.assert_allclose(further, by_hand(params["auxiliary"]["0"], first, 4), atol=2e-4)
    assert (logits.shape, further.shape) == ((2, 16, 12, 3), (2, 16, 12, 3))


@pytest.mark.parametrize(
    "config", [UP, MLA, replace(UP, kernel=3, auxiliary=()), replace(MLA, taps=(0, 1, 2), auxiliary=(0, 2))]
)
def test_parameters_are_counted(config):
    shapes = functions(config).abstract
    assert parameter_count(config) == trees.count(shapes)


def test_published_sizes():
    """mmsegmentation's, of ViT-L with 19 classes and 768 pixels; without further heads as counted from its authors'."""
    encoder = model_config(
        "vit_large_patch16_384", image_size=768, num_classes=0, pool="patches", pool_norm="none"
    )
    for head, millions in ((SetrNaive, 306), (SetrPup, 310), (SetrMla, 311)):
        config = head(auxiliary=False).network(encoder, 19)
        assert parameter_count(config) / 1e6 == pytest.approx(millions, abs=1.5)
        taps = (6, 12, 18, 24) if head is SetrMla else (10, 15, 20, 24)
        assert config.taps == taps
        assert forward_macs(config) > forward_macs(encoder)
    assert len(SetrPup().weights) == len(SetrPup().network(encoder, 19).auxiliary) == 4
    assert len(SetrNaive().weights) == 3
    options = parse_options({"name": "segmentation", "head": "setr_mla", "branch_channels": 64})
    assert options.head_options.network(encoder, 19).branch_channels == 64


@pytest.mark.parametrize("config", [UP, MLA])
def test_our_own_files_come_back(config, tmp_path):
    write(config, tmp_path / "setr", "orbax")
    read, params = opened(tmp_path / "setr")
    assert read == config
    assert_same(params, trees.flatten(parameters(config)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(decoder="fpn"), "decoder is 'fpn'; it must be one of up, mla"),
        (dict(kernel=2), "kernel is 2; it must be odd"),
        (dict(auxiliary=(2,)), r"auxiliary is \(2,\); it must be numbers of the 2 maps, from 0"),
        (dict(taps=(3,)), r"taps is \(3,\); it must be numbers of blocks, 0 to 2"),
        (dict(norm="group"), "norm is 'group'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(UP, **changes)


def test_maps_of_several_sizes_are_not_added_up():
    encoder = model_config("resnet18", image_size=32, num_classes=0)
    with pytest.raises(ConfigError, match="decoder 'mla' adds maps up, which must be of one size"):
        SetrMla().network(encoder, 3)
    assert SetrNaive().network(encoder, 3).taps == (0, 1, 2, 3)
