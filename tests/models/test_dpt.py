"""DPT and Depth Anything: parameters and operations as published, maps of any backbone, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels, tiny
from tests.weights.models import assert_same, opened, write
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.heads.dpt.config import DptConfig
from vit_jax.models.heads.parts import stretched
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_config
from vit_jax.objectives.segmentation.heads.dpt import DptHead

BARE = tiny(num_classes=0, pool="none", pool_norm="none")
SMALL = dict(widths=(2, 4, 6, 8), channels=4)
CLASSES = DptConfig(BARE, 3, taps=(0, 1, 2, 2), auxiliary=True, **SMALL)
DEPTH = DptConfig(BARE, 1, output="relu", taps=(0, 1, 2, 2), readout="project", head_width=8, **SMALL)
PYRAMID = model_config("resnet18", image_size=64, num_classes=0)


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (1, 4), (2, 4), (3, 6), (5, 3), (4, 4), (6, 1)])
def test_outermost_pixels_stay_outermost(n_in, n_out):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, n_in, n_in, 2)), jnp.float32)
    found = stretched(x, (n_out, n_in))
    places = np.linspace(0, n_in - 1, n_out) if n_out > 1 else [0.0]
    expected = [[np.interp(places, range(n_in), x[0, :, j, c]) for c in range(2)] for j in range(n_in)]
    np.testing.assert_allclose(found[0], np.transpose(expected, (2, 0, 1)), atol=1e-6)
    np.testing.assert_array_equal(stretched(x, (n_in, n_in)), x)


@pytest.mark.parametrize(
    "config",
    [
        CLASSES,
        DEPTH,
        replace(DEPTH, readout="add", fuse_to="next", output="sigmoid", max_depth=20.0),
        replace(CLASSES, encoder=PYRAMID, taps=(), auxiliary=False),
    ],
)
def test_parameters_are_counted(config):
    assert parameter_count(config) == trees.count(functions(config).abstract)


def test_published_sizes():
    """Depth Anything V2's small, base and large, of 518 pixels, in millions."""
    for name, widths, channels, taps, millions in (
        ("vit_small_patch14_dinov2", (48, 96, 192, 384), 64, (3, 6, 9, 12), 24.8),
        ("vit_base_patch14_dinov2", (96, 192, 384, 768), 128, (3, 6, 9, 12), 97.5),
        ("vit_large_patch14_dinov2", (256, 512, 1024, 1024), 256, (5, 12, 18, 24), 335.3),
    ):
        encoder = model_config(name, num_classes=0, pool="none")
        sizes = dict(taps=taps, tap_norm=True, fuse_to="next", widths=widths, channels=channels)
        config = DptConfig(encoder, 1, output="relu", **sizes)
        unused = 2 * (9 * channels**2 + channels)  # the first fusion's, of a finer map that there is not
        assert (parameter_count(config) + unused) / 1e6 == pytest.approx(millions, abs=0.06)
        assert forward_macs(config) > 1.1 * forward_macs(encoder)


def test_a_backbone_in_stages_gives_the_pyramid_itself():
    config = replace(CLASSES, encoder=PYRAMID, taps=(), auxiliary=False)
    model, params = functions(config), parameters(config)
    logits = jax.jit(lambda params: model.bind(params)(pixels(2, 64, 64)))(params)
    assert (config.factors, logits.shape) == ((1, 1, 1, 1), (2, 64, 64, 3))
    assert config.pyramid == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_depths_are_as_large_as_images_and_within_their_bounds():
    encoder = replace(BARE, image_size=(16, 24), pool_norm="before", dynamic_image_size=True)
    config = replace(
        DEPTH,
        encoder=encoder,
        readout="ignore",
        fuse_to="next",
        output="sigmoid",
        max_depth=20.0,
        tap_norm=True,
    )
    model = functions(config).bind(parameters(config))
    for size in ((16, 24), (12, 20)):
        depth = jax.jit(lambda images: model(images))(pixels(2, *size))
        assert depth.shape == (2, *size)
        assert 0 < depth.min() < depth.max() < 20


@pytest.mark.parametrize("config", [CLASSES, DEPTH])
def test_our_own_files_come_back(config, tmp_path):
    write(config, tmp_path / "dpt", "orbax")
    read, params = opened(tmp_path / "dpt")
    assert read == config
    assert_same(params, trees.flatten(parameters(config)))


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (CLASSES, dict(output="bins"), "output is 'bins'; it must be one of classes, relu, sigmoid"),
        (CLASSES, dict(readout="sum"), "readout is 'sum'"),
        (CLASSES, dict(widths=(2, 4, 6)), r"widths is \(2, 4, 6\); it must be 4 numbers"),
        (CLASSES, dict(taps=(1, 2)), r"taps is \(1, 2\), which are 2 maps; it must be 4 numbers"),
        (CLASSES, dict(tap_norm=True), "tap_norm needs a backbone with a final norm"),
        (CLASSES, dict(fuse_to="last"), "fuse_to is 'last'; it must be one of double, next"),
        (
            DEPTH,
            dict(num_classes=2),
            "output is 'relu', a depth; set num_classes to 1 and auxiliary to False",
        ),
        (DEPTH, dict(max_depth=0.0), "max_depth is 0.0; it must be above 0"),
        (
            DEPTH,
            dict(encoder=replace(BARE, class_token=False)),
            "readout is 'project', but the backbone has no class token",
        ),
    ],
)
def test_what_cannot_be_is_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(config, **changes)


def test_a_head_of_segmentation_takes_a_map_after_each_quarter():
    deep = replace(BARE, depth=12)
    assert DptHead().network(deep, 3).taps == (3, 6, 9, 12)
    assert DptHead(auxiliary=False).weights == ()
    assert DptHead().network(PYRAMID, 3).taps == ()
    three = CvtConfig(image_size=32, num_classes=0, widths=(8, 16, 32), depths=(1, 1, 1), head_dim=8)
    with pytest.raises(ConfigError, match="which are 3 maps; it must be 4 numbers"):
        DptHead().network(three, 3)
