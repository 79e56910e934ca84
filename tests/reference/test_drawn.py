"""Cases without the arrays that can be drawn again are read as they were with them."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.reference.cases import HERE, METADATA, load_case, weights_file
from tests.reference.drawn import draw, drawn
from tests.reference.shrink import RULES, shrink

ABOUT = {"name": "made_up", "seed": 3, "params": {}, "runtime_to_disk": {"layers.0.w": "layer.0.w"}}


@pytest.fixture
def whole(tmp_path):
    """A case with an array of every rule, one under another name, and a table and an output by no rule."""
    weights = {f"{i}.w": draw(ABOUT, f"{i}.w", rule, (5, 3, 2)) for i, rule in enumerate(RULES)}
    weights |= {"scale": draw(ABOUT, "scale", "normal 1.5 0.2", ())}
    weights |= {"layer.0.w": draw(ABOUT, "layers.0.w", "normal 0 0.2", (4,)), "table": np.arange(6)}
    images = draw(ABOUT, "in.px", "normal 0 1", (1, 3, 4, 4))
    arrays = {"in.pixel_values": images, "out.logits": images.sum(axis=(1, 2))}
    (tmp_path / "whole").mkdir()
    path = tmp_path / "whole" / "made_up"
    path.with_suffix(".json").write_text(json.dumps(ABOUT))
    np.savez(path.with_suffix(".npz"), **arrays)
    save_file(weights, path.with_suffix(".safetensors"), METADATA)
    return path, arrays, weights


def test_a_case_is_made_small_and_read_as_it_was(whole, tmp_path):
    path, *given = whole
    assert weights_file(path) == path.with_suffix(".safetensors")
    small = tmp_path / "made_up"
    assert shrink(path, small) == f"keeps 1 of {len(RULES) + 3} weights, 1 of 2 arrays"
    assert load_file(small.with_suffix(".safetensors")).keys() == {"table"}
    assert set(np.load(small.with_suffix(".npz"))) == {"out.logits"}
    about, *read = load_case(small)
    assert about.keys() == {"name", "seed", "runtime_to_disk", "drawn"}
    for arrays, before in zip(read, given):
        assert arrays.keys() == before.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(arrays[name], array, strict=True)
    assert weights_file(small).read_bytes() == path.with_suffix(".safetensors").read_bytes()
    assert shrink(small, small) == "is small already"


def test_what_was_not_drawn_stays_whole(whole):
    path, _, weights = whole
    save_file(
        {name: np.asarray(array + 1) for name, array in weights.items()},
        path.with_suffix(".safetensors"),
        METADATA,
    )
    before = path.with_suffix(".json").read_text()
    assert shrink(path, path) == "has no array of a known rule; left as it is"
    assert path.with_suffix(".json").read_text() == before


def test_a_file_says_what_torch_would():
    with safe_open(weights_file("vit_timm_token"), "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("kind", ["weights", "arrays"])
def test_other_random_numbers_are_told_by_name(kind):
    about = json.loads((HERE / "vit_timm_token.json").read_text())
    with pytest.raises(
        AssertionError, match=f"^vit_timm_token: the {kind} drawn by NumPy .* are not"
    ) as caught:
        drawn(about | {"seed": 1}, kind)
    assert "\n" not in str(caught.value)
