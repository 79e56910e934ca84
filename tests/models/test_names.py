import re
import subprocess
import sys

import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, INCEPTION_MEAN, INCEPTION_STD
from vit_jax.models.vit.config import SIZES, ViTConfig
from vit_jax.models.vit.names import LETTERS


def test_list_takes_wildcards_and_sorts_naturally():
    assert list_models("vit_base_patch?*_[23]?4") == [
        "vit_base_patch8_224",
        "vit_base_patch16_224",
        "vit_base_patch16_384",
        "vit_base_patch16_clip_224",
        "vit_base_patch16_clip_384",
        "vit_base_patch16_clip_quickgelu_224",
        "vit_base_patch16_rope_224",
        "vit_base_patch16_rope_ape_224",
        "vit_base_patch16_rope_mixed_224",
        "vit_base_patch16_rope_mixed_ape_224",
        "vit_base_patch16_rpn_224",
        "vit_base_patch16_siglip_224",
        "vit_base_patch16_siglip_384",
        "vit_base_patch16_siglip_gap_224",
        "vit_base_patch16_siglip_gap_384",
        "vit_base_patch32_224",
        "vit_base_patch32_384",
        "vit_base_patch32_clip_224",
        "vit_base_patch32_clip_384",
        "vit_base_patch32_clip_quickgelu_224",
    ]
    assert list_models("deit_*_patch16_[23]?4") == [
        "deit_base_distilled_patch16_224",
        "deit_base_distilled_patch16_384",
        "deit_base_patch16_224",
        "deit_base_patch16_384",
        "deit_small_distilled_patch16_224",
        "deit_small_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "deit_tiny_patch16_224",
    ]
    assert list_models("alexnet*") == []


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize(
    ("pattern", "there", "not_there"),
    [
        ("ViT-B*", "ViT-B/16", "vit_base_patch16_224"),
        ("R50*", "R50+B/16", "vit_base_r50_s16_224"),
        ("timm/vit_tiny*", "timm/vit_tiny_patch16_224.augreg_in21k", "timm/vit_tiny_patch16_224"),
        ("facebook/dinov2-*", "facebook/dinov2-base", "facebook/vit-mae-base"),
        ("google/*", "google/siglip2-base-patch16-224", "facebook/dinov2-base"),
        ("openai/*", "openai/clip-vit-base-patch32", "ViT-B/16"),
        ("gs://*", "gs://vit_models/imagenet21k/ViT-B_16.npz", "ViT-B/16"),
    ],
)
def test_names_of_papers_and_of_the_hub_are_listed(pattern, there, not_there, pretrained):
    names = list_models(pattern, pretrained)
    papers = pattern.startswith(("ViT", "R50"))
    assert (there in names) == (not (papers and pretrained))
    assert not_there not in names
    assert len(names) == len(set(names))
    for name in names:
        resolve(name)


def test_published_weights_are_listed_by_tag():
    assert list_models("vit_large_r50*", pretrained=True) == [
        "vit_large_r50_s32_224.augreg_in21k",
        "vit_large_r50_s32_224.augreg_in21k_ft_in1k",
        "vit_large_r50_s32_384.augreg_in21k_ft_in1k",
    ]
    # A pattern that begins with a wildcard is about architectures, as ever.
    assert not [name for name in list_models("*dinov2*") if "/" in name]


def test_every_listed_name_resolves_to_itself():
    names = list_models()
    assert len(names) == len(set(names))
    plain = [name for name in names if isinstance(resolve(name)[1], ViTConfig)]
    assert len(plain) == 255
    assert all(resolve(name)[0] == name for name in names)
    for name in plain:
        config = resolve(name)[1]
        patch = re.search(r"_patch(\d+)", name)
        resolution = re.search(r"_(\d+)$", name)
        assert patch is None or config.patch_size == (int(patch[1]),) * 2
        assert resolution is None or config.image_size == (int(resolution[1]),) * 2 or "siglip" in name
    assert {name.split("_")[1] for name in plain} >= set(SIZES) == set(LETTERS.values())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ViT-B/16", "vit_base_patch16_224"),
        ("B/16", "vit_base_patch16_224"),
        ("vit-b/16", "vit_base_patch16_224"),
        ("ViT-B/16@384", "vit_base_patch16_384"),
        ("ViT-Ti/16", "vit_tiny_patch16_224"),
        ("ti/4@32", "vit_tiny_patch4_32"),
        ("ViT-So400m/14", "vit_so400m_patch14_224"),
        ("so400m/14@378", "vit_so400m_patch14_378"),
        ("ViT-g/14", "vit_giant_patch14_224"),
        ("ViT-G/14", "vit_gigantic_patch14_224"),
        ("g-opt/16@256", "vit_giantopt_patch16_256"),
        ("mu/16", "vit_mu_patch16_224"),
        ("e/14", "vit_enormous_patch14_224"),
    ],
)
def test_aliases(alias, name):
    assert resolve(alias) == resolve(name)
    assert resolve(alias)[0] == name


def test_any_patch_and_resolution_parse():
    name, config = resolve("vit_tiny_patch4_32")
    assert name == "vit_tiny_patch4_32"
    assert (config.image_size, config.patch_size, config.width) == ((32, 32), (4, 4), 192)
    assert resolve("vit_small_patch64_256")[1].grid == (4, 4)


def test_vit_configuration():
    config = resolve("vit_base_patch16_224")[1]
    assert (config.width, config.depth, config.heads, config.mlp_dim) == (768, 12, 12, 3072)
    assert (config.num_classes, config.pool, config.class_position, config.layer_scale) == (
        1000,
        "cls",
        True,
        None,
    )
    assert (config.preprocessing.mean, config.preprocessing.std) == (INCEPTION_MEAN, INCEPTION_STD)
    assert (config.preprocessing.crop, config.preprocessing.interpolation) == (0.9, "bicubic")


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_384", "vit_so400m_patch14_378", "deit_base_patch16_384", "deit3_large_patch16_384"],
)
def test_high_resolution_is_evaluated_without_margin(name):
    assert resolve(name)[1].preprocessing.crop == 1.0


def test_deit_configuration():
    vit, deit, deit3 = (resolve(f"{family}_small_patch16_224")[1] for family in ("vit", "deit", "deit3"))
    for config in (deit, deit3):
        assert (config.preprocessing.mean, config.preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)
        assert config.preprocessing.crop == 0.9
        assert config.init == "trunc_normal"
    assert vit.init == "jax"
    assert (deit.class_position, deit.layer_scale) == (True, None)
    assert (deit3.class_position, deit3.layer_scale, deit3.position_slots) == (False, 1e-6, 196)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vit_bse_patch16_224", "vit_base_patch16_224"),
        ("vit_base_patch16_224.augreg", "vit_base_patch16_224"),
        ("deit3_smal_patch16_224", "deit3_small_patch16_224"),
        ("ViT-Bb/16", "ViT-B/16"),
        ("vit_base_patch0_224", "vit_base_patch16_224"),
    ],
)
def test_unknown_names_get_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"does not exist. Did you mean .*'{nearest}'") as info:
        resolve(name)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "name", ["", "quux", "VIT_BASE_PATCH16_224", "ViT-G-OPT/16", "vit_base_patch16_224\n"]
)
def test_not_a_name(name):
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(name)


def test_patch_that_does_not_divide_gets_the_nearest_resolutions():
    with pytest.raises(
        ConfigError, match="384, not divisible by patch size 14; the nearest sizes are 378 or 392"
    ):
        resolve("ViT-So400m/14@384")


def test_names_and_flops_do_not_import_jax():
    code = "import sys, vit_jax.models.names.resolve, vit_jax.models.flops; print({'jax', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("paper", "timms"),
    [
        ("R+Ti/16", "vit_tiny_r_s16_p8_224"),
        ("R26+S/32", "vit_small_r26_s32_224"),
        ("R26+B/32", "vit_base_r26_s32_224"),
        ("R50+ViT-B/16", "vit_base_r50_s16_224"),
        ("R50+L/32@384", "vit_large_r50_s32_384"),
    ],
)
def test_hybrids_have_the_papers_names(paper, timms):
    assert resolve(paper) == resolve(timms)
