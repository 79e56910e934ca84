"""A model's text fits on a screen and says its parameters by part and its configuration once."""

import jax
import pytest

import vit_jax
from vit_jax.models.names.resolve import resolve
from vit_jax.models.registry import builder


@pytest.mark.parametrize(
    "name",
    ["ViT-B/16", "R50+L/32", "facebook/vit-mae-base", "openai/clip-vit-base-patch32", "dinov3_vit7b16"],
)
def test_one_screen(name):
    if name.startswith("dinov3"):
        name = "vit_7b_patch16_dinov3.lvd1689m"
    model = jax.eval_shape(builder(resolve(name)[1]), jax.random.key(0))
    text = repr(model)
    lines = text.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 110
    assert text.count("preprocessing=") <= 2  # of each tower at most
    assert str(model) == text
    assert text.split()[0].rstrip(":") == type(model).__name__


def test_what_it_says():
    model = vit_jax.create_model("vit_mu_patch2_8", num_classes=3)
    lines = repr(model).splitlines()
    assert lines[0] == f"VisionTransformer: {sum(x.size for x in jax.tree.leaves(model)):,} parameters"
    assert "num_classes=3" in lines[1]
    assert lines[-3].split() == ["norm", "64", "bias", "(32,),", "scale", "(32,)"]
    assert repr(model.head).splitlines()[1:] == [
        "  bias               3  (3,)",
        "  kernel            96  (32, 3)",
    ]
    assert model._repr_html_().startswith("<pre>VisionTransformer: ")
