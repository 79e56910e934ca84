"""BEiT: transformers' loss, the tokenizer of DALL-E, codes of the same crop, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.objectives.steps import assert_divided_steps_are_whole_ones, configuration
from tests.parity.sources import prepare
from tests.reference.cases import HERE, assert_close, load_case, nhwc, tolerance, weights_file
from tests.tiny import labelled, randomised, tiny
from vit_jax.data.images.resizing import resize
from vit_jax.data.transforms.base import MisfitError
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError
from vit_jax.models.flops import forward_macs, parameter_count, training_flops
from vit_jax.models.functional import buffers_of
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.registry import model_functions
from vit_jax.models.swin.config import SwinConfig
from vit_jax.models.tokenizers.dalle_config import DalleEncoderConfig
from vit_jax.models.tokenizers.vq_config import VqTokenizerConfig
from vit_jax.objectives.base import DataInfo, Moment
from vit_jax.objectives.beit.losses import token_losses
from vit_jax.objectives.beit.objective import Beit, build
from vit_jax.objectives.beit.options import BeitOptions
from vit_jax.objectives.masked.model import masked_model
from vit_jax.trees import flatten
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.load import load
from vit_jax.weights.native import save_native

DALLE = DalleEncoderConfig(hidden=4, blocks=2, vocabulary=9)
VIT = tiny(depth=1, class_token=False, num_classes=0, pool="mean", position="sincos2d_mae")
VQ = VqTokenizerConfig(VIT, VIT, vocabulary=7, code_width=4)
VQ_MACS = forward_macs(VIT) + 16 * 4 * (VIT.width + 7)


def dalle_arrays(config=DALLE, seed=0):
    """Arrays as OpenAI's module names them."""
    rng, arrays = np.random.default_rng(seed), {}

    def conv(name, inputs, outputs, side):
        arrays[f"blocks.{name}.w"] = rng.standard_normal((outputs, inputs, side, side), np.float32) / side
        arrays[f"blocks.{name}.b"] = rng.standard_normal(outputs, np.float32)

    conv("input", config.in_channels, config.hidden, 7)
    for number, (inputs, outputs) in enumerate(config.widths):
        name = f"group_{number // config.blocks + 1}.block_{number % config.blocks + 1}"
        for layer, sizes in enumerate([(inputs, outputs // 4, 3), *[(outputs // 4, outputs // 4, 3)] * 2], 1):
            conv(f"{name}.res_path.conv_{layer}", *sizes)
        conv(f"{name}.res_path.conv_4", outputs // 4, outputs, 1)
        if inputs != outputs:
            conv(f"{name}.id_path", inputs, outputs, 1)
    conv("output.conv", config.widths[-1][1], config.vocabulary, 1)
    return arrays


def dalle_file(path, config=DALLE):
    arrays = dalle_arrays(config)
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(path, specs, arrays.__getitem__, {"format": "pt"})
    return str(path)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Files of both kinds."""
    folder = tmp_path_factory.mktemp("tokenizers")
    functions = model_functions(VQ)
    params = randomised(functions.abstract) | randomised(functions.abstract_buffers, 1)
    save_native(folder / "vq", VQ, flatten(params), ())
    return {"dalle": dalle_file(folder / "encoder.safetensors"), "vq": str(folder / "vq")}


def test_the_loss_is_that_of_transformers(tmp_path):
    about, arrays, _ = load_case("beit_hf_mim")
    model = load(prepare(about, weights_file("beit_hf_mim"), tmp_path)[0], verbose=False)
    assert masked_model(model.config, "BEiT", 50) == model.config
    ours = Beit(model.config, BeitOptions("it"), dataclasses.replace(DALLE, vocabulary=50))
    hidden = jnp.asarray(arrays["in.bool_masked_pos"], bool)
    codes = (
        jnp.zeros(hidden.shape, jnp.int32).at[jnp.nonzero(hidden)].set(arrays["in.labels"].astype(np.int32))
    )
    batch = {"image": jnp.asarray(nhwc(arrays["in.pixel_values"])), "codes": codes, "hidden": hidden}
    loss, out = jax.jit(ours.loss)(parameters_of(model), {}, batch, None)
    assert_close(loss, arrays["out.loss"], tolerance(about, "loss"), "loss")
    assert float(out.weight) == len(arrays["in.labels"])
    right = arrays["out.logits"][arrays["in.bool_masked_pos"]].argmax(-1) == arrays["in.labels"]
    np.testing.assert_allclose(out.metrics["token_accuracy"], right.mean(), rtol=1e-5)


def test_cross_entropy_in_closed_form():
    losses, right = token_losses(jnp.asarray([[[0.0, 0.0], [3.0, 0.0]]]), jnp.asarray([[1, 0]]))
    np.testing.assert_allclose(losses, [[np.log(2), np.log1p(np.exp(-3))]], rtol=1e-5)
    np.testing.assert_array_equal(right, [[0, 1]])


def convolution(x, kernel, bias):
    """A convolution of one map `(c, h, w)` in NumPy, as torch has it, padded with zeros."""
    side = kernel.shape[-1]
    p = side // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p)))
    out = np.zeros((len(kernel), *x.shape[1:]))
    for i in range(side):
        for j in range(side):
            out += np.einsum(
                "oi,ihw->ohw", kernel[:, :, i, j], padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            )
    return out + bias[:, None, None]


def test_dalles_encoder_computes_what_openais_module_does(tokenizers):
    model = vit_jax.load(tokenizers["dalle"], verbose=False)
    assert model.config == DALLE
    assert parameter_count(DALLE) == sum(leaf.size for leaf in flatten(parameters_of(model)).values())
    assert parameter_count(DalleEncoderConfig()) == 53_786_240
    arrays, image = dalle_arrays(), np.random.default_rng(1).random((16, 24, 3), np.float32)

    def conv(x, name):
        return convolution(x, arrays[f"blocks.{name}.w"].astype(np.float64), arrays[f"blocks.{name}.b"])

    x = conv(0.8 * image.transpose(2, 0, 1).astype(np.float64) + 0.1, "input")
    for group in range(1, 5):
        for block in (1, 2):
            name, branch = f"group_{group}.block_{block}", x
            for layer in range(1, 5):
                branch = conv(np.maximum(branch, 0), f"{name}.res_path.conv_{layer}")
            x = (conv(x, f"{name}.id_path") if f"blocks.{name}.id_path.w" in arrays else x) + branch / 64
        if group < 4:
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
    logits = conv(np.maximum(x, 0), "output.conv")
    mapped = (image - DALLE.preprocessing.mean[0]) / DALLE.preprocessing.std[0]
    ours = jax.jit(lambda x: (model(x), model.codes(x)))(jnp.asarray(mapped, jnp.float32)[None])
    np.testing.assert_allclose(ours[0][0], logits.transpose(1, 2, 0), atol=2e-5 * np.abs(logits).max())
    np.testing.assert_array_equal(ours[1][0], logits.argmax(0).reshape(-1))
    with pytest.raises(ConfigError, match=r"images are \(12, 16\); the sides .* multiples of 8"):
        model(jnp.zeros((1, 12, 16, 3)))


@pytest.mark.parametrize("name", ["dalle_module.pkl", "dalle_module_legacy.pkl"])
def test_a_module_saved_whole_is_read_as_openai_publishes_it(name):
    # Written by PyTorch 2.13: a module of classes called as those of the package dall_e, with 4 channels.
    folder = HERE / "torch"
    case = np.load(folder / "dalle_module.npz")
    model = load(folder / name, verbose=False)
    assert model.config == DalleEncoderConfig(hidden=4, blocks=1, vocabulary=9)
    about = model.config.preprocessing
    mapped = (case["image"] - np.asarray(about.mean)) / np.asarray(about.std)
    logits = jax.jit(lambda x: model(x))(jnp.asarray(mapped, jnp.float32))
    np.testing.assert_allclose(logits, case["logits"], atol=2e-5 * np.abs(case["logits"]).max())


def test_both_images_are_the_same_crop():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    steps = parse(
        "token_crop(24, 12, scale=(0.3, 0.6), antialias='pillow')|block_mask(4, most=6, min_area=2)"
    )
    example, rng = {"image": image, "record": "r"}, np.random.default_rng(3)
    boxes = []
    for size in (24, 12):  # the crop that random_resized_crop makes of the same random numbers
        (crop,) = parse(f"random_resized_crop({size}, scale=(0.3, 0.6), interpolation='bicubic')")
        boxes.append(crop.box(40, 60, np.random.default_rng(3)))
    assert boxes[0] == boxes[1]
    for step in steps:
        example = step(example, rng)
    top, left, h, w = boxes[0]
    part = image[top : top + h, left : left + w]
    assert (example["image"].shape, example["token_image"].shape) == ((24, 24, 3), (12, 12, 3))
    for name, size, kind in (("image", 24, "bicubic"), ("token_image", 12, "lanczos")):
        np.testing.assert_array_equal(example[name], resize(part, (size, size), kind))
    with pytest.raises(
        MisfitError, match="FlipLeftRight would move image and not token_image; put it before"
    ):
        parse("flip_lr")[0](example, rng)
    assert parse("color_jitter(0.4, 0.4, 0.4)")[0](example, rng)["token_image"] is example["token_image"]


def images(tokens, rows=4):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.random((rows, 16)) < 0.4)
    return labelled(rows) | {
        "token_image": labelled(rows, tokens, seed=1)["image"],
        "patch_mask": hidden.at[0].set(False),
        "mask": jnp.arange(rows) < 3,
    }


@pytest.mark.parametrize(
    ("kind", "tokens", "macs"), [("dalle", 32, DALLE.code_macs(16)), ("vq", 16, VQ_MACS)]
)
def test_codes_are_those_of_the_frozen_tokenizer(tokenizers, kind, tokens, macs):
    ours = build(tiny(depth=1), BeitOptions(tokenizers[kind]), DataInfo(5))
    assert ours.fields["token_image"].shape == (tokens, tokens, 3)
    assert ours.model.num_classes == ours.tokenizer.vocabulary
    frozen = load(tokenizers[kind], verbose=False)
    constants = {"tokenizer": parameters_of(frozen) | buffers_of(frozen)}
    now = ours.at(Moment(jnp.int32(0), 1, 1, constants))
    batch = images(tokens)
    prepared = jax.jit(now.prepare)(batch, jax.random.key(0))
    pixels = np.asarray(batch["token_image"], np.float32) / 255
    about = ours.tokenizer.preprocessing
    expected_images = jnp.asarray((pixels - about.mean) / about.std, jnp.float32)
    expected = frozen.codes(expected_images)
    np.testing.assert_array_equal(prepared["codes"], expected)
    assert prepared["codes"].max() < ours.tokenizer.vocabulary
    params = randomised(jax.eval_shape(now.init, jax.random.key(0))[0])
    sums = jax.jit(now.evaluate)(params, {}, batch)
    # Of four rows the last is padding, and nothing of the first is hidden.
    assert (float(sums["count"]), sums.keys()) == (2, {"loss", "token_accuracy", "count"})
    assert 0 < float(sums["loss"]) < 100
    assert now.train_flops - training_flops(now.model) == 2 * macs


def test_operations_of_dalles_encoder():
    """Those of a kernel are its values, times the places of its output: 32, 16, 8 and 4 to each side."""
    side, inputs = {0: 32, 1: 16, 2: 8, 3: 4}, (4, 4, 8, 16)
    count = 32**2 * 49 * 3 * 4 + 4**2 * 32 * 9
    for group, outputs in enumerate((4, 8, 16, 32)):
        inner = outputs // 4
        first = 9 * inputs[group] * inner + (inputs[group] != outputs) * inputs[group] * outputs
        count += side[group] ** 2 * (first + 9 * outputs * inner + 2 * (18 * inner**2 + inner * outputs))
    assert DALLE.code_macs(16) == count


def test_divided_steps_are_whole_ones(tokenizers):
    def make():
        config = configuration(
            {"name": "beit", "tokenizer": tokenizers["vq"]}, image_size=16, patch_size=4, in_channels=3
        )
        hidden = "token_image(16)|block_mask(4, most=6, min_area=2)"
        config.data.train_transforms = config.data.eval_transforms = hidden
        return config

    experiment, state, _ = assert_divided_steps_are_whole_ones(make, ("loss", "token_accuracy"))
    assert not state.buffers
    constants = experiment.devices.constants
    assert "encoder/patch_embed/kernel" in flatten(constants.values["tokenizer"])
    assert experiment.task.objective.model.num_classes == 7


def test_what_cannot_be_learned_is_refused(tokenizers, tmp_path):
    for value in ("", 3):
        with pytest.raises(ConfigError, match=f"tokenizer is {value!r}; BEiT predicts the codes of a frozen"):
            BeitOptions(value)
    with pytest.raises(ConfigError, match="which holds a model of family 'vit'; it must be a tokenizer"):
        build(tiny(), BeitOptions(str(weights_file("vit_timm_token"))), DataInfo(5))
    with pytest.raises(ConfigError, match=r"takes images of \(16, 16\) .* the model has \(8, 8\) patches"):
        build(tiny(image_size=32), BeitOptions(tokenizers["vq"]), DataInfo(5))
    swin = SwinConfig(image_size=16, patch_size=2, width=8, depths=(1, 1), heads=(1, 1), window_size=4)
    with pytest.raises(
        ConfigError, match=r"the last map of the model has \(4, 4\) places for \(8, 8\) patches"
    ):
        build(swin, BeitOptions(tokenizers["dalle"]), DataInfo(5))
    wrong = dalle_arrays() | {"blocks.output.conv.w": np.zeros((9, 5, 1, 1), np.float32)}
    specs = [(name, array.shape, array.dtype) for name, array in wrong.items()]
    safetensors_format.write(tmp_path / "wrong.safetensors", specs, wrong.__getitem__, {"format": "pt"})
    with pytest.raises(vit_jax.errors.CheckpointError, match="holds no encoder of DALL-E"):
        load(tmp_path / "wrong.safetensors", verbose=False)
