"""Files as their authors published them, made here from tiny models, load as the models they were made of."""

import json

import ml_dtypes
import numpy as np
import pytest

from tests.reference.cases import weights_file
from tests.weights import torch_writer
from tests.weights.checks import refused
from tests.weights.models import (
    BEIT,
    CLIP_PAIR,
    DINOV2,
    DINOV3,
    GOOGLE,
    HYBRID,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    assert_same,
    flat,
    opened,
    write,
)  # fmt: skip
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.names import resolve as model_names
from vit_jax.models.preprocessing import IMAGENET, INCEPTION
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.layouts.timm.config import with_arguments
from vit_jax.weights.layouts.timm.shapes import heads_of
from vit_jax.weights.load import open_pretrained


def arrays_of(config, tmp_path, format, **options):
    """What a model is as arrays of a library, and its documents."""
    path = tmp_path / ("made.npz" if format == "npz" else "made")
    write(config, path, format, **options)
    raw = open_checkpoint(path)
    return {name: tensor.read() for name, tensor in raw.tensors.items()}, dict(raw.documents)


def npz(path, arrays):
    np.savez(path, **arrays)
    return path


def pth(path, content, arrays):
    """A file of torch's with arrays at the leaves of `content`, a function of the state dict."""
    tensors, storages = torch_writer.state_dict(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    )
    return torch_writer.save_zip(path, content(tensors), storages)


def safetensors(folder, arrays, documents=None):
    folder.mkdir(exist_ok=True)
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(folder / "model.safetensors", specs, lambda name: arrays[name], {})
    for name, document in (documents or {}).items():
        (folder / name).write_text(json.dumps(document))
    return folder


# Google's files.

LINEN = {"MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0", "LayerNorm_2": "LayerNorm_1",
         "MlpBlock_3": "MlpBlock_0"}  # fmt: skip


def linen(arrays):
    def renamed(name):
        for old, new in LINEN.items():
            name = name.replace(f"/{old}/", f"/{new}/")
        return name

    return {renamed(name): array for name, array in arrays.items()}


def stacked(arrays, tower="Transformer"):
    """Blocks in arrays with a leading axis."""
    found = {}
    for name in arrays:
        first, block, rest = name.partition("encoderblock_0/")
        if block and tower in first:
            depth = sum(n.startswith(f"{first}encoderblock_") and n.endswith(f"/{rest}") for n in arrays)
            parts = [arrays[f"{first}encoderblock_{i}/{rest}"] for i in range(depth)]
            found[f"{first}encoderblock/{rest}"] = np.stack(parts)
        elif f"{tower}/encoderblock_" not in name:
            found[name] = arrays[name]
    return found


def raw_bits(arrays):
    """bfloat16 as numpy reads it from files of those who have it: two bytes without a type."""
    return {name: array.astype(ml_dtypes.bfloat16).view("V2") for name, array in arrays.items()}


GOOGLES = {
    "before Linen": lambda arrays: arrays,
    "Linen": linen,
    "stacked": lambda arrays: stacked(linen(arrays)),
    "params": lambda arrays: {f"params/{name}": array for name, array in linen(arrays).items()},
    "optimizer": lambda arrays: {
        "opt/state/step": np.array(7),
        **{f"opt/state/param_states/{name}/grad_ema": array for name, array in arrays.items()},
        **{f"opt/target/{name}": array for name, array in arrays.items()},
    },
}


@pytest.mark.parametrize("kind", GOOGLES)
def test_names_of_googles_files(kind, tmp_path):
    arrays, _ = arrays_of(GOOGLE, tmp_path, "npz")
    config, params = opened(npz(tmp_path / "ViT.npz", GOOGLES[kind](arrays)))
    assert config == replace(GOOGLE, unroll=0)
    assert_same(flat(GOOGLE), params)


def test_google_without_slot_of_the_class(tmp_path):
    config = replace(GOOGLE, class_position=False)
    arrays, _ = arrays_of(config, tmp_path, "npz")
    assert "params/pos_embedding" in arrays
    for name, prefix in (("a", ""), ("b", "opt/target/")):
        named = {name.replace("params/", prefix): array for name, array in arrays.items()}
        read, params = opened(npz(tmp_path / f"{name}.npz", named))
        assert read == replace(config, unroll=0)
        assert_same(flat(config), params)


def test_google_pre_logits_and_zero_heads(tmp_path):
    config = replace(GOOGLE, representation_size=32)
    arrays, _ = arrays_of(config, tmp_path, "npz")
    read, params = opened(npz(tmp_path / "ViT.npz", arrays))
    assert read == replace(config, unroll=0)
    assert_same(flat(config), params)
    tuned = open_pretrained(tmp_path / "ViT.npz", num_classes=3)
    assert tuned.config.representation_size == 0
    assert sorted(tuned.report.dropped) == [
        "head/bias",
        "head/kernel",
        "pre_logits/bias",
        "pre_logits/kernel",
    ]


def test_google_sincos_has_no_table_and_its_size_is_in_the_name(tmp_path):
    config = replace(
        GOOGLE,
        position="sincos2d_big_vision",
        class_token=False,
        pool="mean",
        image_size=32,
        representation_size=32,
    )
    arrays, _ = arrays_of(replace(config, image_size=224, patch_size=32), tmp_path, "npz")
    assert not any("pos_embedding" in name for name in arrays)
    read, params = opened(npz(tmp_path / "vit_i1k_256.npz", arrays))
    assert read.position == "sincos2d_big_vision"
    assert read.image_size == (256, 256)
    assert_same(flat(replace(config, image_size=224, patch_size=32)), params)


def test_google_hybrid_with_norms_of_four_axes(tmp_path):
    arrays, _ = arrays_of(HYBRID, tmp_path, "npz")
    wide = {name: a.reshape(1, 1, 1, -1) if "gn" in name else a for name, a in arrays.items()}
    read, params = opened(npz(tmp_path / "R26.npz", wide))
    assert read == replace(HYBRID, unroll=0)
    assert_same(flat(HYBRID), params)


def test_google_bits_without_a_type(tmp_path):
    arrays, _ = arrays_of(GOOGLE, tmp_path, "npz")
    params = opened(npz(tmp_path / "ViT.npz", raw_bits(arrays)))[1]
    for path, array in flat(GOOGLE).items():
        rounded = np.asarray(array).astype(ml_dtypes.bfloat16).astype(np.float32)
        assert np.array_equal(params[path], rounded), path


def test_siglip_of_all_ages(tmp_path):
    arrays, _ = arrays_of(SIGLIP_PAIR, tmp_path, "npz")
    assert {"params/t", "params/b", "params/img/MAPHead_0/probe", "params/txt/head/bias"} <= arrays.keys()
    table = arrays["params/txt/pos_embedding"]
    half = {"params/txt/pos_embedding": table / 2, "params/txt/Encoder_0/pos_embedding": table / 2}
    for name, found in (
        ("new", arrays),
        ("doubled", arrays | half),
        ("bare", {name.removeprefix("params/"): array for name, array in arrays.items()}),
        ("stacked", stacked(stacked(arrays), "Encoder_0")),
    ):
        config, params = opened(npz(tmp_path / f"{name}.npz", found))
        assert config.logit_bias
        assert config.text.context_length == 8
        assert_same(flat(SIGLIP_PAIR), params)


# Authors' own .pth files, which say nothing but names and shapes.


def own_names(arrays, *changes):
    found = {}
    for name, array in arrays.items():
        for old, new in changes:
            name = name.replace(old, new)
        found[name] = array
    return found


def timm_arrays(config, tmp_path):
    ignored = ("mask_token",) if getattr(config, "mask_token", False) else ()
    return arrays_of(config, tmp_path, "timm", ignore=ignored)[0]


def assert_loads(path, config, **fields):
    read, params = opened(path)
    for field, value in fields.items():
        assert getattr(read, field) == value, field
    assert_same(flat(config), params)
    return read


def test_dino(tmp_path):
    config = replace(PLAIN, num_classes=0)
    arrays = timm_arrays(config, tmp_path)
    heads = {f"module.head.mlp.{i}.weight": np.ones((4, 4), np.float32) for i in (0, 2)}
    heads |= {"module.head.last_layer.weight_g": np.ones((4, 1), np.float32)}
    named = {f"module.backbone.{name}": array for name, array in arrays.items()}
    path = pth(tmp_path / "dino.pth", lambda tensors: {"teacher": tensors, "epoch": 3}, named | heads)
    read = assert_loads(path, config, heads=2, num_classes=0, pool="cls", norm_epsilon=1e-6)
    assert read.preprocessing == IMAGENET


def test_dinov2_in_chunks_with_registers_and_gates(tmp_path):
    config = replace(
        DINOV2,
        pool="cls",
        num_classes=0,
        register_tokens=2,
        class_position=True,
        mlp="swiglu",
        mlp_dim=48,
        mask_token=False,
    )
    whole = replace(config, class_position=False)
    arrays = own_names(
        timm_arrays(whole, tmp_path),
        ("reg_token", "register_tokens"), ("mlp.fc1.", "mlp.w12."), ("mlp.fc2.", "mlp.w3."), ("blocks.", "blocks.0."),
    )  # fmt: skip
    arrays["pos_embed"] = np.concatenate([np.zeros_like(arrays["pos_embed"][:, :1]), arrays["pos_embed"]], 1)
    arrays["mask_token"] = np.zeros((1, 32), np.float32)
    path = pth(tmp_path / "dinov2.pth", lambda tensors: tensors, arrays)
    read, params = opened(path)
    assert (read.mlp, read.mlp_dim, read.register_tokens, read.class_position) == ("swiglu", 48, 2, True)
    assert read.mask_token
    expected = dict(flat(whole))
    assert not np.any(params.pop("mask_token"))
    assert np.array_equal(params.pop("pos_embed")[1:], expected.pop("pos_embed"))
    assert_same(expected, params)


def test_deit_and_its_third_version(tmp_path):
    arrays = timm_arrays(PLAIN, tmp_path)
    path = pth(tmp_path / "deit.pth", lambda tensors: {"model": tensors}, arrays)
    assert_loads(path, PLAIN, num_classes=5, layer_scale=None)
    third = replace(PLAIN, layer_scale=1e-5, class_position=False)
    arrays = own_names(
        timm_arrays(third, tmp_path / "third"), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2")
    )
    path = pth(tmp_path / "deit3.pth", lambda tensors: {"model": tensors}, arrays)
    assert_loads(path, third, class_position=False)


def test_what_may_be_deit3_or_a_rope_vit_is_not_guessed():
    refused(lambda: open_pretrained(weights_file("eva_timm_rope_ape")), "do not tell which")


def test_mae_with_its_decoder(tmp_path):
    arrays = timm_arrays(MAE.encoder, tmp_path)
    decoder = {
        name.removeprefix("decoder/"): np.asarray(a) for name, a in flat(MAE).items() if "decoder/" in name
    }
    arrays["mask_token"] = decoder["mask_token"][None].reshape(1, 1, -1)
    named = mae_names(decoder)
    path = pth(tmp_path / "mae.pth", lambda tensors: {"model": tensors}, arrays | named)
    expected = {f"encoder/{name}": a for name, a in flat(MAE.encoder).items()}
    expected |= {f"decoder/{name}": a for name, a in decoder.items()}
    read, params = opened(path)
    assert isinstance(read, MaeConfig)
    # Published decoders are 512 wide with 16 heads; others have heads of 32.
    assert (read.decoder.depth, read.decoder.width, read.decoder.num_classes) == (1, 32, 48)
    assert_same({n: np.asarray(a).reshape(params[n].shape) for n, a in expected.items()}, params)
    encoder = open_pretrained(path, num_classes=3)
    assert encoder.config.num_classes == 3
    assert encoder.report.new == {"head/kernel": "zero", "head/bias": "zero"}


def mae_names(decoder):
    """The decoder in the words of MAE's own code."""
    found = {"decoder_pos_embed": decoder["pos_embed"][None]}
    for ours, theirs in (("embed", "decoder_embed"), ("head", "decoder_pred")):
        found |= {f"{theirs}.weight": decoder[f"{ours}/kernel"].T, f"{theirs}.bias": decoder[f"{ours}/bias"]}
    for part, name in (("scale", "weight"), ("bias", "bias")):
        found[f"decoder_norm.{name}"] = decoder[f"norm/{part}"]
        for norm in ("norm1", "norm2"):
            found[f"decoder_blocks.0.{norm}.{name}"] = decoder[f"blocks/{norm}/{part}"][0]
    for ours, theirs, inputs in (("attn/qkv", "attn.qkv", 1), ("attn/out", "attn.proj", 2), ("mlp/fc1", "mlp.fc1", 1),
                                 ("mlp/fc2", "mlp.fc2", 1)):  # fmt: skip
        kernel = decoder[f"blocks/{ours}/kernel"][0]
        rows = int(np.prod(kernel.shape[:inputs]))
        found[f"decoder_blocks.0.{theirs}.weight"] = kernel.reshape(rows, -1).T
        found[f"decoder_blocks.0.{theirs}.bias"] = decoder[f"blocks/{ours}/bias"][0].reshape(-1)
    return found


def test_beit_with_shared_tables(tmp_path):
    config = replace(BEIT, position_bias="shared")
    arrays = timm_arrays(config, tmp_path)
    arrays["rel_pos_bias.relative_position_index"] = np.zeros((17, 17), np.int64)
    arrays["blocks.0.attn.relative_position_index"] = np.zeros((17, 17), np.int64)
    path = pth(tmp_path / "beit.pth", lambda tensors: {"module": tensors}, arrays)
    read = assert_loads(
        path, config, position_bias="shared", k_bias=False, image_size=(16, 16), pool_norm="after"
    )
    assert read.preprocessing == INCEPTION


def test_dinov3(tmp_path):
    arrays = own_names(timm_arrays(replace(DINOV3, mask_token=False), tmp_path), ("reg_token", "storage_tokens"),
                       (".gamma_1", ".ls1.gamma"), (".gamma_2", ".ls2.gamma"))  # fmt: skip
    arrays["mask_token"] = np.zeros((1, 32), np.float32)
    arrays["rope_embed.periods"] = np.ones(4, np.float32)
    for i in range(2):
        q, v = (arrays.pop(f"blocks.{i}.attn.{part}_bias") for part in "qv")
        arrays[f"blocks.{i}.attn.qkv.bias"] = np.concatenate([q, np.full(32, 9, np.float32), v])
        arrays[f"blocks.{i}.attn.qkv.bias_mask"] = np.repeat(np.array([1, 0, 1], np.float32), 32)
    path = pth(tmp_path / "dinov3.pth", lambda tensors: tensors, arrays)
    read, params = opened(path)
    assert (read.rope, read.position, read.register_tokens) == ("dinov3", "none", 2)
    assert (read.k_bias, read.norm_epsilon) == (False, 1e-5)
    params.pop("mask_token")
    assert_same(flat(replace(DINOV3, mask_token=False)), params)


def test_ijepa(tmp_path):
    config = replace(PLAIN, class_token=False, pool="mean", num_classes=0)
    arrays = {f"module.{name}": array for name, array in timm_arrays(config, tmp_path).items()}
    path = pth(tmp_path / "ijepa.pth", lambda tensors: {"encoder": tensors, "epoch": 1}, arrays)
    assert_loads(path, config, class_token=False, pool="mean")


@pytest.mark.parametrize(
    ("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (1408, 16)]
)
def test_published_widths_have_their_heads(width, heads):
    assert heads_of(width) == heads


# transformers.


def hf(config, tmp_path, **options):
    return arrays_of(config, tmp_path, "hf", **options)


def test_names_of_a_backbone_alone_and_in_a_classifier(tmp_path):
    arrays, documents = hf(PLAIN, tmp_path)
    assert any(name.startswith("vit.embeddings.") for name in arrays)
    bare = {n.removeprefix("vit."): a for n, a in arrays.items() if not n.startswith("classifier.")}
    read, params = opened(safetensors(tmp_path / "bare", bare, documents))
    assert read.num_classes == 0
    assert_same({n: a for n, a in flat(PLAIN).items() if not n.startswith("head/")}, params)


def test_files_in_parts(tmp_path):
    arrays, documents = hf(PLAIN, tmp_path)
    folder, names = tmp_path / "parts", list(arrays)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        safetensors(folder, {name: arrays[name] for name in part}, documents)
        (folder / "model.safetensors").rename(folder / file)
    places = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(flat(PLAIN), opened(folder)[1])


def test_without_a_description(tmp_path):
    arrays, documents = hf(PLAIN, tmp_path)
    refused(lambda: opened(safetensors(tmp_path / "none", arrays)), "no config.json beside it")
    documents["config.json"]["model_type"] = "vitt"
    line = refused(lambda: opened(safetensors(tmp_path / "other", arrays, documents)), "model_type 'vitt'")
    assert "Did you mean 'vit'" in line


def test_decoder_by_its_newer_name(tmp_path):
    arrays, documents = hf(MAE, tmp_path)
    assert "decoder.decoder_layers.0.output.dense.weight" in arrays
    newer = {n.replace("decoder_layers", "decoder_encoder.layer"): array for n, array in arrays.items()}
    assert_same(flat(MAE), opened(safetensors(tmp_path / "newer", newer, documents))[1])


def test_preprocessing_of_another_size_than_the_positions(tmp_path):
    config = replace(DINOV2, image_size=24)
    arrays, documents = hf(config, tmp_path)
    known = documents["preprocessor_config.json"]
    known |= {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True}
    folder = safetensors(tmp_path / "small", arrays, documents)
    pretrained = open_pretrained(folder)
    assert pretrained.config.image_size == (16, 16)
    assert pretrained.config.preprocessing.resized((16, 16)) == (18, 18)
    assert pretrained.report.changed == {"pos_embed": "6x6 -> 4x4, bicubic"}
    assert open_pretrained(folder, native_size=True).config.image_size == (24, 24)
    assert open_pretrained(folder, image_size=32).config.image_size == (32, 32)


def test_patches_that_leave_some_pixels_out(tmp_path):
    """SigLIP So400m/14 at 384: of 384 pixels, patches cover 378 from the top left."""
    arrays, documents = hf(SIGLIP_PAIR, tmp_path)
    documents["config.json"]["vision_config"]["image_size"] = 18
    documents["preprocessor_config.json"]["size"] = {"height": 18, "width": 18}
    pair = open_pretrained(safetensors(tmp_path / "uneven", arrays, documents)).config
    assert pair.image.image_size == (16, 16)
    assert pair.image.preprocessing.resized((16, 16)) == (18, 18)
    assert pair.image.preprocessing.crop_rounding == "corner"
    image = open_pretrained(tmp_path / "uneven", part="image").config
    assert image == pair.image
    arrays, documents = hf(PLAIN, tmp_path / "plain")
    documents["config.json"]["image_size"] = 18
    documents["preprocessor_config.json"] |= {"size": 18, "image_processor_type": "ViTImageProcessor"}
    config = open_pretrained(safetensors(tmp_path / "vit", arrays, documents)).config
    assert config.image_size == (16, 16)
    arrays, documents = arrays_of(PLAIN, tmp_path / "timm", "timm")
    documents["config.json"]["model_args"]["img_size"] = 18
    config = open_pretrained(safetensors(tmp_path / "patches", arrays, documents)).config
    assert config.image_size == (16, 16)


def test_end_tokens_of_clip(tmp_path):
    arrays, documents = hf(CLIP_PAIR, tmp_path)
    assert open_pretrained(safetensors(tmp_path / "new", arrays, documents)).config.text.pool == "eos"
    documents["config.json"]["text_config"]["eos_token_id"] = 2
    assert open_pretrained(safetensors(tmp_path / "old", arrays, documents)).config.text.pool == "argmax"


# timm's arguments.


def test_arguments_that_turn_things_off():
    eva = model_names.resolve("eva02_base_patch14_224")[1]
    plain = with_arguments(eva, {"use_rot_pos_emb": False, "swiglu_mlp": False, "scale_mlp": False}, "x")
    assert (plain.rope, plain.rope_grid, plain.mlp, plain.mlp_norm) == ("none", None, "mlp", False)
    assert with_arguments(eva, {"rope_temperature": 50}, "x").rope_theta == 50
    beit = model_names.resolve("beit_base_patch16_224")[1]
    off = with_arguments(beit, {"use_rel_pos_bias": False, "use_abs_pos_emb": True}, "x")
    assert (off.position_bias, off.position) == ("none", "learned")
    shared = with_arguments(beit, {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}, "x")
    assert shared.position_bias == "shared"
    clip = model_names.resolve("vit_base_patch16_clip_224")[1]
    assert with_arguments(clip, {"pre_norm": False}, "x").patch_bias
    vit = model_names.resolve("vit_base_patch16_224")[1]
    assert with_arguments(vit, {"use_rot_pos_emb": True}, "x").rope_theta == 10000
    assert (
        with_arguments(vit, {"init_values": None, "class_token": False, "global_pool": "avg"}, "x").pool
        == "mean"
    )
    refused(lambda: with_arguments(vit, {"attn_type": "linear"}, "x"), "attn_type='linear'")
    refused(lambda: with_arguments(vit, {"attn_layer": "linear"}, "x"), "attn_layer='linear'")
