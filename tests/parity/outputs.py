"""What our models compute of a reference case's inputs, under the names of the case's outputs."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.merging import merging
from vit_jax.evaluation.probes.base import accuracy
from vit_jax.evaluation.probes.fewshot import least_squares
from vit_jax.evaluation.probes.knn import knn_scores
from vit_jax.evaluation.probes.rank import rankme, singular_values
from vit_jax.models.families import family_of
from vit_jax.models.heads.parts import resized
from vit_jax.models.layers.pixels.patches import unpatchify
from vit_jax.models.mae.masking import random_masking
from vit_jax.models.mae.model import MaskedAutoencoder
from vit_jax.models.patches import Patches
from vit_jax.models.text.model import ImageTextModel
from vit_jax.objectives.dino import losses as dino_losses
from vit_jax.objectives.segmentation.losses import pixel_cross_entropy
from vit_jax.objectives.views import losses as views_losses
from vit_jax.training.devices.mesh import batch_sharding, make_mesh

CAPTURE = ("embedded", "blocks", "attention", "encoded", "pooled", "pre_logits")


def nhwc(images):
    return jnp.transpose(images, (0, 2, 3, 1))


def computation(name, about, inputs, model):
    """Return the function from a case's images to (our outputs by name, our gradient), and those images."""
    run = next((run for pattern, run in RUNS.items() if name.startswith(pattern)), image_model)
    primary = about["primary"]
    differentiated = next(key for key in inputs if key.startswith("grad."))[len("grad.") :]
    given = {key[len("in.") :]: value for key, value in inputs.items() if key.startswith("in.")}
    fixed = {key: value for key, value in given.items() if key != differentiated}

    @jax.jit
    def outputs(variable):
        def weighted(variable):
            found = run(model, {**fixed, differentiated: variable}, about)
            return jnp.sum(found[primary] * inputs["cot"]), found

        gradient, found = jax.grad(weighted, has_aux=True)(variable)
        return found, gradient

    return outputs, given[differentiated]


def function_values(name, about, inputs):
    """Return by name what our functions without parameters make of a case's inputs."""
    given = {key[len("in.") :]: jnp.asarray(value) for key, value in inputs.items() if key.startswith("in.")}
    return FUNCTIONS[name](given, about["config"])


def compiled(function):
    return lambda inputs, config: jax.jit(lambda given: function(given, config))(inputs)


@compiled
def self_distillation(inputs, config):
    """Some steps of DINO's losses; the teacher's scores grow by 0.1 from one to the next."""
    (start, end, warmup), momentum, temperature = config["warmup"], config["momentum"], config["student_temp"]
    found, center = {}, jnp.zeros(inputs["t"].shape[-1])
    for step in range(3):
        scores = inputs["t"] + 0.1 * step
        sharpness = dino_losses.teacher_temperature(step, start, end, warmup)
        targets = dino_losses.teacher_targets(scores, center, sharpness)
        found[f"dino.{step}"] = dino_losses.dino_loss(inputs["s"], targets, temperature)
        center = dino_losses.update_center(center, scores, momentum)
        found[f"center.{step}"] = center[None, None]
    center = jnp.zeros(inputs["tp"].shape[-1])
    for step in range(2):
        scores = inputs["tp"] + 0.1 * step
        targets = dino_losses.teacher_targets(scores, center, end)
        found[f"ibot.{step}"] = dino_losses.ibot_loss(inputs["sp"], targets, inputs["mask"], temperature)
        center = dino_losses.update_center(center, scores, momentum)
        found[f"ibot_center.{step}"] = center[None]
    return found | {"koleo": dino_losses.koleo_loss(inputs["feat"])}


@compiled
def without_labels(inputs, config):
    """Losses of several methods; of self-distillation Sinkhorn-Knopp, masked patches and KoLeo."""
    temperature, student = config["ibot"]
    shared = dino_losses.sinkhorn_targets(inputs["tp"], temperature)
    masked = {"mask": inputs["mask"], "temperature": student}
    centred = dino_losses.teacher_targets(inputs["tp"], jnp.zeros(inputs["tp"].shape[1]), temperature)
    return {
        "sinkhorn_dinov2": shared,
        "ibot_sinkhorn": dino_losses.ibot_loss(inputs["sp"], shared, **masked),
        "ibot_center0": dino_losses.ibot_loss(inputs["sp"], centred, **masked),
        "grad_ibot_center0_sp": jax.grad(dino_losses.ibot_loss)(inputs["sp"], centred, **masked),
        "koleo_dup": dino_losses.koleo_loss(inputs["dup"]),
        "koleo_scaled": dino_losses.koleo_loss(inputs["near"]),
        "grad_koleo_dup_others": jax.grad(dino_losses.koleo_loss)(inputs["dup"])[
            jnp.asarray([0, 1, 2, 4, 6])
        ],
        "grad_koleo_scaled_others": jax.grad(dino_losses.koleo_loss)(inputs["near"])[
            jnp.asarray([0, 1, 3, 5])
        ],
    }


def probes(inputs, config):
    """Votes of neighbours, few-shot classifiers and effective ranks of frozen features."""
    given, classes = {name: np.asarray(values) for name, values in inputs.items()}, config["classes"]
    rows = batch_sharding(make_mesh({"data": -1, "fsdp": 1, "tensor": 1}))
    bank, labels, query, truth = (given[name] for name in ("bank", "bank_labels", "query", "query_labels"))
    found = {}
    settings = {"ks": config["k"], "temperature": config["temperature"]}
    for k, scores in knn_scores(bank, labels, query, classes, rows, **settings).items():
        found[f"knn_scores.k{k}"], found[f"knn_top1.k{k}"] = scores, scores.argmax(axis=1)
        found[f"knn_accuracy.k{k}"] = accuracy(scores.argmax(axis=1), truth)
    cyclic = np.arange(len(given["wide_bank"])) % classes
    wide = given["wide_bank"], cyclic, given["wide_query"], truth[: len(given["wide_query"])]
    for kind, (x, y, asked, right) in {"tall": (bank, labels, query, truth), "wide": wide}.items():
        for l2 in config["l2"]:
            fitted, name = least_squares(x, y, classes, l2), f"fewshot_{kind}.l2_{l2}"
            kernel, bias = fitted.affine
            scores = asked @ kernel + bias
            found[f"{name}.weights"], found[f"{name}.scores"] = fitted.weights, scores
            found[f"{name}.accuracy"] = accuracy(scores.argmax(axis=1), right)
    for name in ("bank", "low_rank"):
        found[f"rankme.{name}"] = rankme(given[name])
        found[f"singular_values.{name}"] = singular_values(given[name])
    return {name: np.asarray(value) for name, value in found.items()}


@compiled
def joint_embedding(inputs, config):
    """Losses of views along random directions, with gradients; `closed` are those of formulas."""
    whole, local = inputs["global_proj"], inputs["local_proj"]
    directions = views_losses.unit(inputs["directions"].T).T
    everything = jnp.concatenate([whole, local])

    def visreg(views):
        both = jnp.concatenate([views, local])
        return views_losses.visreg_loss(both, views, directions, 0.9, (1.0, 1.0, 1.0))

    functions = {
        "sigreg": lambda views: views_losses.sigreg(jnp.concatenate([views, local]), directions),
        "lejepa": lambda views: views_losses.lejepa_loss(
            jnp.concatenate([views, local]), views, directions, config["lambda_lejepa"]
        )[0],
        "visreg_total": lambda views: visreg(views)[0],
        "visreg_shape": lambda views: visreg(views)[1]["shape"],
    }
    found = {}
    for name, function in functions.items():
        found[name], found[f"grad_{name}_global"] = jax.value_and_grad(function)(whole)
    collapsed = jax.value_and_grad(lambda views: views_losses.sigreg(views, directions))
    found["sigreg_collapsed"], found["grad_sigreg_collapsed_collapsed"] = collapsed(inputs["collapsed"])
    terms = visreg(whole)[1]
    found |= {f"visreg_{name}": terms[name] for name in ("scale",)}
    found |= {"visreg_pred": terms["invariance"], "visreg_center": terms["centre"]}
    around = views_losses.invariance(everything, whole)
    minimal, of_all = views_losses.lejepa_loss(everything, everything, directions, 0.02)
    return found | {
        "invariance": around,
        "closed.invariance_global_mean": around,
        "closed.invariance_all_mean": of_all["invariance"],
        "closed.lejepa_minimal": minimal,
        "closed.sigreg": found["sigreg"],
    }


FUNCTIONS = {
    "dino_losses_lightly": self_distillation,
    "lejepa_sigreg": joint_embedding,
    "probe_knn_fewshot": probes,
    "ssl_losses_lightly": without_labels,
}


def image_model(model, inputs, about):
    """A VisionTransformer of timm, transformers or torchvision."""
    images = jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1))
    config = model.config
    capture = CAPTURE + ("class_logits", "distillation_logits") * (model.head_distillation is not None)
    logits, values = model(images, capture=capture, mask=inputs.get("bool_masked_pos"))
    found = {
        "logits": logits,
        "pre_logits": values["pre_logits"],
        "pooler_output": values["pre_logits"],
        "last_hidden_state": values["encoded"],
        "hidden_states.0": values["embedded"],
        "forward_features": values["encoded"],
        "cls_logits": values.get("class_logits"),
        "dist_logits": values.get("distillation_logits"),
        "distillation_logits": values.get("distillation_logits"),
    }
    grid = model.grid_of(images)
    for layer in range(config.depth):
        block = values["blocks"][layer]
        found[f"hidden_states.{layer + 1}"] = block
        found[f"attentions.{layer}"] = values["attention"][layer]
        patches = jnp.swapaxes(block[:, config.prefix_tokens :], 1, 2)
        found[f"intermediates.{layer}"] = patches.reshape(*patches.shape[:2], *grid)
    if "reconstruction" in about["outputs"]:
        pixels = unpatchify(logits, config.patch_size, grid)
        found["reconstruction"] = jnp.transpose(pixels, (0, 3, 1, 2))
        found["loss"] = simmim_loss(images, pixels, inputs["bool_masked_pos"], config)
    elif "labels" in inputs:
        chosen = logits[jnp.nonzero(inputs["bool_masked_pos"], size=inputs["labels"].size)]
        scores = jax.nn.log_softmax(chosen)
        found["loss"] = -jnp.take_along_axis(scores, inputs["labels"][:, None], 1).mean()
    return found


def simmim_loss(images, pixels, mask, config):
    rows, columns = config.grid
    p, q = config.patch_size
    covered = jnp.repeat(jnp.repeat(mask.reshape(-1, rows, columns), p, 1), q, 2)[..., None].astype(
        jnp.float32
    )
    return (jnp.abs(images - pixels) * covered).sum() / (covered.sum() + 1e-5) / config.in_channels


def swin(model, inputs, about):
    """A Swin Transformer of any library."""
    images, config = jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1)), model.config
    names = ("embedded", "stages", "attention", "encoded", "pooled")
    logits, values = model(images, capture=names, mask=inputs.get("bool_masked_pos"))
    stages = values["stages"]
    found = {
        "logits": logits,
        "pre_logits": values["pooled"],
        "forward_features": values["encoded"],
        "features": stages[-1],
    }
    # transformers counts a map with the stage before after it has been merged.
    merged = [stage.merge(x) for stage, x in zip(model.stages[1:], stages)]
    for i, x in enumerate([values["embedded"], *merged, stages[-1]]):
        found[f"hidden_states.{i}"] = x.reshape(len(x), -1, x.shape[-1])
        found[f"reshaped_hidden_states.{i}"] = jnp.transpose(x, (0, 3, 1, 2))
    for i, x in enumerate(stages):
        found[f"intermediates.{i}"] = jnp.transpose(x, (0, 3, 1, 2))
        found[f"attentions.{i}"] = values["attention"][sum(config.depths[: i + 1]) - 1]
    if "reconstruction" in about["outputs"]:
        side = about["config"]["encoder_stride"]
        tokens = logits.reshape(len(logits), -1, logits.shape[-1])
        pixels = unpatchify(tokens, (side, side), logits.shape[1:3])
        found["reconstruction"] = jnp.transpose(pixels, (0, 3, 1, 2))
        found["loss"] = simmim_loss(images, pixels, inputs["bool_masked_pos"], config)
    return found


def masked_autoencoder(model, inputs, about):
    images = jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1))
    noise, ratio = inputs["noise"], about["config"].get("mask_ratio", 0.75)
    if isinstance(model, MaskedAutoencoder):
        logits, mask = model(images, noise, ratio)
        patches, p = model.encoder, model.encoder.config.patch_size
        keep = int(noise.shape[1] * (1 - ratio))
        tokens = target(images, p, about["config"].get("norm_pix_loss", False))
        loss = (jnp.square(logits - tokens).mean(-1) * mask).sum() / mask.sum()
        restore = random_masking(noise, keep)[1]
        captured = encode_visible(patches, images, noise, keep)
        return {"logits": logits, "mask": mask, "ids_restore": restore, "loss": loss, **captured}
    kept, restore, mask = random_masking(noise, int(noise.shape[1] * (1 - about["config"]["mask_ratio"])))
    captured = encode_visible(model, images, noise, kept.shape[1])
    return {"mask": mask, "ids_restore": restore, **captured}


def encode_visible(encoder, images, noise, keep):
    kept, _, _ = random_masking(noise, keep)
    x = encoder.embed(images)
    prefix = encoder.config.prefix_tokens
    visible = jnp.take_along_axis(x[:, prefix:], kept[..., None], axis=1)
    x = jnp.concatenate([x[:, :prefix], visible], axis=1)
    encoded, captured = encoder.encode(x, outputs=True, weights=True)
    found = {"last_hidden_state": encoded, "hidden_states.0": x}
    for layer in range(encoder.config.depth):
        found[f"hidden_states.{layer + 1}"] = captured["blocks"][layer]
        found[f"attentions.{layer}"] = captured["attention"][layer]
    return found


def target(images, patch, normalised):
    b, h, w, c = images.shape
    grid = images.reshape(b, h // patch[0], patch[0], w // patch[1], patch[1], c).transpose(0, 1, 3, 2, 4, 5)
    tokens = grid.reshape(b, -1, patch[0] * patch[1] * c)
    if not normalised:
        return tokens
    return (tokens - tokens.mean(-1, keepdims=True)) / jnp.sqrt(tokens.var(-1, ddof=1, keepdims=True) + 1e-6)


def dino_crops(model, inputs, about):
    """One backbone on crops of two sizes; small crops have their positions resampled."""
    found = {}
    for name in ("global", "local"):
        images = jnp.transpose(inputs[f"{name}_crops"], (0, 2, 3, 1))
        # transformers leaves out pixels that patches do not cover; ours would say so.
        height, width = (
            size // patch * patch for size, patch in zip(images.shape[1:3], model.config.patch_size)
        )
        found[f"{name}_cls"] = model(images[:, :height, :width])
    return found


def two_towers(model, inputs, about):
    assert isinstance(model, ImageTextModel)
    if "spatial_shapes" in inputs:
        images = Patches(inputs["pixel_values"], jnp.asarray(inputs["spatial_shapes"], jnp.int32))
    else:
        images = jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1))
    tokens = jnp.asarray(inputs["input_ids"], jnp.int32)
    logits, image, text = model(images, tokens)
    pooled, values = model.image(images, capture=("blocks", "encoded"))
    clip = model.logit_bias is None
    n = logits.shape[0]
    pairs = jnp.arange(n)
    if clip:
        scores = (jax.nn.log_softmax(axis)[pairs, pairs].mean() for axis in (logits, logits.T))
        loss = -sum(scores) / 2
    else:
        loss = -jax.nn.log_sigmoid((2 * jnp.eye(n) - 1) * logits).sum() / n
    last = values["blocks"][-1] if clip else values["encoded"]
    return {
        "logits_per_image": logits,
        "logits_per_text": logits.T,
        "image_embeds": image,
        "text_embeds": text,
        "image_features": image,
        "text_features": text,
        "logit_scale": jnp.exp(model.logit_scale[...]),
        "loss": loss,
        "vision_model_output.last_hidden_state": last,
        "vision_model_output.pooler_output": pooled,
        "text_model_output.last_hidden_state": model.text.features(tokens),
        "text_model_output.pooler_output": model.text(tokens),
    }


def sequences(model, inputs, about):
    coordinates = inputs["patch_coord"]
    sizes = jnp.asarray(coordinates.max(axis=1) + 1, jnp.int32)
    return {"logits": model(Patches(inputs["patches"], sizes))}


def segmentation(model, inputs, about):
    logits = model(jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1)))
    return {"logits": jnp.transpose(logits, (0, 3, 1, 2))}


def setr(model, inputs, about):
    images = nhwc(inputs["pixel_values"])
    logits, further = model.with_auxiliary(images)
    found = {"logits": logits, "logits_full": resized(logits, images.shape[1:3])}
    found |= {f"aux.{index}": values for index, values in enumerate(further)}
    maps = model.encoder.features(images, [level.name for level in model.config.levels])
    found |= {f"features.{index}": x for index, x in enumerate(maps)}
    return {name: jnp.moveaxis(x, 3, 1) for name, x in found.items()}


def dense(model, inputs, about):
    """A DPT or Depth Anything; classes' loss is the mean over pixels, the second head's weighs 0.4."""
    images = nhwc(inputs["pixel_values"])
    output, further = model.with_auxiliary(images)
    found = {"predicted_depth": output} if output.ndim == 3 else {"logits": jnp.moveaxis(output, 3, 1)}
    _, values = model.encoder(images, capture=("embedded", "blocks"))
    found["hidden_states.0"] = values["embedded"]
    found |= {f"hidden_states.{index + 1}": x for index, x in enumerate(values["blocks"])}
    taken = model.taken(images)
    for index, (layer, one) in enumerate(zip(model.reassemble, taken)):
        found[f"reassemble.{index}"] = jnp.moveaxis(layer.place(*one), 3, 1)
    for index, x in enumerate(model.features(images)):
        found[f"fused{index}"] = jnp.moveaxis(x, 3, 1)
    if "labels" in inputs:
        labels = jnp.where(inputs["labels"] == 255, -1, inputs["labels"]).astype(jnp.int32)
        losses = [pixel_cross_entropy(resized(x, labels.shape[1:]), labels)[0] for x in (output, *further)]
        found |= {"loss": losses[0] + 0.4 * losses[1], "aux": jnp.moveaxis(further[0], 3, 1)}
    return found


def staged_maps(model, inputs, about):
    """A model in stages: transformers' hidden states and timm's intermediates are the maps of the stages."""
    family = family_of(model.config)
    names = [level.name for level in family.levels(model.config)]
    capture = (*names, *{"encoded", "pre_logits"}.intersection(family.captures))
    logits, values = model(jnp.transpose(inputs["pixel_values"], (0, 2, 3, 1)), capture=capture)
    found = {"logits": logits, "forward_features": values.get("encoded"), "pre_logits": values["pre_logits"]}
    for index, name in enumerate(names):
        found[f"hidden_states.{index}"] = found[f"intermediates.{index}"] = jnp.moveaxis(values[name], 3, 1)
    if found["forward_features"] is None:
        found["forward_features"] = jnp.moveaxis(values[names[-1]], 3, 1)
    return found


def projection_head(model, inputs, about):
    return {"out": model(inputs["x"])}


def hierarchical(model, inputs, about):
    """A Hiera; `hidden_states` are in its authors' order of tokens, which is another than ours."""
    config = model.config
    names = [f"stages/{stage}" for stage in range(len(config.depths))]
    logits, values = model(nhwc(inputs["pixel_values"]), capture=("embedded", *names, "pre_logits"))
    found = {"logits": logits, "pre_logits": values["pre_logits"], "pooled": values["pre_logits"]}
    for number, name in enumerate(("embedded", *names)):
        left = config.unrolled - (config.stages[number - 1].pools if number else 0)
        states = windows_inside(values[name], left)
        found |= {f"hidden_states.{number}": states, f"reshaped_hidden_states.{number}": values[name]}
        planes = jnp.transpose(values[name], (0, 3, 1, 2))
        found |= {f"feature_maps.{number}": planes, f"intermediates.{number - 1}": planes}
        found["forward_features"] = states
    return found


def windows_inside(x, levels):
    """Tokens of a map in the order of Hiera's authors: offsets within squares before the squares, level by level."""
    b, h, w, d = x.shape
    x = x[:, None]
    for _ in range(levels):
        before, h, w = x.shape[1], h // 2, w // 2
        x = x.reshape(b, before, h, 2, w, 2, d).transpose(0, 1, 3, 5, 2, 4, 6).reshape(b, before * 4, h, w, d)
    return x.reshape(b, -1, d)


def hidden_mask_units(model, inputs, about):
    """A masked autoencoder with a Hiera; its pixels are channel by channel, and its mask says what is kept."""
    images, noise, ratio = nhwc(inputs["pixel_values"]), inputs["noise"], about["config"]["mask_ratio"]
    predicted, mask = model(images, noise, ratio)
    fused = model.encoder.norm(model.encode(images, noise, ratio)[0])
    patch = model.config.patch_size
    losses = jnp.square(predicted - target(images, patch, about["config"]["normalize_pixel_loss"])).mean(-1)
    pixels = predicted.reshape(*predicted.shape[:2], *patch, -1)
    return {
        "loss": (losses * mask).sum() / mask.sum(),
        "logits": jnp.moveaxis(pixels, -1, 2).reshape(predicted.shape),
        "bool_masked_pos": 1 - mask,
        "ids_restore": random_masking(noise, 1)[1],
        "fused": fused,
        "decoder_in": model.decoder.embed(fused),
    }


RUNS = {
    "hiera_hf_mae": hidden_mask_units,
    "hiera_": hierarchical,
    "cvt_": staged_maps,
    "resnet_": staged_maps,
    "setr_": setr,
    "dpt_": dense,
    "depth_anything": dense,
    "mvitv2_timm": staged_maps,
    "dino_head": projection_head,
    "beit_hf_upernet": segmentation,
    "mae_": masked_autoencoder,
    "dinov1_multicrop": dino_crops,
    "clip_": two_towers,
    "siglip": two_towers,
    "naflexvit": sequences,
    "swin": swin,
    "gradcam_swin": swin,
    "tome_": merging,
}
