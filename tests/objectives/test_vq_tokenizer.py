"""The tokenizer that is trained here: how its codebook follows, straight-through gradients, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.steps import assert_divided_steps_are_whole_ones, configuration
from tests.tiny import labelled, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.flops import parameter_count
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.layers.norm import unit
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.vq_tokenizer.codebook import followed, offered, perplexity, usage
from vit_jax.objectives.vq_tokenizer.objective import build
from vit_jax.objectives.vq_tokenizer.options import VqTokenizerOptions
from vit_jax.trees import flatten

KEY = jax.random.key(0)
SMALL = dict(vocabulary=12, code_width=4, decoder_width=16, decoder_depth=1, decoder_heads=2)


def objective(model=None, **options):
    return build(model or tiny(depth=1), VqTokenizerOptions(**SMALL | options), DataInfo(5))


def test_the_codebook_follows_in_closed_form():
    codes = jnp.asarray([[0, 0], [2, 0]])
    vectors = unit(jnp.asarray([[[1.0, 0], [0, 1]], [[1, 1], [0, 1]]]))
    sums = usage(codes, vectors, 4)
    np.testing.assert_array_equal(sums["used"], [3, 0, 1, 0])
    np.testing.assert_allclose(sums["moved"][0], [1, 2])
    # The second patch of the first image is offered to code 1; the second image has no slot.
    sums |= offered(vectors, jnp.asarray([1, 0]), jnp.asarray([1, 4]), 4)
    np.testing.assert_array_equal(sums["offered"], [0, 1, 0, 0])
    book = jnp.asarray([[1.0, 0], [0, -1], [-1, 0], [0, 1]])
    new, uses = followed(book, jnp.asarray([1.0, 0, 1, 0]), sums, 0.5, 0.1)
    expected = 0.5 * np.asarray([1.0, 0]) + 0.5 * np.asarray([1, 2]) / np.sqrt(5)
    np.testing.assert_allclose(new[0], expected / np.linalg.norm(expected), rtol=1e-5)
    np.testing.assert_allclose(new[1], [0, 1], atol=1e-6)  # dead, revived
    np.testing.assert_array_equal(new[3], book[3])  # dead, but nothing was offered
    np.testing.assert_allclose(uses, [2, 1, 1, 0])  # the revived one as if it were used as often as all
    assert followed(book, jnp.asarray([1.0, 0, 1, 0]), sums, 0.5, 0.0)[0][1, 1] == -1


def test_perplexity():
    np.testing.assert_allclose(perplexity(jnp.ones(7)), 7, rtol=1e-5)
    np.testing.assert_allclose(perplexity(jnp.asarray([5.0, 0, 0])), 1)
    assert float(perplexity(jnp.zeros(3))) == 0


def test_every_image_offers_one_patch_to_a_code_of_its_own():
    ours = objective()
    for rows in (5, 12, 20):
        slots = np.asarray(ours.prepare(labelled(rows), KEY)["slot"])
        taken = slots[slots < 12]
        assert len(set(taken.tolist())) == len(taken) == min(rows, 12)


def test_gradients_go_straight_through():
    ours = objective(commitment=0.0)
    params, buffers = (randomised(tree) for tree in jax.eval_shape(ours.init, KEY))
    buffers["codebook"]["vectors"] = book = unit(buffers["codebook"]["vectors"])
    batch = ours.prepare(labelled(3), KEY)
    (loss, out), gradient = jax.jit(jax.value_and_grad(ours.loss, has_aux=True))(params, buffers, batch, None)
    assert (
        np.abs(gradient["to_codes"]["kernel"]).max() > 0
    )  # though a code does not change with what is quantised
    np.testing.assert_array_equal(out.sums["used"].sum(), 3 * 16)
    whole, vectors, codes = jax.jit(ours.functions.apply_state)(params, buffers, batch["image"])[0]
    np.testing.assert_allclose(jnp.square(vectors).sum(-1), 1, rtol=1e-5)
    distances = jnp.square(vectors[:, :, None] - book).sum(-1)
    np.testing.assert_array_equal(codes, distances.argmin(-1))
    np.testing.assert_allclose(loss, jnp.square(whole - batch["image"]).mean(), rtol=1e-5)
    data = labelled(3) | {"mask": jnp.arange(3) < 2}
    sums = jax.device_get(jax.jit(ours.evaluate)(params, buffers, data))
    assert sums["used"].sum() == 2 * 16
    metrics = ours.summarise(sums)
    assert metrics.keys() == ours.metric_modes.keys()
    picture = ours.illustrate(params, buffers, {"image": np.asarray(data["image"])}, list("abc"))
    assert [image.shape for image in picture.examples[0].images] == [(16, 16, 3)] * 2
    assert "use 1.5 of 12 codes" in ours.concerns({"perplexity": 1.5})["codes"]
    assert not ours.concerns({"perplexity": 3.0})


def test_divided_steps_are_whole_ones():
    experiment, state, metrics = assert_divided_steps_are_whole_ones(
        lambda: configuration({"name": "vq_tokenizer"} | SMALL, position="sincos2d_mae"),
        ("loss", "perplexity"),
    )
    assert set(state.buffers["codebook"]) == {"vectors", "uses"}
    np.testing.assert_allclose(np.square(state.buffers["codebook"]["vectors"]).sum(-1), 1, rtol=1e-4)
    network = experiment.task.objective.network
    assert parameter_count(network) == sum(leaf.size for leaf in flatten(state.params).values())
    assert metrics["finite"] == 1


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            HieraConfig(),
            {},
            "family 'hiera' does not take single patches, which the encoder of a tokenizer must",
        ),
        (None, dict(vocabulary=1), "vocabulary is 1; it must be between 2"),
        (None, dict(decoder_heads=3), "decoder_heads is 3, which does not divide decoder_width 16"),
        (None, dict(decay=1.5), "decay is 1.5; it must be between 0 and 1"),
    ],
)
def test_what_cannot_be_learned_is_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        objective(model, **options)
