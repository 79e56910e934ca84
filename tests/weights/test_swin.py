"""Swin Transformers in the files of timm, transformers, torchvision and the authors, both ways; and adapted."""

import json
import re

import jax
import numpy as np
import pytest

from tests.models.swin.models import FIRST, SECOND, VERSIONS
from tests.parity.sources import prepare
from tests.reference.cases import HERE, load_case, weights_file
from tests.tiny import parameters, pixels, run
from tests.weights import torch_writer
from tests.weights.checks import refused, same
from tests.weights.models import assert_same, opened, write
from tests.weights.test_timm_files import headers_only
from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.positions.windows import log_offsets
from vit_jax.models.names.resolve import resolve
from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.swin.config import replace
from vit_jax.models.swin.names import TRANSFORMERS, transformers_fields
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.layouts.timm.swin_files import write as to_timm
from vit_jax.weights.layouts.torchvision import swin as torchvision
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.pretrained import shapes_of
from vit_jax.weights.rules import Rule
from vit_jax.weights.save import save

HUB = {
    "first": replace(FIRST, **transformers_fields(False), preprocessing=TRANSFORMERS),
    "second": replace(SECOND, **transformers_fields(True), preprocessing=TRANSFORMERS),
}
OURS = {"timm": VERSIONS, "hf": HUB}


def flat(config, seed=0):
    return trees.flatten(parameters(config, seed))


def written(config, folder, format):
    """The arrays of a model in a library's words, and its documents."""
    write(config, folder, format)
    raw = open_checkpoint(folder)
    return {name: tensor.read() for name, tensor in raw.tensors.items()}, dict(raw.documents)


def saved(folder, arrays, document=None):
    folder.mkdir(exist_ok=True)
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(folder / "model.safetensors", specs, arrays.__getitem__, {"format": "pt"})
    if document is not None:
        (folder / "config.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "swin_timm",
        "swin_timm_rect",
        "swinv2_timm",
        "swinv2_timm_prewin",
        "swin_hf",
        "swin_hf_simmim",
        "swinv2_hf",
    ],
)
def test_a_librarys_file_is_written_back_as_it_was(name, tmp_path):
    about, weights = json.loads((HERE / f"{name}.json").read_text()), weights_file(name)
    model = load(prepare(about, weights, tmp_path)[0], verbose=False)
    save(model, tmp_path / "back", "hf" if "_hf" in name else "timm")
    theirs = {n: tensor.read() for n, tensor in open_checkpoint(weights).tensors.items()}
    same(open_checkpoint(tmp_path / "back").tensors, theirs)
    again = open_pretrained(tmp_path / "back")
    assert again.config == model.config
    if "_hf" in name:
        said = json.loads((tmp_path / "back" / "config.json").read_text())
        own = about["hf_config_json"]
        assert {key: own[key] for key in said if key in own and key != "id2label"} == {
            key: said[key] for key in said if key in own and key != "id2label"
        }


@pytest.mark.parametrize("format", OURS)
@pytest.mark.parametrize("version", VERSIONS)
def test_ours_are_written_and_read(format, version, tmp_path):
    config = OURS[format][version]
    for number, changes in enumerate(({}, {"num_classes": 0}, {"image_size": (16, 24)})):
        own = replace(config, **changes)
        write(own, tmp_path / str(number), format)
        read, params = opened(tmp_path / str(number))
        assert read == replace(own, unroll=0)
        assert_same(flat(own), params)


def test_windows_by_stage_and_pretrained_ones_are_written(tmp_path):
    stages = dict(depths=(2, 1, 1), heads=(1, 2, 4))
    by_stage = replace(FIRST, window_size=(2, 4, 2), mlp_ratio=2.0, qkv_bias=False, **stages)
    write(by_stage, tmp_path / "a", "timm")
    assert opened(tmp_path / "a")[0] == replace(by_stage, unroll=0)
    with pytest.raises(ConfigError, match=r"window_size is \(2, 4, 2\); transformers has one number"):
        write(by_stage, tmp_path / "b", "hf")
    two = replace(FIRST, window_size=(2, 4))
    _, documents = written(two, tmp_path / "two", "timm")
    # Two numbers would be height and width of one window to timm.
    assert documents["config.json"]["model_args"]["window_size"] == [[2, 2], [4, 4]]
    assert opened(tmp_path / "two")[0] == replace(two, unroll=0)
    tuned = replace(SECOND, pretrained_windows=(4, 2))
    write(tuned, tmp_path / "c", "timm")
    assert opened(tmp_path / "c")[0] == replace(tuned, unroll=0)


@pytest.mark.parametrize(
    ("version", "lost"), [("first", ["window_fit"]), ("second", ["mask_bias", "window_fit"])]
)
def test_what_a_library_computes_in_its_own_way_is_told(version, lost, tmp_path):
    config = replace(HUB[version], preprocessing=IMAGENET)
    with pytest.raises(ConfigError, match=r"timm cannot express .*; ignore=\['"):
        write(config, tmp_path, "timm")
    write(config, tmp_path, "timm", ignore=lost)
    timms = dict(window_fit="clamp", mask_bias=-100.0, bias_resample="geometric")
    assert opened(tmp_path)[0] == replace(config, **timms, unroll=0)


def test_timms_first_version_has_one_activation(tmp_path):
    with pytest.raises(ConfigError, match="timm cannot express activation relu, which becomes gelu"):
        write(replace(FIRST, activation="relu"), tmp_path / "a", "timm")
    write(replace(SECOND, activation="relu"), tmp_path / "b", "timm")
    assert opened(tmp_path / "b")[0].activation == "relu"


def test_pixels_of_patches_are_transformers_alone(tmp_path):
    config = replace(HUB["first"], num_classes=3 * 4 * 4, pool="patches", mask_token=True)
    write(config, tmp_path / "a", "hf")
    assert opened(tmp_path / "a")[0] == replace(config, unroll=0)
    with pytest.raises(ConfigError, match="timm's Swin Transformer has one output for an image"):
        write(config, tmp_path / "b", "timm")
    with pytest.raises(ConfigError, match="num_classes is 50, which is no square of 3-channel pixels"):
        write(replace(config, num_classes=50), tmp_path / "c", "hf")
    classifier = open_pretrained(tmp_path / "a", num_classes=4)
    assert (classifier.config.pool, classifier.config.num_classes) == ("mean", 4)


# ---- transformers


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_without_a_head_has_names_without_a_prefix_or_with_it(version, tmp_path):
    config = replace(HUB[version], num_classes=0)
    arrays, documents = written(config, tmp_path / "a", "hf")
    assert "embeddings.norm.weight" in arrays
    assert documents["config.json"]["architectures"] == ["SwinModel" if version == "first" else "Swinv2Model"]
    prefix = f"{documents['config.json']['model_type']}."
    saved(tmp_path / "b", {prefix + name: array for name, array in arrays.items()}, documents["config.json"])
    for folder in ("a", "b"):
        read, params = opened(tmp_path / folder)
        assert replace(read, preprocessing=config.preprocessing) == replace(config, unroll=0)
        assert_same(flat(config), params)


def test_names_in_memory_since_version_5(tmp_path):
    """As `torch.save(model.state_dict())` leaves them; the pairs are those of the reference case."""
    about, _, theirs = load_case("swin_hf")
    on_disk = {disk: memory for memory, disk in about["runtime_to_disk"].items()}
    document = about["hf_config_json"]
    saved(tmp_path / "disk", theirs, document)
    saved(tmp_path / "memory", {on_disk.get(name, name): array for name, array in theirs.items()}, document)
    assert_same(opened(tmp_path / "disk")[1], opened(tmp_path / "memory")[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_absolute_embeddings": True}, "has no absolute positions"),
        ({"depths": "two"}, "config.json says depths 'two'; it must be a list of whole numbers"),
        ({"window_size": 3.5}, "says window_size 3.5; it must be a whole number"),
        ({"num_heads": [3, 4]}, "config.json describes no model: heads is (3, 4), but 3 do not divide"),
        ({"hidden_act": "mish"}, "says hidden_act 'mish'"),
    ],
)
def test_descriptions_that_say_what_we_do_not_know(changes, message, tmp_path):
    arrays, documents = written(HUB["first"], tmp_path / "a", "hf")
    saved(tmp_path / "b", arrays, documents["config.json"] | changes)
    refused(lambda: open_pretrained(tmp_path / "b"), message)


# ---- timm


def test_timms_description_names_the_nearest_architecture(tmp_path):
    config = replace(resolve("swinv2_base_window12to24_192to384")[1], in_channels=1)
    about = to_timm(config, {}, ())
    said = about.documents["config.json"]
    assert said["architecture"] == "swinv2_base_window12to24_192to384"
    assert said["model_args"] == {"img_size": [384, 384], "in_chans": 1}
    assert said["pretrained_cfg"]["input_size"] == [1, 384, 384]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "swinv2_cr_tiny_224"},
            "architecture 'swinv2_cr_tiny_224', which this library does not have",
        ),
        (
            {"model_args": {"global_pool": ""}},
            "has model_args global_pool='', which this library does not know",
        ),
        ({"model_args": {"head_dim": 8}}, "has model_args head_dim=8, which this library does not know"),
        ({"model_args": {"window_size": [7, 8]}}, "window_size is [7, 8]; windows are squares here"),
        (
            {"model_args": {"window_size": [[7, 7], [7, 8]]}},
            "window_size is [7, 8]; windows are squares here",
        ),
        (
            {"model_args": {"act_layer": "relu"}},
            "has model_args act_layer='relu', which this library does not know",
        ),
        ({"model_args": {"depths": 3}}, "describes no model"),
    ],
)
def test_timms_arguments_that_we_do_not_know(changes, message, tmp_path):
    arrays, documents = written(FIRST, tmp_path / "a", "timm")
    saved(tmp_path / "b", arrays, documents["config.json"] | changes)
    refused(lambda: open_pretrained(tmp_path / "b"), message)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224.ms_in22k", "swinv2_tiny_window16_256.ms_in1k"]
)
def test_a_published_description_without_arguments(name, tmp_path):
    """As on the hub: a name, classes and preprocessing; the arrays are only described."""
    config = resolve(name)[1]
    shapes = shapes_of(config)
    about = to_timm(config, {}, ())
    zeros = {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}
    tensors = {}
    for rule in about.rules:
        tensors |= {theirs: list(make().shape) for theirs, make in rule.write(zeros)}
    document = about.documents["config.json"]
    assert document["architecture"] == name.split(".")[0]
    del document["model_args"]
    headers_only(tmp_path, tensors, document)
    found = open_pretrained(tmp_path)
    assert found.config == config
    assert (found.report.changed, found.report.new, found.report.dropped) == ({}, {}, {})
    (tmp_path / "config.json").unlink()
    assert open_pretrained(tmp_path, model=name).config == config


# ---- the authors' own code


def authors(config, folder):
    """A `.pth` of the authors' code, with the tables that it keeps beside the weights."""
    arrays, _ = written(config, folder, "timm")
    state = {}
    for name, array in arrays.items():
        name = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
        state[name.replace("head.fc.", "head.")] = array
    for stage in range(len(config.depths)):
        fit = config.fit(stage)
        side = fit.table[0]
        for block in range(config.depths[stage]):
            attention = f"layers.{stage}.blocks.{block}.attn"
            state[f"{attention}.relative_position_index"] = np.zeros((side**2, side**2), np.int64)
            if config.position_bias == "log":
                pretrained = config.pretrained_windows[stage] if config.pretrained_windows else side
                table = log_offsets((side, side), (pretrained, pretrained))
                state[f"{attention}.relative_coords_table"] = table.reshape(1, 2 * side - 1, 2 * side - 1, 2)
            if block % 2 and any(fit.shift):
                windows = int(np.prod(config.map_size(stage))) // side**2
                state[f"layers.{stage}.blocks.{block}.attn_mask"] = np.zeros(
                    (windows, side**2, side**2), np.float32
                )
    tensors, storages = torch_writer.state_dict({n: np.ascontiguousarray(a) for n, a in state.items()})
    return torch_writer.save_zip(folder.with_suffix(".pth"), {"model": tensors, "epoch": 3}, storages)


@pytest.mark.parametrize(
    "config",
    [
        FIRST,
        replace(FIRST, num_classes=0),
        SECOND,
        replace(SECOND, window_size=4, pretrained_windows=(3, 2)),
        replace(SECOND, window_size=8),
        replace(FIRST, depths=(2, 2, 2), heads=(1, 2, 4), window_size=4),
    ],
)
def test_the_authors_files_say_themselves_what_they_hold(config, tmp_path):
    read, params = opened(authors(config, tmp_path / "swin"))
    cropped = Preprocessing(IMAGENET.mean, IMAGENET.std, "bicubic", 0.875)
    # A window as large as its map may have been asked to be larger.
    windows = {8: (8,)}.get(config.window_size[0], config.window_size)
    expected = replace(config, unroll=0, bias_resample="bicubic", preprocessing=cropped, window_size=windows)
    assert read == expected
    assert_same(flat(config), params)


def test_a_file_without_tables_needs_the_name_of_its_model(tmp_path):
    arrays, _ = written(SECOND, tmp_path / "a", "timm")
    folder = saved(tmp_path / "b", arrays)
    refused(lambda: open_pretrained(folder), "does not tell what model it is; give its name")
    assert_same(flat(SECOND), trees.flatten(open_pretrained(folder, model=SECOND).params()))
    with pytest.raises(ConfigError, match="holds a Swin Transformer; leave model out"):
        open_pretrained(folder, model="vit_tiny_patch16_224")


# ---- torchvision


def as_torchvision(config):
    """The arrays of torchvision's model; the rules are ours, held by the parity cases."""
    arrays = {}
    for rule in torchvision.rules(config):
        assert isinstance(rule, Rule)
        arrays |= {name: np.asarray(make()) for name, make in rule.write(flat(config))}
    for stage, depth in enumerate(config.depths):
        side = config.fit(stage).table[0]
        for block in range(depth):
            name = f"features.{2 * stage + 1}.{block}.attn.relative_position_index"
            arrays[name] = np.zeros(side**4, np.int64)
    return arrays


@pytest.mark.parametrize("version", VERSIONS)
def test_torchvisions_files(version, tmp_path):
    config = replace(VERSIONS[version], window_fit="pad", bias_resample="bicubic", image_size=8)
    arrays = as_torchvision(config)
    read, params = opened(saved(tmp_path / "a", arrays))
    assert read == replace(config, unroll=0)
    assert_same(flat(config), params)
    if version == "second":  # a bias of the keys is there and says nothing
        name = "features.1.0.attn.qkv.bias"
        arrays[name] = arrays[name] + np.repeat([0, 1, 0], 8).astype(np.float32)
        assert_same(params, opened(saved(tmp_path / "b", arrays))[1])
    del arrays["features.1.0.mlp.0.weight"]
    refused(
        lambda: open_pretrained(saved(tmp_path / "c", arrays)),
        "lacks arrays of torchvision's SwinTransformer",
    )


@pytest.mark.parametrize("name", ["swin_torchvision", "swinv2_torchvision"])
def test_torchvisions_files_are_written_back(name, tmp_path):
    """All that its module keeps, but the bias of version 2's keys, which it passes over."""
    file = weights_file(name)
    model = load(file, verbose=False)
    save(model, tmp_path, "torchvision")
    written = open_checkpoint(tmp_path).tensors
    theirs = open_checkpoint(file).tensors
    assert written.keys() == theirs.keys()
    for path, tensor in theirs.items():
        ours, other = written[path].read(), tensor.read()
        assert (ours.shape, ours.dtype) == (other.shape, other.dtype), path
        if name == "swinv2_torchvision" and path.endswith("qkv.bias"):
            ours, other = (array.reshape(3, -1)[::2] for array in (ours, other))
        if path.endswith("coords_table"):
            np.testing.assert_allclose(ours, other, rtol=1e-6)
        else:
            np.testing.assert_array_equal(ours, other, path)
    assert open_pretrained(tmp_path).config == model.config


def test_what_torchvision_has_not_is_told(tmp_path):
    config = replace(FIRST, window_fit="pad", bias_resample="bicubic")
    told = write(config, tmp_path / "a", "torchvision")  # another size than its own is no loss
    assert "not expressed by torchvision: image_size (16, 16), which becomes (8, 8)" in told
    with pytest.raises(ConfigError, match="torchvision cannot express window_fit clamp, which becomes pad"):
        write(FIRST, tmp_path / "b", "torchvision")
    with pytest.raises(ConfigError, match="torchvision's Swin Transformer has one window for all stages"):
        write(replace(config, mask_token=True), tmp_path / "c", "torchvision")


# ---- adapted


def loaded(config, tmp_path, format="timm", **options):
    write(config, tmp_path / "given", format)
    model = load(tmp_path / "given", verbose=False, unroll=1, **options)
    return model, open_pretrained(tmp_path / "given", **options).report


def test_other_classes_channels_and_patches(tmp_path):
    model, report = loaded(FIRST, tmp_path, num_classes=3, in_channels=1, patch_size=4, image_size=32)
    assert model(pixels(2, 32, 32, 1)).shape == (2, 3)
    assert report.changed == {"patch_embed/kernel": "patches 2x2 -> 4x4, flexi, channels 3 -> 1"}
    assert sorted(report.new) == ["head/bias", "head/kernel"]


def test_tables_go_to_other_windows(tmp_path):
    model, report = loaded(FIRST, tmp_path, window_size=4, image_size=32)
    said = "windows 2x2 -> 4x4, geometric"
    assert report.changed == {f"stages/{stage}/blocks/attn/position_bias": said for stage in (0, 1)}
    before = np.asarray(flat(FIRST)["stages/0/blocks/attn/position_bias"]).reshape(2, 3, 3, 2)
    after = np.asarray(model.stages[0].blocks.attn.position_bias[...]).reshape(2, 7, 7, 2)
    np.testing.assert_allclose(
        after[:, ::6, ::6], before[:, ::2, ::2], atol=1e-4
    )  # the outermost offsets stay
    np.testing.assert_allclose(after[:, 3, 3], before[:, 1, 1], atol=1e-5)


def test_another_size_with_the_same_windows_changes_nothing(tmp_path):
    model, report = loaded(FIRST, tmp_path, image_size=(24, 32))
    assert report.changed == {}
    images = pixels(2, 24, 32)
    np.testing.assert_allclose(jax.jit(lambda x: model(x))(images), run(FIRST, images), rtol=1e-5, atol=1e-5)


def test_the_second_version_keeps_its_scale_of_offsets(tmp_path):
    model, report = loaded(SECOND, tmp_path, window_size=4, image_size=32)
    assert (report.changed, model.config.pretrained_windows) == ({}, (2, 2))
    assert loaded(SECOND, tmp_path, image_size=32)[0].config.pretrained_windows == ()
    given = loaded(SECOND, tmp_path, window_size=4, image_size=32, pretrained_windows=(3, 3))[0]
    assert given.config.pretrained_windows == (3, 3)


def test_what_may_not_change_is_one_line(tmp_path):
    write(FIRST, tmp_path, "timm")
    for options, message in (
        ({"width": 16}, "width is 16, but 8 in the checkpoint"),
        ({"depths": (2, 2)}, r"depths is \(2, 2\), but \(2, 3\) in the checkpoint"),
        ({"cosine": True}, "cosine is True, but False in the checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_pretrained(tmp_path, **options)
    with pytest.raises(ConfigError, match="images of 1x1 patches leave no map in stage 2"):
        open_pretrained(tmp_path, image_size=2)


def test_a_file_that_lacks_an_array(tmp_path):
    arrays, documents = written(FIRST, tmp_path / "a", "timm")
    del arrays["layers.1.downsample.norm.weight"]
    saved(tmp_path / "b", arrays, documents["config.json"])
    refused(lambda: open_pretrained(tmp_path / "b"), "lacks layers.1.downsample.norm.weight")
