"""Which of several sets of weights in a file counts, and what wrappers put before names, in every format."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.runs import run
from tests.weights.checks import refused
from tests.weights.models import PLAIN, assert_same, flat, opened
from tests.weights.test_layouts import timm_arrays
from tests.weights.torch_writer import save_zip, state_dict
from vit_jax.errors import speaking
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models.layers.encoder_config import replace
from vit_jax.training.config.defaults import default_config
from vit_jax.training.config.model import resolve_model
from vit_jax.weights.convert import convert
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.formats.which import Chosen, chosen
from vit_jax.weights.load import load, open_pretrained

ENCODER = replace(PLAIN, num_classes=0)


def torch_file(path, sets):
    """A PyTorch file of several sets: name, with slashes for nesting -> arrays."""
    content, storages = {"epoch": 3}, {}
    for name, arrays in sets.items():
        contiguous = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        named, held = state_dict(contiguous, first=len(storages))
        storages |= held
        place = content
        *parents, last = name.split("/")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = named
    return save_zip(path, content, storages)


def flat_file(path, arrays):
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    safetensors_format.write(path, specs, arrays.__getitem__, {})
    return path


def scalars(**sets):
    return {name.replace("__", "/"): {"w": np.float32([value])} for name, value in sets.items()}


@pytest.mark.parametrize(
    ("sets", "taken"),
    [
        (scalars(state_dict=0, state_dict_ema=1), "state_dict_ema"),  # timm: load_state_dict(use_ema=True)
        (scalars(model=0, model_ema=1), "model"),  # DeiT and MAE evaluate `model`
        (scalars(student=0, teacher=1, dino_loss=2), "teacher"),
        (scalars(encoder=0, predictor=1, target_encoder=2), "target_encoder"),
        (scalars(state_dict=0, ema_state_dict=1), "state_dict"),  # OpenMMLab swaps them before it saves
        (scalars(model__state_dict=0, model__ema=1), "model/state_dict"),
        (scalars(mine=0), "mine"),
    ],
)
def test_the_set_that_its_writer_evaluates_counts(tmp_path, sets, taken):
    raw = open_checkpoint(torch_file(tmp_path / "x.pth", sets))
    assert raw.tensors["w"].read() == sets[taken]["w"]
    assert raw.weights == taken
    assert set(raw.others) == set(sets) - {taken}
    for name, arrays in sets.items():
        asked = open_checkpoint(tmp_path / "x.pth", name)
        assert (asked.weights, float(asked.tensors["w"].read()[0])) == (name, arrays["w"][0])
        assert set(asked.others) == set(sets) - {name}
    line = refused(lambda: open_checkpoint(tmp_path / "x.pth", "studen"), "has no weights 'studen'; it has")
    assert all(repr(name) in line for name in sets)


def test_sets_that_nobody_knows_are_to_be_named(tmp_path):
    torch_file(tmp_path / "x.pth", scalars(mine=0, yours=1))
    refused(lambda: open_checkpoint(tmp_path / "x.pth"), "'mine', 'yours'; name one with weights.")
    with speaking({"--weights"}):
        refused(lambda: open_checkpoint(tmp_path / "x.pth"), "name one with --weights.")
    assert open_checkpoint(tmp_path / "x.pth", "yours").tensors["w"].read() == 1


def test_a_file_of_one_set_has_no_other(tmp_path):
    flat_file(tmp_path / "x.safetensors", {"w": np.float32([1])})
    refused(
        lambda: open_checkpoint(tmp_path / "x.safetensors", "ema"), "one set without a name; leave it out"
    )


def test_the_report_says_which(tmp_path, capsys):
    arrays = timm_arrays(PLAIN, tmp_path)
    halved = {name: array / 2 for name, array in arrays.items()}
    path = torch_file(tmp_path / "x.pth", {"state_dict": arrays, "state_dict_ema": halved})
    model = load(path)
    assert np.array_equal(model.head.kernel[...], flat(PLAIN)["head/kernel"] / 2)
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"  weights  {'state_dict_ema':<40} beside state_dict; weights='state_dict' takes those"
    raw = load(path, weights="state_dict", verbose=False)
    assert np.array_equal(raw.head.kernel[...], flat(PLAIN)["head/kernel"])
    assert capsys.readouterr().out == ""
    convert(path, tmp_path / "out", "orbax", weights="state_dict")
    assert_same(flat(PLAIN), opened(tmp_path / "out")[1])


WRAPPED = [
    "module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "module._orig_mod.model.", "model.net.",
    "_orig_mod.module.", "model.module.", "teacher.backbone.", "vit.", "model.my_encoder.", "self_vit.model.",
]  # fmt: skip


@pytest.mark.parametrize("format", ["torch", "safetensors"])
@pytest.mark.parametrize("prefix", WRAPPED)
def test_wrappers_leave_no_trace(tmp_path, prefix, format):
    arrays = {prefix + name: array for name, array in timm_arrays(PLAIN, tmp_path).items()}
    if format == "torch":
        path = torch_file(tmp_path / "x.pth", {"model_ema": {"n_averaged": np.float32([3])} | arrays})
    else:
        path = flat_file(tmp_path / "x.safetensors", arrays)
    pretrained = open_pretrained(path)
    assert pretrained.report.dropped == {}
    assert_same(flat(PLAIN), opened(path)[1])


@pytest.mark.parametrize("prefix", ["backbone.", "module.model.", "model."])
def test_a_classifier_beside_the_encoder_is_its_head(tmp_path, prefix):
    arrays = timm_arrays(PLAIN, tmp_path)
    named = {name if name.startswith("head.") else prefix + name: array for name, array in arrays.items()}
    path = flat_file(tmp_path / "x.safetensors", named)
    assert_same(flat(PLAIN), opened(path)[1])


def test_nothing_beside_the_encoder_is_lost_in_silence(tmp_path):
    arrays = {f"model.{name}": array for name, array in timm_arrays(PLAIN, tmp_path).items()}
    arrays["criterion.weight"] = np.ones(3, np.float32)
    path = flat_file(tmp_path / "x.safetensors", arrays)
    refused(lambda: open_pretrained(path), "holds 'criterion.weight' (3,), which the model does not have")
    report = open_pretrained(path, ignore=["criterion.weight"]).report
    assert report.dropped == {"criterion.weight": "unknown, ignored"}


def test_teacher_and_student_in_one_flat_file(tmp_path):
    """As DINOv2 trains: one state dict in which names begin with the network they belong to."""
    arrays = timm_arrays(ENCODER, tmp_path)
    named = {f"student.backbone.{name}": -array for name, array in arrays.items()}
    named |= {f"teacher.backbone.{name}": array for name, array in arrays.items()}
    named |= {f"{name}.head.mlp.0.weight": np.ones((4, 4), np.float32) for name in ("teacher", "student")}
    named["queue"] = np.ones((4, 4), np.float32)
    path = flat_file(tmp_path / "x.safetensors", named)
    taken = open_pretrained(path)
    assert (taken.report.weights, taken.report.other_weights) == ("teacher", ("student",))
    assert taken.report.dropped["queue"] == "beside teacher"
    assert taken.report.dropped["projection_head.mlp.0.weight"] == "not part of the model"
    assert_same(flat(ENCODER), opened(path)[1])
    other = opened(path, weights="student")[1]
    assert_same({name: -np.asarray(array) for name, array in flat(ENCODER).items()}, other)
    refused(lambda: open_pretrained(path, weights="studen"), "it has 'teacher', 'student'")


def test_configurations_choose(tmp_path):
    arrays = timm_arrays(PLAIN, tmp_path)
    path = torch_file(tmp_path / "x.pth", {"teacher": arrays, "student": {n: -a for n, a in arrays.items()}})
    config = default_config()
    config.model = ConfigDict(dict(checkpoint=str(path), weights="student"))
    found = resolve_model(config.model)[1]
    assert found is not None
    assert found.report.weights == "student"
    config.model.weights = "pupil"
    refused(lambda: resolve_model(config.model), "has no weights 'pupil'; it has 'teacher', 'student'")


def test_models_at_work_choose(tmp_path):
    arrays = timm_arrays(PLAIN, tmp_path)
    path = torch_file(tmp_path / "x.pth", {"teacher": arrays, "student": {n: -a for n, a in arrays.items()}})
    kernel = flat(PLAIN)["patch_embed/kernel"]
    for kind in (Predictor, FeatureExtractor):
        for weights, sign in ((None, 1), ("teacher", 1), ("student", -1)):
            found = kind.load(path, weights=weights).params["patch_embed"]["kernel"]
            assert np.array_equal(found, sign * kernel)
    refused(lambda: FeatureExtractor.load(path, weights="pupil"), "it has 'teacher', 'student'")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    features = ("features", "--output", tmp_path / "f.npz", tmp_path / "a.png")
    for command in (features, ("evaluate",), ("predict", tmp_path / "a.png"), ("export", tmp_path / "out")):
        outcome = run(*command, "--checkpoint", path, "--weights", "pupil")
        assert outcome.status == 4
        assert "has no weights 'pupil'; it has 'teacher', 'student'" in outcome.err
        assert "has no weights" not in run(*command, "--checkpoint", path, "--weights", "student").err


def test_names_that_would_meet_stay():
    tensors = {"backbone.blocks.0.w": 0, "blocks.0.w": 1}
    assert chosen(Chosen(tensors), None, "x").tensors == tensors
    # transformers' own classes put heads beside their encoders; whether a name goes is for their layouts to say.
    tensors = {"backbone.embeddings.w": 0, "decode_head.w": 1}
    assert chosen(Chosen(tensors), None, "x", beside=False).tensors == tensors
    assert set(chosen(Chosen(tensors), None, "x").tensors) == {"embeddings.w", "decode_head.w"}


def test_index_of_several_files(tmp_path):
    arrays = {f"module.{name}": array for name, array in timm_arrays(PLAIN, tmp_path).items()}
    names = list(arrays)
    places = {}
    for file, part in (("a.safetensors", names[:5]), ("b.safetensors", names[5:])):
        flat_file(tmp_path / file, {name: arrays[name] for name in part})
        places |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(flat(PLAIN), opened(tmp_path / "model.safetensors.index.json")[1])
