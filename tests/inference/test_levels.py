"""Feature pyramids: levels by stride or name, in `load`, in predictions, and on the command line."""

import pickle
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.images import colour_folder
from tests.parity.sources import prepare
from tests.reference.cases import assert_close, load_case, nhwc, tolerance, weights_file
from tests.runs import run
from tests.tiny import parameters, pixels, tiny
from vit_jax.errors import ConfigError
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.pyramid.config import PyramidConfig
from vit_jax.models.registry import model_config, model_functions
from vit_jax.models.text.config import TextConfig

TOKEN = weights_file("vit_timm_token")  # patches of 8 pixels, 32 channels, 3 blocks, 32x32 pixels
SWIN = model_config("swin_tiny_patch4_window7_224")
STEM = tiny(stem=(6, 8), stem_strides=(2, 1), patch_size=4)


@pytest.mark.parametrize(
    ("name", "levels", "theirs"),
    [
        ("swin_timm_rect", (4, 8, 16), ("intermediates.0", "intermediates.1", "intermediates.2")),
        ("cvt_hf", (4, 8, 16), ("hidden_states.0", "hidden_states.1", "hidden_states.2")),
        ("hiera_hf_backbone", ("embedded", 4, "stages/-1"), ("feature_maps.0", "feature_maps.1", "feature_maps.4")),
        ("vit_timm_dynamic", ("blocks/-1", "blocks/0"), ("intermediates.2", "intermediates.0")),
    ],
)  # fmt: skip
def test_maps_are_those_of_the_other_libraries(name, levels, theirs, tmp_path):
    """Of timm's `features_only`, and of transformers' backbones; one of them at another size than the model's."""
    about, arrays, _ = load_case(name)
    source, options = prepare(about, weights_file(name), tmp_path)
    model = vit_jax.load(source, levels=levels, verbose=False, **options)
    images = nhwc(arrays["in.pixel_values"])
    with jax.default_matmul_precision("highest"):
        maps = jax.jit(lambda model, images: model(images))(model, images)
    assert len(maps) == len(theirs) == len(model.levels)
    for level, ours, output in zip(model.levels, maps, theirs):
        assert_close(ours, nhwc(arrays[f"out.{output}"]), tolerance(about, output), output)
        assert (ours.dtype, ours.shape[-1]) == (jnp.float32, level.channels)
        if images.shape[1:3] == model.config.encoder.image_size:
            assert ours.shape[1:3] == level.grid


def test_one_stride_becomes_many_only_when_it_is_said(tmp_path):
    with pytest.raises(
        ConfigError, match=r"stride 4, which no map of this model has; it has encoded \(stride 8\), "
    ):
        vit_jax.load(TOKEN, levels=(4, 8, 16, 32), verbose=False)
    model = vit_jax.load(TOKEN, levels=(4, 8, 16, "blocks/0@32"), resample=True, verbose=False)
    assert [level.name for level in model.levels] == ["encoded@4", "encoded", "encoded@16", "blocks/0@32"]
    assert [level.stride for level in model.levels] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert {level.channels for level in model.levels} == {32}
    images = pixels(2, 32, 64)  # non-square, and not the model's own size
    compiled = jax.jit(lambda model, images: model(images))
    quarter, own, half, block = compiled(model, images)
    for x, size in ((quarter, (8, 16)), (own, (4, 8)), (half, (2, 4)), (block, (1, 2))):
        assert x.shape == (2, *size, 32)
    np.testing.assert_allclose(quarter, jax.image.resize(own, quarter.shape, "bilinear"), atol=1e-5)
    np.testing.assert_allclose(half, jax.image.resize(own, half.shape, "bilinear"), atol=1e-5)
    # A plain model gives the same, and what is saved is loaded as it was.
    encoder = vit_jax.load(TOKEN, dynamic_image_size=True, verbose=False)
    assert [level.name for level in encoder.levels] == ["encoded"]
    same = encoder.features(images, ("encoded", "blocks/0@32"))
    for ours, theirs in zip((own, block), same):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    vit_jax.save(model, tmp_path / "pyramid")
    again = vit_jax.load(tmp_path / "pyramid")
    assert again.config == model.config
    for ours, theirs in zip(compiled(again, images), (quarter, own, half, block)):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ConfigError, match="timm has no Pyramid"):
        vit_jax.save(model, tmp_path / "timm", "timm")


def test_convolutions_before_patches_are_finer_levels():
    levels = ("stem/0", "stem/-1", 8)
    features = lambda images: model_functions(STEM).features(parameters(STEM), {}, images, levels=levels)  # noqa: E731
    maps = jax.eval_shape(features, pixels())
    assert [x.shape for x in maps] == [(2, 8, 8, 6), (2, 8, 8, 8), (2, 2, 2, 32)]
    assert [level.grid for level in PyramidConfig.of(STEM, levels).maps] == [(8, 8), (8, 8), (2, 2)]


def test_it_is_a_pure_function_with_gradients_and_nothing_after_the_last_level_is_computed():
    config, images = tiny(depth=3, unroll=0), pixels()
    params = {"encoder": parameters(config)}

    def compiled(level, differentiated):
        functions = model_functions(PyramidConfig.of(config, level))
        loss = lambda params, images: (functions.apply(params, images)[0] ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss) if differentiated else loss).lower(params, images).compile()

    gradient = compiled("blocks/0", True)(params, images)["encoder"]
    moved = np.abs(gradient["blocks"]["mlp"]["fc1"]["kernel"]).max(axis=(1, 2))
    assert moved[0] > 0
    assert not moved[1:].any()
    assert not np.any(gradient["head"]["kernel"])
    first, last = (compiled(level, False).cost_analysis()["flops"] for level in ("blocks/0", "blocks/2"))
    assert first < 0.5 * last


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), r"levels is empty; give some of encoded \(stride 16\)\.$"),
        ((8, 16), r"has stride 8, which no map of this model has; it has encoded \(stride 16\), and resample=True"),
        (16.0, r"levels has 16\.0; give strides in whole pixels, or names, of encoded \(stride 16\)\.$"),
        ((True,), r"levels has True; give strides in whole pixels"),
        ((None,), r"levels has None; give strides in whole pixels"),
        ((-16,), r"levels has -16; give strides in whole pixels"),
        ((np.int64(16), "encoded"), r"levels has 'encoded' twice \(as 'encoded'\); leave one out\.$"),
        (("blocks/11", "blocks/-1"), r"levels has 'blocks/11' twice \(as 'blocks/-1'\)"),
        ("blocks/12", r"'blocks/12' is not a level of this model; .*blocks/0 to blocks/11 .*Did you mean 'blocks/"),
        ("blocks/-13", r"'blocks/-13' is not a level of this model"),
        ("blocks", r"'blocks' is not a level of this model"),
        ("pooled", r"'pooled' is not a level of this model"),
        ("attention/0", r"'attention/0' is not a level of this model"),
        ("encoded@8.5", r"levels has 'encoded@8\.5'; after @ stands a stride in whole pixels"),
        ("encoded@0", r"after @ stands a stride in whole pixels"),
    ],
)  # fmt: skip
def test_levels_that_are_none_are_refused_in_one_line(levels, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PyramidConfig.of(model_config("vit_tiny_patch16_224"), levels)
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_go_together_and_models_without_maps():
    with pytest.raises(ConfigError, match="resample applies to levels; give levels"):
        vit_jax.load(TOKEN, resample=True)
    with pytest.raises(ConfigError, match="num_classes is 5, but maps are taken before the head"):
        vit_jax.load(TOKEN, levels=8, num_classes=5)
    with pytest.raises(
        ConfigError, match=r"stride 64.*it has stages/0 \(stride 4\), .*makes stages/3@64 of stages/3"
    ):
        PyramidConfig.of(SWIN, (4, 64))
    text = TextConfig(width=32, depth=2, heads=2, mlp_dim=64, vocab_size=50, context_length=8, num_classes=5)
    with pytest.raises(ConfigError, match="family 'text' gives no feature maps; choose an image encoder"):
        PyramidConfig.of(text, 4)
    naflex = model_functions(tiny()).bind(parameters(tiny()))
    with pytest.raises(ConfigError, match="sequences of patches of variable-size images have no maps"):
        naflex.features((pixels(), pixels()))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(str(TOKEN))


def test_a_predictor_gives_embeddings_and_maps(predictor):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    embeddings = predictor.features(images)
    last, first = predictor.features(images, ("encoded", "blocks/0"))
    assert (embeddings.shape, last.shape, first.shape) == ((2, 32), (2, 4, 4, 32), (2, 4, 4, 32))
    model = vit_jax.load(TOKEN, num_classes=0, verbose=False)
    inputs = vit_jax.preprocessing(model)(images)
    expected, captured = model(jnp.asarray(inputs), capture=("encoded", "blocks/0"))
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
    for ours, name in ((last, "encoded"), (first, "blocks/0")):
        theirs = captured[name][:, 1:].reshape(ours.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert predictor.features([], "encoded")[0].shape == (0, 4, 4, 32)
    (again,) = pickle.loads(pickle.dumps(predictor)).features(images, 8)
    np.testing.assert_array_equal(again, last)
    (near,) = predictor.stored("int8").features(images, 8)
    np.testing.assert_allclose(near, last, atol=0.1 * np.abs(last).max())
    with pytest.raises(ConfigError, match="stride 4, which no map of this model has"):
        predictor.features(images, (4, 8))


def test_maps_of_a_run_and_of_images_that_cannot_be_read(trained, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    sample = sorted((Path(trained.workdir) / "samples").glob("*.png"))[0]
    (maps,) = FeatureExtractor.load(trained.workdir).at("blocks/0").features([sample, bad], bad="skip")
    assert maps.shape == (2, 2, 2, 16)
    assert [bool(np.isnan(x).all()) for x in maps] == [False, True]
    model = vit_jax.load(trained.workdir, levels=(4,))
    assert (model.levels[0].name, model.levels[0].grid) == ("encoded", (2, 2))
    assert not any(path.startswith("head") for path in parameters_of(model)["encoder"])


def test_the_command_writes_maps(predictor, tmp_path):
    images = colour_folder(tmp_path / "colours", per_class=(1, 1)) / "val"
    output = tmp_path / "maps.npz"
    command = ("features", "--checkpoint", TOKEN, "--output", output, images)
    outcome = run(*command, "--levels", "8, blocks/-1@16")
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"{output}: maps of 3 images: encoded 4x4x32, blocks/2@16 2x2x32, 3 classes\n"
    with np.load(output) as arrays:
        assert sorted(arrays) == ["blocks/2@16", "class_names", "encoded", "files", "labels"]
        (expected,) = predictor.features(arrays["files"].tolist(), 8)
        np.testing.assert_allclose(arrays["encoded"], expected, rtol=1e-4, atol=1e-5)
    outcome = run(*command, "--levels", "8", "--pca", str(tmp_path / "pca.png"))
    assert outcome.status == 0, outcome.err
    assert f"picture: {tmp_path / 'pca.png'}" in outcome.out
    assert cv2.imread(str(tmp_path / "pca.png")).std() > 10
    assert "--pca is 'pca.jpg'; it must end with .png" in run(*command, "--pca", "pca.jpg").err
    outcome = run(*command, "--levels", "4,8")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "and --resample makes encoded@4 of encoded" in outcome.err
    outcome = run(*command, "--resample")
    assert outcome.status == 2
    assert outcome.err == "vit-jax: --resample applies to --levels; give --levels, or leave it out.\n"


def test_models_by_name_show_their_levels():
    lines = run("models", "swin_tiny_patch4_window7_224").out.splitlines()
    assert [line.split() for line in lines[3:6]] == [
        ["level", "channels", "stride", "grid"],
        ["stages/0", "96", "4x4", "56x56"],
        ["stages/1", "192", "8x8", "28x28"],
    ]
    assert lines[-1].endswith("blocks/10 to blocks/11 (stride 32), encoded (stride 32)")
    (row,) = run("models", "ViT-B/16", "--json").json()
    assert row["levels"] == [{"name": "encoded", "stride": [16, 16], "channels": 768, "grid": [14, 14]}]
