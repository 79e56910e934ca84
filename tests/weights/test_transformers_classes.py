"""The classes that transformers saves, made of the arrays of reference cases: each computes what its library computes.

`benchmarks/roundtrip.py` holds the same classes against transformers itself, in both directions.
"""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest

import vit_jax
from tests.reference.cases import assert_close, load_case, nhwc, tolerance
from tests.weights.checks import refused
from tests.weights.models import BEIT, assert_same, flat, opened, write
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.patches import Patches
from vit_jax.models.text.config import ImageTextConfig
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.load import load, open_pretrained

HEAD = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
BIAS = np.random.default_rng(1).standard_normal(5).astype(np.float32)
CLASSIFIER = {"classifier.weight": HEAD, "classifier.bias": BIAS}
LABELS = {"id2label": {str(i): name for i, name in enumerate("abcde")}}


def saved(folder, arrays, document, shards=1):
    """A folder as transformers saves it, in one file or in several with an index."""
    names, places = list(arrays), {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        own = names[number::shards]
        specs = [(name, arrays[name].shape, arrays[name].dtype) for name in own]
        safetensors_format.write(folder / file, specs, arrays.__getitem__, {"format": "pt"})
        places |= dict.fromkeys(own, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def part(weights, prefix, bare=True):
    """The arrays of a tower, as version 5 saves one alone (`bare`) or as version 4 did."""
    return {n.removeprefix(prefix) if bare else n: a for n, a in weights.items() if n.startswith(prefix)}


def layer_norm(x, weight, bias, epsilon):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon) * weight + bias


def close(ours, theirs, described, output, what):
    assert ours.shape == theirs.shape, f"{what} has shape {ours.shape}, theirs {theirs.shape}"
    # What is made of an output here has its noise and its size.
    scale = np.abs(theirs).max() / described["outputs"][output]["absmax"]
    assert_close(ours, theirs, max(1.0, scale) * tolerance(described, output), what)


@pytest.fixture(scope="module")
def clip():
    return load_case("clip_hf")


@pytest.fixture(scope="module")
def siglip():
    return load_case("siglip_hf")


def alone(description, part, **fields):
    about = description["hf_config_json"]
    model_type = f"{about['model_type']}_{part}_model"
    return {**about[f"{part}_config"], "model_type": model_type, **fields}


@pytest.mark.parametrize("bare", [True, False], ids=["version 5", "version 4"])
@pytest.mark.parametrize("model_type", ["clip", "metaclip_2", "chinese_clip"])
def test_clip_vision_model(clip, model_type, bare, tmp_path):
    about, arrays, weights = clip
    document = alone(about, "vision", model_type=f"{model_type}_vision_model")
    model = load(saved(tmp_path, part(weights, "vision_model.", bare), document), verbose=False)
    last = arrays["out.vision_model_output.last_hidden_state"]
    norm = (weights[f"vision_model.post_layernorm.{name}"] for name in ("weight", "bias"))
    pooled = layer_norm(last[:, 0], *norm, document["layer_norm_eps"])
    output, captured = model(nhwc(arrays["in.pixel_values"]), capture=("blocks/-1",))
    close(captured["blocks/-1"], last, about, "vision_model_output.last_hidden_state", "the last block")
    close(output, pooled, about, "vision_model_output.last_hidden_state", "the pooled output")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_clip_with_projection(clip, kind, tmp_path):
    about, arrays, weights = clip
    tower, projection = {"image": ("vision", "visual"), "text": ("text", "text")}[kind]
    own = part(weights, f"{tower}_model.", bare=False)
    own |= part(weights, f"{projection}_projection.", bare=False)
    model = load(saved(tmp_path, own, alone(about, tower)), verbose=False)
    given = nhwc(arrays["in.pixel_values"]) if kind == "image" else arrays["in.input_ids"].astype(np.int32)
    output = np.asarray(model(given))
    output = output / np.linalg.norm(output, axis=-1, keepdims=True)
    close(output, arrays[f"out.{kind}_embeds"], about, f"{kind}_embeds", "embeddings")


@pytest.mark.parametrize("bare", [True, False])
def test_clip_text_model(clip, bare, tmp_path):
    about, arrays, weights = clip
    model = load(saved(tmp_path, part(weights, "text_model.", bare), alone(about, "text")), verbose=False)
    tokens, output = arrays["in.input_ids"].astype(np.int32), "text_model_output.last_hidden_state"
    close(model.features(tokens), arrays[f"out.{output}"], about, output, "tokens")
    end = (tokens == about["hf_config_json"]["text_config"]["eos_token_id"]).argmax(1)
    close(model(tokens), arrays[f"out.{output}"][np.arange(3), end], about, output, "the end token")


def test_clip_for_image_classification_has_no_last_norm(clip, tmp_path):
    about, arrays, weights = clip
    own = part(weights, "vision_model.", bare=False) | CLASSIFIER
    document = {**about["hf_config_json"], **LABELS, "problem_type": "multi_label_classification"}
    pretrained = open_pretrained(saved(tmp_path, own, document))
    assert pretrained.class_names == tuple("abcde")
    assert pretrained.config.problem == "multi_label"
    assert all("post_layernorm" in name for name in pretrained.report.dropped)
    output = "vision_model_output.last_hidden_state"
    logits = arrays[f"out.{output}"][:, 1:].mean(1) @ HEAD.T + BIAS
    close(load(tmp_path, verbose=False)(nhwc(arrays["in.pixel_values"])), logits, about, output, "logits")


def test_siglip_for_image_classification_pools_by_the_mean(siglip, tmp_path):
    about, arrays, weights = siglip
    own = part(weights, "vision_model.", bare=False) | CLASSIFIER
    pretrained = open_pretrained(saved(tmp_path, own, {**about["hf_config_json"], **LABELS}))
    assert pretrained.class_names == tuple("abcde")
    assert all("vision_model.head." in name for name in pretrained.report.dropped)
    output = "vision_model_output.last_hidden_state"
    logits = arrays[f"out.{output}"].mean(1) @ HEAD.T + BIAS
    close(load(tmp_path, verbose=False)(nhwc(arrays["in.pixel_values"])), logits, about, output, "logits")


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("kind", ["vision", "text"])
def test_towers_of_siglip(siglip, kind, bare, tmp_path):
    about, arrays, weights = siglip
    folder = saved(tmp_path, part(weights, f"{kind}_model.", bare), alone(about, kind))
    given = nhwc(arrays["in.pixel_values"]) if kind == "vision" else arrays["in.input_ids"].astype(np.int32)
    output = f"{kind}_model_output.pooler_output"
    close(load(folder, verbose=False)(given), arrays[f"out.{output}"], about, output, "the pooled output")


def test_siglip_without_its_pooling(siglip, tmp_path):
    about, arrays, weights = siglip
    own = {n: a for n, a in part(weights, "vision_model.").items() if not n.startswith("head.")}
    model = load(saved(tmp_path, own, alone(about, "vision", vision_use_head=False)), verbose=False)
    output = "vision_model_output.last_hidden_state"
    close(model(nhwc(arrays["in.pixel_values"])), arrays[f"out.{output}"].mean(1), about, output, "the mean")


def test_siglip2_vision_model(tmp_path):
    about, arrays, weights = load_case("siglip2_naflex_hf")
    model = load(saved(tmp_path, part(weights, "vision_model."), alone(about, "vision")), verbose=False)
    images = Patches(arrays["in.pixel_values"], arrays["in.spatial_shapes"].astype(np.int32))
    output = "vision_model_output.pooler_output"
    close(jax.jit(model)(images), arrays[f"out.{output}"], about, output, "the pooled output")
    # As its processor says, images keep their aspect ratio.
    assert model.config.max_patches == 0
    processor = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 12, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    model = load(tmp_path, verbose=False)
    image = np.random.default_rng(0).integers(0, 256, (24, 64, 3), np.uint8)
    given = vit_jax.preprocessing(model)([image, image[:, :24]])
    assert (given.values.shape, given.sizes.tolist()) == ((2, 12, 192), [[2, 6], [3, 3]])
    exact = (image[:, :24].reshape(3, 8, 3, 24).swapaxes(1, 2).reshape(9, 192) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(given.values[1, :9], exact, atol=1e-6)
    vit_jax.save(model, tmp_path / "again", "hf")
    again = open_pretrained(tmp_path / "again").config
    assert (again.max_patches, again.preprocessing) == (12, model.config.preprocessing)
    for value, message in ((0, "max_num_patches is 0; it must be"), ("a", "max_num_patches is 'a'")):
        processor["max_num_patches"] = value
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        refused(lambda: open_pretrained(tmp_path), message)


def test_metaclip_2_is_clip_whose_end_token_is_meant(clip, tmp_path):
    about, arrays, weights = clip
    document = {**about["hf_config_json"], "model_type": "metaclip_2"}
    model = load(saved(tmp_path, weights, document), verbose=False)
    found = model(nhwc(arrays["in.pixel_values"]), arrays["in.input_ids"].astype(np.int32))
    close(found.logits, arrays["out.logits_per_image"], about, "logits_per_image", "logits")
    document["text_config"] = {**document["text_config"], "eos_token_id": 2}
    pools = {}
    for model_type in ("clip", "metaclip_2"):
        (tmp_path / "config.json").write_text(json.dumps({**document, "model_type": model_type}))
        config = open_pretrained(tmp_path).config
        assert isinstance(config, ImageTextConfig)
        pools[model_type] = config.text.pool
    assert pools == {"clip": "argmax", "metaclip_2": "eos"}


def test_chinese_clip_with_its_bert_is_refused(clip, tmp_path):
    about, _, weights = clip
    saved(tmp_path, weights, {**about["hf_config_json"], "model_type": "chinese_clip"})
    line = refused(lambda: open_pretrained(tmp_path), "whose text encoder is a BERT")
    assert "ChineseCLIPVisionModel" in line


def test_deit_with_one_head_reads_the_class_token(tmp_path):
    about, arrays, weights = load_case("deit_hf_teacher")
    own = {n: a for n, a in weights.items() if not n.startswith("distillation_")}
    own = {n.replace("cls_classifier", "classifier"): a for n, a in own.items()}
    folder = saved(tmp_path, own, about["hf_config_json"])
    images = nhwc(arrays["in.pixel_values"])
    close(load(folder, verbose=False)(images), arrays["out.cls_logits"], about, "cls_logits", "logits")
    dense = {"pooler.dense.weight": HEAD, "pooler.dense.bias": BIAS}
    bare = {n.removeprefix("deit."): a for n, a in own.items() if not n.startswith("classifier")}
    folder = saved(tmp_path, bare | dense, {**about["hf_config_json"], "pooler_output_size": 5})
    last = arrays["out.hidden_states.3"][:, 0]
    norm = (weights[f"deit.layernorm.{name}"] for name in ("weight", "bias"))
    token = layer_norm(last, *norm, about["hf_config_json"]["layer_norm_eps"])
    pooled = np.tanh(token @ HEAD.T + BIAS)
    close(load(folder, verbose=False)(images), pooled, about, "hidden_states.3", "the pooler's output")
    saved(tmp_path, bare | dense, {**about["hf_config_json"], "pooler_act": "relu"})
    refused(lambda: open_pretrained(tmp_path), "pooler_act 'relu'; this library knows 'tanh'")


def test_i_jepas_pooler_reads_the_first_patch_and_is_not_taken_for_another(tmp_path):
    about, _, weights = load_case("ijepa_hf")
    dense = {"pooler.dense.weight": HEAD, "pooler.dense.bias": BIAS}
    saved(tmp_path, weights | dense, about["hf_config_json"])
    assert "num_classes=0" in refused(lambda: open_pretrained(tmp_path), "it is a trained head")
    assert open_pretrained(tmp_path, num_classes=0).config.representation_size == 0


def test_beit_that_normalises_twice_is_refused(tmp_path):
    about, _, weights = load_case("beit_hf_mim")
    twice = {f"beit.{name}": weights[name] for name in ("layernorm.weight", "layernorm.bias")}
    saved(tmp_path, weights | twice, {**about["hf_config_json"], "use_mean_pooling": False})
    assert "BeitModel" in refused(lambda: open_pretrained(tmp_path), "normalises twice before its lm_head")


def test_segmentation_of_data2vec_has_names_of_its_own(tmp_path):
    encoder = replace(BEIT, pool="none", pool_norm="none", num_classes=0)
    config = UperNetConfig(encoder, num_classes=5, taps=(0, 0, 1, 1), auxiliary_channels=8)
    write(config, tmp_path / "beit", "hf")
    raw = open_checkpoint(tmp_path / "beit")

    def named(name):
        name = name.replace("beit.", "data2vec_vision.").replace(
            "decode_head.bottleneck", "decode_head.psp_bottleneck"
        )
        name = name.replace(".conv.", ".convolution.").replace(".bn.", ".normalization.")
        return re.sub(r"psp_modules\.(\d)\.1", r"psp_modules.blocks.\1.conv", name)

    arrays = {named(name): tensor.read() for name, tensor in raw.tensors.items()}
    assert len(set(arrays) - set(raw.tensors)) > len(arrays) / 2
    (tmp_path / "data2vec").mkdir()
    document = {**raw.documents["config.json"], "model_type": "data2vec-vision"}
    assert_same(flat(config), opened(saved(tmp_path / "data2vec", arrays, document))[1])


def test_an_end_token_that_no_text_has(clip, tmp_path):
    about, arrays, weights = clip
    document = alone(about, "text", eos_token_id=49407)
    model = load(saved(tmp_path, part(weights, "text_model."), document), verbose=False)
    output = "text_model_output.last_hidden_state"
    close(
        model(arrays["in.input_ids"].astype(np.int32)),
        arrays[f"out.{output}"][:, 0],
        about,
        output,
        "the first",
    )


def test_vit_msn_has_names_with_a_prefix_and_without(tmp_path):
    about, arrays, weights = load_case("vit_hf_cls")
    mixed = {n.removeprefix("vit.") if ".layer." in n else n: a for n, a in weights.items()}
    assert len({n.partition(".")[0] for n in mixed}) == 3
    folder = saved(tmp_path, mixed, {**about["hf_config_json"], "model_type": "vit_msn"})
    close(
        load(folder, verbose=False)(nhwc(arrays["in.pixel_values"])),
        arrays["out.logits"],
        about,
        "logits",
        "logits",
    )


@pytest.mark.parametrize(("model_type", "prefix"), [("data2vec-vision", ""), ("beit", ""), ("beit", "beit.")])
def test_beit_and_data2vec_without_their_pooler(model_type, prefix, tmp_path):
    about, arrays, weights = load_case("beit_hf_cls")
    own = {
        n.replace("beit.", prefix): a
        for n, a in weights.items()
        if "pooler" not in n and "classifier" not in n
    }
    model = load(saved(tmp_path, own, {**about["hf_config_json"], "model_type": model_type}), verbose=False)
    mean = arrays["out.hidden_states.3"][:, 1:].mean(1)
    close(model(nhwc(arrays["in.pixel_values"])), mean, about, "hidden_states.3", "the mean of patches")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "shards"])
def test_files_of_fewer_bits_and_of_several_pieces(siglip, kind, tmp_path):
    about, _, weights = siglip
    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "shards": np.float32}[kind]
    own = {n: a.astype(dtype) for n, a in part(weights, "vision_model.").items()}
    folder = saved(tmp_path, own, alone(about, "vision", dtype=kind), shards=3 if kind == "shards" else 1)
    read = open_pretrained(folder).params()
    np.testing.assert_array_equal(read["pool"]["probe"], own["head.probe"][0].astype(np.float32))
    assert read["pool"]["probe"].dtype == np.float32


def test_a_trained_head_is_never_left_out_by_ignore(tmp_path):
    about, _, weights = load_case("ijepa_hf")
    strange = {"frame_classifier.weight": HEAD, "frame_classifier.bias": BIAS}
    saved(tmp_path, weights | strange, about["hf_config_json"])
    line = refused(lambda: open_pretrained(tmp_path), "it is a trained head")
    assert "num_classes=0" in line
    assert "ignore" not in line
    for classes in (0, 4):
        report = open_pretrained(tmp_path, num_classes=classes).report
        assert report.dropped == dict.fromkeys(strange, "a head, left out")
    about, _, weights = load_case("vit_hf_cls")
    saved(tmp_path, {n: a for n, a in weights.items() if n != "classifier.bias"}, about["hf_config_json"])
    line = refused(lambda: open_pretrained(tmp_path), "lacks classifier.bias")
    assert "num_classes=0" in line
    assert "ignore" not in line


IN_MEMORY = (
    "vit_hf_cls", "deit_hf_teacher", "beit_hf_cls", "beit_hf_mim", "ijepa_hf", "mae_hf_pretrain", "dinov2_hf_cls",
    "dinov2_hf_masked", "dinov2_hf_swiglu", "dinov2_reg_hf", "dinov3_hf_gated",
)  # fmt: skip


@pytest.mark.parametrize("case", IN_MEMORY)
def test_names_of_modules_are_read_as_those_of_files(case, tmp_path):
    """`torch.save(model.state_dict())`, and whatever saves a model inside another: Lightning, one's own loop."""
    about, _, weights = load_case(case)
    modules = {file: module for module, file in about["runtime_to_disk"].items()}
    named = {}
    for name, array in weights.items():
        if ".mlp.weights_in." in name:  # joined in files alone
            for part, half in zip(("gate_proj", "up_proj"), np.split(array, 2)):
                named[name.replace("weights_in", part)] = half
        else:
            named[modules.get(name, name).replace(".mlp.weights_out.", ".mlp.down_proj.")] = array
    (tmp_path / "memory").mkdir()
    (tmp_path / "file").mkdir()
    given = opened(saved(tmp_path / "memory", named, about["hf_config_json"]))
    kept = opened(saved(tmp_path / "file", weights, about["hf_config_json"]))
    assert named.keys() != weights.keys()
    assert_same(given[1], kept[1])
    assert given[0] == kept[0]


def classifier(folder, id2label):
    about, _, weights = load_case("vit_hf_cls")
    folder.mkdir()
    return saved(folder, weights, {**about["hf_config_json"], "id2label": id2label})


def test_numbers_of_classes_decide_and_not_their_order(tmp_path):
    count = load_case("vit_hf_cls")[2]["classifier.weight"].shape[0]
    names = [f"class {i}" for i in range(count)]
    numbered = {str(i): name for i, name in enumerate(names)}
    for number, labels in enumerate((numbered, dict(reversed(numbered.items())))):
        assert open_pretrained(classifier(tmp_path / f"a{number}", labels)).class_names == tuple(names)
    lacking = classifier(tmp_path / "lacking", {n: name for n, name in numbered.items() if n != "1"})
    assert open_pretrained(lacking).class_names == (names[0], "LABEL_1", *names[2:])
    wrong = {
        "from one": {str(i + 1): name for i, name in enumerate(names)},
        "gap": {**{n: name for n, name in numbered.items() if n != "1"}, str(count + 3): "far"},
        "fewer": dict(list(numbered.items())[:-1]),
        "more": {**numbered, str(count): "more"},
    }
    for what, labels in wrong.items():
        path = classifier(tmp_path / what, labels)
        refused(lambda path=path: open_pretrained(path), "so they cannot be matched")
        assert open_pretrained(path, num_classes=0).class_names == ()  # as the message says
        assert open_pretrained(path, num_classes=count + 9).class_names == ()
    for number, labels in enumerate(({"cat": "0"}, {"-1": "cat"}, {str(10**12): "cat"})):
        path = classifier(tmp_path / f"b{number}", labels)
        refused(
            lambda path=path: open_pretrained(path), "an id2label whose keys are not all numbers of outputs"
        )


def test_gates_of_another_activation_are_refused(tmp_path):
    about, _, weights = load_case("dinov3_hf_gated")
    path = saved(tmp_path, weights, {**about["hf_config_json"], "hidden_act": "gelu"})
    refused(
        lambda: open_pretrained(path),
        "says use_gated_mlp with hidden_act 'gelu'; this library gates with 'silu'",
    )
