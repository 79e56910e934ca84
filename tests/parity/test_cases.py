"""Whatever library published a checkpoint, `load` computes what that library computes.

Every case of the folder is loaded from the names it has on disk; outputs and the gradient with respect to the input
must be the library's, to the rule of the reference cases. `--cases DIR` takes other cases than ours, and a case of a
family that is not known here fails.
"""

import jax
import numpy as np
import pytest

from tests.parity.outputs import computation, function_values
from tests.parity.sources import prepare
from tests.reference.cases import load_case, weights_file
from vit_jax.weights.load import load

FAMILIES = (
    "vit", "hybrid", "deit", "beit", "mae", "dino", "clip", "siglip", "ssl", "hiera", "cvt", "mvit", "swin", "explain",
    "tome", "resnet", "setr", "dpt",
)  # fmt: skip
# Cases that resample positions while they run, as their library does when asked.
DYNAMIC = (
    "vit_hf_interp", "beit_hf_cls_interp", "dinov1_multicrop_hf", "dinov2_hf_interp", "dinov2_reg_hf",
    "hiera_hf_interp",
)  # fmt: skip


# How near, in units of a pixel's value, a point is at which rounding may have taken a gradient, see `around`.
NEAR = {"hybrid": 3e-7, "swin": 6e-8, "resnet": 3e-7}
# Of these, what is not our models' is left out.
DEPTHS = ("dpt_hf_depth", "dpt_hf_depth_add", "depth_anything_hf", "depth_anything_hf_metric")
PARTLY = {
    # Not what is predicted before the last function.
    **dict.fromkeys(DEPTHS, ("predicted_depth", *(
        f"{name}{index}" for name in ("hidden_states.", "reassemble.", "fused") for index in range(5)
    ))),
    "gradcam_swin": ("logits",),
    "lejepa_sigreg": (
        "sigreg", "lejepa", "sigreg_collapsed", "visreg_total", "visreg_pred", "visreg_scale", "visreg_shape",
        "visreg_center", "invariance", "grad_sigreg_global", "grad_lejepa_global", "grad_visreg_total_global",
        "grad_visreg_shape_global", "grad_sigreg_collapsed_collapsed", "closed.sigreg",
        "closed.invariance_global_mean", "closed.invariance_all_mean", "closed.lejepa_minimal",
    ),
    "ssl_losses_lightly": (
        "sinkhorn_dinov2", "ibot_sinkhorn", "ibot_center0", "grad_ibot_center0_sp", "koleo_dup", "koleo_scaled",
        "grad_koleo_dup_others", "grad_koleo_scaled_others",
    ),
}  # fmt: skip


def test_outputs_and_input_gradient(case, tmp_path):
    about, arrays, _ = load_case(case)
    name, family = about["name"], about["family"]
    if family not in FAMILIES:
        pytest.fail(f"family {family!r} of case {name} is not known; leave it out with --families.")
    weights = weights_file(case)
    if not weights.exists():  # a case of functions without parameters
        found = function_values(name, about, arrays)
        problems = wrong_outputs(about, arrays, found)
        assert not problems, f"{name}: " + "; ".join(problems)
        return
    source, options = prepare(about, weights, tmp_path)
    if name in DYNAMIC:
        options["dynamic_image_size"] = True
    model = load(source, verbose=False, **options)
    run, images = computation(name, about, arrays, model)
    with jax.default_matmul_precision("highest"):
        found, gradient = run(images)
    problems = wrong_outputs(about, arrays, found)
    differentiated = next(key for key in arrays if key.startswith("grad."))
    theirs = arrays[differentiated]
    limit = 2e-5 * np.abs(theirs).max()
    wrong = differs(differentiated, gradient, theirs, limit)
    if wrong and family in NEAR:
        points = around(images, NEAR[family])
        wrong = [] if any(not differs("", run(near)[1], theirs, limit) for near in points) else wrong
    assert not problems + wrong, f"{name}: " + "; ".join(problems + wrong)


def wrong_outputs(about, arrays, found):
    problems = []
    for output, described in about["outputs"].items():
        if output not in PARTLY.get(about["name"], about["outputs"]):
            continue
        if found.get(output) is None:
            problems.append(f"{output} is not computed")
            continue
        theirs = arrays[f"out.{output}"]
        limit = max(20 * described.get("noise_f32_vs_f64", 0), 2e-5 * described.get("absmax", 0))
        problems += differs(output, found[output], theirs, limit)
    return problems


def around(images, distance):
    """Yield images that differ from these by rounding.

    A gradient jumps where a ReLU's input passes 0, and rounding decides on which side of such a place it is taken; a
    temperature of 1/100 (the second Swin) multiplies rounding by 100. The reference's must be the gradient at some
    point as near as rounding.
    """
    for seed in range(30):
        noise = np.random.default_rng(seed).standard_normal(images.shape)
        yield (images * (1 + distance * noise)).astype(np.float32)


def differs(what, ours, theirs, limit):
    if ours.shape != theirs.shape:
        return [f"{what} has shape {ours.shape}, theirs {theirs.shape}"]
    difference = np.abs(np.asarray(ours, np.float64) - theirs).max()
    return [] if difference <= limit else [f"{what} differs by {difference:.3g}, allowed {limit:.3g}"]
