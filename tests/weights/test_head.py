"""What becomes of a checkpoint's head on other data: names decide."""

import jax
import numpy as np
import pytest

from tests.tiny import parameters, pixels, tiny
from vit_jax.errors import DataError
from vit_jax.models.registry import model_functions
from vit_jax.trees import flatten
from vit_jax.weights.head import Classes, choose_head, class_axes
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

NAMES = ("ant", "bee", "cat", "dog", "eel")
MODELS = {
    "class token": {},
    "attention pool": {"pool": "map", "head_bias": False, "class_token": False},
    "a layer before the head": {"representation_size": 24},
    "two heads": {"distillation_token": True},
    "sigmoids": {"problem": "multi_label", "head_bias_init": -2.0},
}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """A model's configuration, parameters and the folder it is saved in."""
    config = tiny(depth=1, **MODELS[request.param])
    params = parameters(config)
    save(model_functions(config).bind(params), tmp_path / "model", "orbax", class_names=NAMES)
    return config, params, tmp_path / "model"


def opened(folder, names, named=True, **options):
    return open_pretrained(
        folder, num_classes=len(names), data_classes=Classes(tuple(names), named, **options)
    )


def outputs(config, params):
    return np.asarray(jax.jit(model_functions(config).apply)(params, pixels()))


@pytest.mark.parametrize(
    "names", [("eel", "cat", "ant", "dog", "bee"), ("dog", "bee"), ("ant", "bee", "cat")]
)
def test_rows_by_name(saved, names):
    config, params, folder = saved
    ours = opened(folder, names)
    rows = [NAMES.index(name) for name in names]
    expected = outputs(config, params)[:, rows]
    np.testing.assert_allclose(outputs(ours.config, ours.params()), expected, rtol=1e-6, atol=1e-6)
    assert (ours.class_names, ours.named, ours.report.new, ours.report.dropped) == (names, True, {}, {})
    assert set(ours.report.changed) == set(class_axes(config))
    assert "by name" in str(ours.report).splitlines()[-1]
    assert ours.config.problem == config.problem
    assert ours.config.num_classes == len(names)


def test_the_same_names_change_nothing(saved):
    config, params, folder = saved
    ours = opened(folder, NAMES)
    found, expected = flatten(ours.params()), flatten(params)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    assert ours.report.head == "kept: its classes are the data's"
    assert ours.config == config


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("1", "2", "3", "4", "5"), "new: 0 of the data's 5 classes are the checkpoint's"),
        (("ant", "bee", "cat", "dog", "Eel"), "new: 4 of the data's 5 classes"),
        ((*NAMES, "fox"), "new: 5 of the data's 6 classes"),
    ],
)
def test_other_names_start_a_new_head(saved, names, told):
    """As another number of classes does."""
    config, params, folder = saved
    ours = opened(folder, names)
    other = open_pretrained(folder, num_classes=7)
    assert told in str(ours.report)
    assert ours.report.new == other.report.new
    assert ours.report.new.keys() >= class_axes(config).keys()
    found = flatten(ours.params())
    for path in ours.report.new:
        initial = config.head_bias_init if path.endswith("bias") else 0
        assert np.all(np.asarray(found[path]) == initial), path
    kept = found.keys() - ours.report.new.keys()
    assert all(np.array_equal(found[path], flatten(params)[path]) for path in kept)
    assert ours.class_names == ()
    for field in ("representation_size", "head_bias", "problem"):
        assert getattr(ours.config, field) == getattr(other.config, field)


def test_a_head_that_nobody_named(tmp_path):
    config = tiny(depth=1)
    save(model_functions(config).bind(parameters(config)), tmp_path / "model", "orbax")
    kept = opened(tmp_path / "model", NAMES)
    assert "kept: labels are taken by position, since the classes of the checkpoint" in kept.report.head
    assert kept.report.new == kept.report.changed == {}
    assert (
        opened(tmp_path / "model", NAMES[:4]).report.head
        == "new: the checkpoint has 5 classes and the data 4"
    )
    assert list(opened(tmp_path / "model", NAMES[:4]).report.new) == ["head/bias", "head/kernel"]


def test_loading_by_number_of_classes_is_what_it_was(saved):
    """Without classes a head of as many is the file's."""
    _, params, folder = saved
    loaded = flatten(model_functions(open_pretrained(folder).config).bind(params) and params)
    ours = flatten(open_pretrained(folder, num_classes=5).params())
    assert all(np.array_equal(ours[path], loaded[path]) for path in loaded)
    assert load(folder, num_classes=5, verbose=False).config.num_classes == 5


def test_decisions():
    def told(own, data, own_named=True, named=True, outputs=5, **options):
        found = choose_head(own, own_named, outputs, Classes(tuple(data), named, **options))
        return found.new, None if found.rows is None else found.rows.tolist(), found.told

    numbers = tuple("01234")
    assert told(NAMES, numbers, named=False)[:2] == (False, None)  # arrays with labels only
    assert told((), NAMES)[:2] == (False, None)
    assert told(NAMES, numbers[:3], named=False)[:2] == (True, None)
    synsets = ("n1", "n2", "n3", "n4", "n5")
    assert told(NAMES, synsets)[:2] == (True, None)
    kept = told(NAMES, synsets, labels="by-position")
    assert kept[:2] == (False, None)
    assert "by position, as asked: 'n1' of the data is 'ant' of the checkpoint" in kept[2]
    with pytest.raises(DataError, match="the checkpoint has 5 classes and the data has 3 classes"):
        told(NAMES, synsets[:3], labels="by-position")
    # Two classes of ImageNet are called crane: which is whose is not guessed.
    double = ("crane", "ant", "crane", "bee", "cat")
    assert told(double, double)[:2] == (False, None)
    assert told(double, ("ant", "cat"))[:2] == (False, [1, 4])
    assert told(double, ("ant", "crane", "crane", "bee", "cat"))[0]
    # Numbers in the order of their names, 10 before 2, of a checkpoint that counts.
    eleven = tuple(sorted(map(str, range(11))))
    assert told((), eleven, outputs=11)[1] == [int(name) for name in eleven]
