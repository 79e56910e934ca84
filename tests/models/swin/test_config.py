"""What a Swin Transformer may be, how its windows fit maps, and its names against the published tables."""

import dataclasses

import jax
import pytest

from tests.models.swin.models import FIRST, SECOND, VERSIONS
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.registry import model_config, model_functions
from vit_jax.models.swin.config import SwinConfig, replace
from vit_jax.models.swin.fitting import FITS
from vit_jax.models.swin.names import HUB, TAGS

# Published: parameters and 10^9 multiply-adds at the size in the name (Swin's and Swin v2's model hubs).
PUBLISHED = {
    "swin_tiny_patch4_window7_224": (28_288_354, 4.49),
    "swin_small_patch4_window7_224": (49_606_258, 8.74),
    "swin_base_patch4_window7_224": (87_768_224, 15.43),
    "swin_base_patch4_window12_384": (87_903_584, 47.1),
    "swin_large_patch4_window7_224": (196_532_476, 34.5),
    "swin_large_patch4_window12_384": (196_735_516, 103.9),
    "swinv2_tiny_window8_256": (28_347_154, 5.94),
    "swinv2_tiny_window16_256": (28_347_154, 6.66),
    "swinv2_small_window8_256": (49_728_418, 11.6),
    "swinv2_small_window16_256": (49_728_418, 12.8),
    "swinv2_base_window8_256": (87_918_816, 20.3),
    "swinv2_base_window16_256": (87_918_816, 22.0),
    "swinv2_base_window12to16_192to256": (87_918_816, 22.0),
    "swinv2_base_window12to24_192to384": (87_918_816, 55.2),
    "swinv2_large_window12to16_192to256": (196_739_932, 47.7),
    "swinv2_large_window12to24_192to384": (196_739_932, 116.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_arithmetic_are_the_published(name):
    parameters, macs = PUBLISHED[name]
    config = resolve(name)[1]
    assert parameter_count(config) == parameters
    assert forward_macs(config) == pytest.approx(macs * 1e9, rel=0.01)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256", "swin_s3_tiny_224", "swin_v2_t"]
)
def test_modules_have_the_parameters_that_are_counted(name):
    config = resolve(name)[1]
    shapes = jax.eval_shape(model_functions(config).init, jax.random.key(0))
    assert trees.count(shapes) == parameter_count(config)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 0},
        {"mask_token": True, "pool": "patches"},
        {"qkv_bias": False},
        {"mlp_ratio": 2.5},
    ],
)
def test_tiny_models_have_the_parameters_that_are_counted(version, changes):
    config = replace(VERSIONS[version], **changes)
    assert trees.count(model_functions(config).abstract) == parameter_count(config)


def test_macs_are_those_of_its_products():
    """By hand: 8x8 and 4x4 places in windows of 4, widths 8 and 16, hidden units of four times that."""
    embedding, head = 64 * 12 * 8, 16 * 5
    first = 64 * (4 * 8 * 8 + 2 * 4 * 8) + 64 * 2 * 8 * 32
    second = 16 * (4 * 16 * 16 + 2 * 4 * 16) + 16 * 2 * 16 * 64
    assert forward_macs(FIRST) == embedding + 2 * first + 16 * 32 * 16 + 3 * second + head
    # A map of 7 takes the products of one of 8, but for its MLPs.
    odd = replace(FIRST, image_size=14, depths=(1,), heads=(2,))
    assert forward_macs(odd) == 49 * 96 + 64 * (4 * 64 + 2 * 4 * 8) + 49 * 2 * 8 * 32 + 8 * 5


# ---- names


def test_every_published_name_is_listed_and_has_a_model():
    assert sum(map(len, TAGS.values())) == 31
    assert set(TAGS) <= set(list_models())
    tagged = {f"{name}.{tag}" for name, tags in TAGS.items() for tag in tags}
    assert tagged <= set(list_models("*", pretrained=True))
    for name in (*tagged, *HUB):
        canonical, config = resolve(name)
        height, width = config.image_size
        assert (canonical, height) == (name, width)
        assert str(height) in name
        classes = 21841 if name.endswith(("ms_in22k", "22k")) else 3072 if "simmim" in name else 1000
        assert config.num_classes == classes, name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Swin-T", "swin_tiny_patch4_window7_224"),
        ("Swin-B@384", "swin_base_patch4_window12_384"),
        ("SwinV2-S", "swinv2_small_window8_256"),
        ("timm/swin_tiny_patch4_window7_224.ms_in1k", "swin_tiny_patch4_window7_224.ms_in1k"),
    ],
)
def test_other_names(alias, name):
    assert resolve(alias) == resolve(name)
    assert resolve(alias)[0] == name


def test_names_say_windows_sizes_and_preprocessing():
    large = resolve("swinv2_large_window12to24_192to384.ms_in22k_ft_in1k")[1]
    assert (large.window_size, large.pretrained_windows) == ((24,), (12, 12, 12, 6))
    assert (large.image_size, large.width, large.heads) == ((384, 384), 192, (6, 12, 24, 48))
    assert large.preprocessing == dataclasses.replace(IMAGENET, crop=1.0)
    assert resolve("swin_tiny_patch4_window7_224")[1].preprocessing == IMAGENET
    searched = resolve("swin_s3_base_224")[1]
    assert (searched.window_size, searched.depths) == ((7, 7, 14, 7), (2, 2, 30, 2))
    hub = resolve("microsoft/swinv2-base-patch4-window12to16-192to256-22kto1k-ft")[1]
    assert (hub.window_size, hub.pretrained_windows, hub.window_fit) == ((16,), (12, 12, 12, 6), "clamp_once")
    assert hub.preprocessing == Preprocessing(IMAGENET.mean, IMAGENET.std, "bicubic", 1.0, "squash")
    simmim = resolve("microsoft/swin-base-simmim-window6-192")[1]
    assert (simmim.window_size, simmim.pool, simmim.mask_token) == ((6,), "patches", True)
    other = resolve("swin_s")[1]
    assert (other.window_fit, other.preprocessing.resized((224, 224))) == ("pad", (246, 246))


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224.ms_in21k", "swinv2_cr_tiny_224", "swin_huge_patch4_window7_224"]
)
def test_what_is_not_published_is_refused(name):
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(name)


# ---- configuration


@pytest.mark.parametrize("config", [FIRST, SECOND, SwinConfig(window_size=(7, 7, 14, 7))])
def test_it_goes_through_json(config):
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_size": 30, "patch_size": 4},
            "image_size has height 30, not divisible by patch size 4; the nearest",
        ),
        ({"image_size": 2}, "images of 1x1 patches leave no map in stage 2, which halves them 1 times"),
        ({"heads": (2,)}, r"heads is \(2,\) and depths \(2, 3\); each needs a number for every stage"),
        ({"heads": (2, 3)}, "3 do not divide width 16 of stage 2"),
        ({"depths": ()}, r"depths \(\); each needs a number"),
        ({"window_size": (2, 2, 3)}, r"window_size is \(2, 2, 3\); it must be one number of patches, or 2"),
        ({"window_size": 0}, "window_size is .*; it must be at least 1"),
        ({"window_size": "7"}, "window_size is '7'; it must be a list of integers"),
        ({"pretrained_windows": (2, 2)}, "pretrained_windows is .* of a model with position_bias 'log'"),
        (
            {"window_fit": "crop"},
            "window_fit is 'crop'; it must be one of clamp, clamp_once, pad, pad_together",
        ),
        ({"mlp_ratio": 0.0}, "both must be above 0"),
        ({"mlp_dim": 4}, "'mlp_dim' is not a model option"),
        (
            {"window_fit": "pad_together", "window_size": 7},
            "a map of 4x4 in stage 2 is smaller than the window, 7x7, which transformers cannot do",
        ),
    ],
)
def test_what_it_cannot_be_is_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        replace(FIRST, **changes)
    assert "\n" not in str(caught.value)


def test_one_number_of_windows_goes_with_any_number_of_stages():
    config = model_config("swin_tiny_patch4_window7_224", depths=(2, 2), heads=(3, 6), window_size=(5, 5))
    assert (config.window_size, config.grid, config.num_patches) == ((5,), (56, 56), 3136)


# ---- windows on maps


def fit(rule, window, own, grid=None, stage=0):
    """Window, shift and table of a map of `grid` patches in a model made for `own`."""
    config = SwinConfig(
        image_size=(own[0], own[1]), patch_size=1, window_size=window, window_fit=rule,
        depths=(2,) * (stage + 1), heads=(1,) * (stage + 1),
    )  # fmt: skip
    found = config.fit(stage, grid)
    assert found.pad_first == (rule != "clamp")
    return found.window, found.shift, found.table


@pytest.mark.parametrize("rule", FITS)
def test_windows_that_divide_the_map_fit_alike(rule):
    assert fit(rule, 4, (16, 16)) == ((4, 4), (2, 2), (4, 4))
    assert fit(rule, 4, (16, 16), stage=2) == ((4, 4), (0, 0), (4, 4))


def test_windows_larger_than_the_map():
    assert fit("clamp", 7, (4, 12)) == ((4, 7), (0, 3), (4, 7))
    assert fit("pad", 7, (4, 12)) == ((7, 7), (0, 3), (7, 7))
    assert fit("clamp_once", 7, (4, 12)) == ((4, 4), (0, 0), (4, 4))
    with pytest.raises(ConfigError, match="a map of 4x12 in stage 1 is smaller than the window"):
        fit("pad_together", 7, (4, 12))
    assert fit("pad_together", 4, (4, 12)) == ((4, 4), (0, 0), (4, 4))


def test_windows_on_images_of_another_size():
    # timm's windows are fitted once, to the model's own size; a smaller map is filled up.
    assert fit("clamp", 8, (16, 16), (5, 20)) == ((8, 8), (4, 4), (8, 8))
    assert fit("clamp", 8, (8, 16), (16, 16)) == ((8, 8), (0, 4), (8, 8))
    assert fit("clamp_once", 16, (8, 8), (16, 16)) == ((8, 8), (0, 0), (8, 8))
    assert fit("pad", 8, (16, 16), (5, 20)) == ((8, 8), (0, 4), (8, 8))
    # transformers halves rounding down where maps are rounded up: 7 becomes 3 and 4.
    assert fit("clamp", 7, (7, 7), stage=1) == ((4, 4), (0, 0), (4, 4))
    assert fit("clamp_once", 7, (7, 7), stage=1) == ((3, 3), (0, 0), (3, 3))
    assert fit("clamp", 7, (15, 15), stage=1) == ((7, 7), (3, 3), (7, 7))


def test_it_says_of_itself_what_a_family_does():
    family = family_of(FIRST)
    assert family.depth(FIRST) == 5
    assert family.widest(FIRST) == 64
    levels = family.levels(replace(FIRST, image_size=(14, 18)))
    assert [(level.name, level.stride, level.channels, level.grid) for level in levels] == [
        ("stages/0", (2, 2), 8, (7, 9)),
        ("stages/1", (4, 4), 16, (4, 5)),
    ]
    strides = [level.stride[0] for level in family.levels(SwinConfig())]
    assert strides == [4, 8, 16, 32]
    assert family.headless(replace(FIRST, pool="patches")) == replace(FIRST, num_classes=0)


@pytest.mark.parametrize("rule", ["beit", "timm"])
def test_layers_are_counted_over_all_stages(rule):
    family = family_of(FIRST)
    shapes = trees.flatten(model_functions(replace(FIRST, mask_token=True)).abstract)
    layers = {path: family.layer_of(FIRST, path, rule) for path in shapes}
    assert layers["patch_embed/kernel"] == layers["patch_embed/norm/bias"] == layers["mask_token"] == 0
    assert layers["stages/0/blocks/attn/qkv/kernel"] == range(1, 3)
    assert layers["stages/1/merge/reduction/kernel"] == 2
    assert layers["stages/1/blocks/mlp/fc2/bias"] == range(3, 6)
    assert layers["norm/scale"] == (6 if rule == "beit" else 5)
    assert layers["head/kernel"] == 6
    with pytest.raises(ConfigError, match="parameter 'tail/kernel' belongs to no known layer"):
        family.layer_of(FIRST, "tail/kernel", rule)
