"""Every tag of timm in our families means the same model, size and preprocessing here."""

import json
import re
from pathlib import Path

import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.flops import parameter_count
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.names.published import timm_tags
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.preprocessing import Preprocessing

FACTS = json.loads((Path(__file__).parent.parent / "reference" / "timm_tags.json").read_text())
TAGS = {
    f"{architecture}.{tag}": facts
    for architecture, tags in FACTS["tags"].items()
    for tag, facts in tags.items()
}

# What our configuration has no words for: keys and values that several heads share, in some of the blocks.
REFUSED = re.compile(r"vit_(large|huge|giant|5b)_patch16_sapiens2.*")
KNOWN = [name for name in TAGS if not REFUSED.fullmatch(name)]


def test_the_table_is_whole():
    assert len(TAGS) == 443
    assert len(KNOWN) == 439


@pytest.mark.parametrize("architecture", FACTS["tags"])
def test_tags(architecture):
    for tag in FACTS["tags"][architecture]:
        name = f"{architecture}.{tag}"
        if name not in KNOWN:
            with pytest.raises(ConfigError, match="does not exist"):
                resolve(name)
            continue
        size, number, classes, parameters = TAGS[name]
        size = pair(size, "image_size")
        canonical, config = resolve(name)
        assert canonical == name
        assert (config.num_classes, parameter_count(config)) == (classes, parameters), name
        mean, std, *rest = FACTS["preprocessing"][number]
        expected = Preprocessing(tuple(mean), tuple(std), *rest)
        if size[0] % config.patch_size[0]:
            # Patches of 14 pixels cover 378 of 384.
            assert (size, config.image_size) == ((384, 384), (378, 378))
            assert config.preprocessing.resized((378, 378)) == expected.resized(size)
        else:
            assert (config.image_size, config.preprocessing) == (size, expected), name


@pytest.mark.parametrize("architecture", sorted({name.split(".")[0] for name in KNOWN}))
def test_architectures(architecture):
    *sizes, activation, epsilon, pool, norm, prefix, scaled = FACTS["architectures"][architecture]
    config = resolve(architecture)[1]
    if config.parallel != "none":  # of whose blocks the table knows little
        assert sizes == [config.width, config.depth, 0, 0]
    else:
        assert [config.width, config.depth, config.heads, config.mlp_dim] == sizes
        # timm names the gate's function.
        assert ("silu" if config.mlp == "swiglu" else config.activation) == activation
        assert config.norm_epsilon == epsilon
    assert (config.pool, config.pool_norm) == (pool, norm)
    assert (config.prefix_tokens, config.layer_scale is not None) == (prefix, scaled)
    assert architecture in list_models()


def test_what_is_listed_is_what_is_published():
    listed = {f"{architecture}.{tag}" for architecture, tags in timm_tags().items() for tag in tags}
    assert listed == set(KNOWN) <= set(list_models("*", pretrained=True))


@pytest.mark.parametrize("prefix", ["timm/", "hf-hub:timm/", "hf_hub:timm/", "hf://timm/"])
def test_names_of_the_hub(prefix):
    name = "vit_base_patch16_clip_224.openai"
    assert resolve(prefix + name) == resolve(name)


@pytest.mark.parametrize(
    ("name", "patch", "resolution"),
    [
        ("vit_base_patch8_clip_64.openai", 8, 64),
        ("beit_base_patch32_96", 32, 96),
        ("vit_small_patch16_dinov2", 16, 518),
        ("vit_small_r26_s32_96", 1, 96),
    ],
)
def test_any_patch_and_resolution_parse(name, patch, resolution):
    if resolution % patch:
        with pytest.raises(ConfigError, match="518, not divisible by patch size 16"):
            resolve(name)
    else:
        config = resolve(name)[1]
        assert (config.patch_size, config.image_size) == ((patch, patch), (resolution, resolution))


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224.",
        "vit_base_patch16_224.openai",
        "vit_base_patch16_224.dino.dino",
        ".dino",
        "eva_7b",
    ],
)
def test_wrong_tags_are_refused(name):
    with pytest.raises(ConfigError, match="does not exist") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
