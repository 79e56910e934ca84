"""Features of a teacher with batch statistics are those of evaluation."""

import jax
import jax.numpy as jnp
import numpy as np

import vit_jax
from tests.tiny import randomised
from vit_jax import trees
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Moment
from vit_jax.objectives.feature_distillation.objective import FeatureDistillation
from vit_jax.objectives.feature_distillation.options import FeatureDistillationOptions

KEY = jax.random.key(0)


def test_pooled_features_of_a_teacher_with_batch_statistics(tmp_path):
    made = vit_jax.create_model(
        "cvt-13", num_classes=3, image_size=8, widths=(8, 16), depths=(1, 1), head_dim=8, kernels=(7, 3),
        strides=(4, 2), pads=(2, 1),
    )  # fmt: skip
    vit_jax.save(made, tmp_path / "teacher")
    student = vit_jax.create_model(
        "vit_mu_patch4_8", num_classes=0, in_channels=3, width=16, depth=1, heads=2, mlp_dim=32
    )
    options = FeatureDistillationOptions(
        (str(tmp_path / "teacher"),), features="pooled", loss="mse", standard="none"
    )
    objective = FeatureDistillation(student.config, options)
    assert objective.widths == {"0_pooled": (16, 16)}
    (teacher,) = objective.teachers
    functions = model_functions(teacher.config)
    params, statistics = randomised(functions.abstract), randomised(functions.abstract_buffers, 1)
    whole = trees.unflatten(trees.flatten(params) | trees.flatten(statistics))
    own, buffers = jax.jit(objective.init)(KEY)
    objective = objective.at(Moment(jnp.int32(0), 8, 8, {"teacher_0": whole}))
    raw = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    prepared = objective.prepare({"image": jnp.asarray(raw)}, KEY)
    loss, _ = jax.jit(objective.loss)(own, buffers, prepared, KEY)
    seen = teacher.sees(prepared["image"], student.config.preprocessing)
    target, _ = jax.jit(functions.apply_state)(params, statistics, seen)
    layer = own["projectors"]["0_pooled"]["fc1"]
    mine = objective.functions.apply(own["encoder"], prepared["image"]) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(loss, jnp.square(mine - target).mean(), rtol=2e-5)
