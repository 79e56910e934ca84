"""What every experiment starts from. Needs no jax.

Durations are one value with its unit: `500`, `"500 steps"`, `"30 epochs"`, `"1e6 examples"` or `"5%"` of the
run.
"""

from typing import Any

from ml_collections import ConfigDict

# A ConfigDict, whose attributes a type checker cannot know.
Config = Any


def default_config() -> Config:
    """Return the configuration every experiment starts from.

    It accepts any key and any type while a file fills it in; `validate` then names everything that is wrong.
    """
    return ConfigDict(
        dict(
            seed=0,
            duration="1000 steps",
            accumulation=1,  # microbatches per step
            compute_dtype="auto",  # bfloat16 on accelerators, float32 on CPU
            # And any field of the model. With `checkpoint`, whatever `vit_jax.load` takes, architecture and weights
            # come from it and `name` is not used; `ignore` names arrays of it that may stay unused,
            # `weights` the set that is meant where a file holds several; its head is kept
            # as far as names of its classes are those of the data, and with `labels="by-position"` whatever they are.
            model=dict(name="vit_tiny_patch16_224"),
            lora=dict(  # low-rank adaptation; see models.lora
                rank=0,  # 0: off
                alpha=16.0,
                targets=("query", "value"),  # patterns of layers
            ),
            objective=dict(name="classification"),  # and any option of it
            data=dict(
                source="digits",
                path="",
                name="",
                size=1024,  # records of sources that make them up: synthetic, digit_scenes, digit_sets, ...
                classes="",  # of masks: the file that says what their numbers mean; empty: classes.json or .txt in path
                # Of a table or a dataset of Hugging Face's; empty: "path" or "image", "label" and, if there, "split".
                image_column="",
                label_column="",
                split_column="",
                # Of a table instead of one label: columns of a class each (1, 0 or empty for unknown), columns of a
                # number each, or what stands between several labels in the column of labels ("json" for lists).
                label_columns=(),
                value_columns=(),
                label_separator="",
                train_split="train",
                eval_split="test",
                train_transforms="",  # empty: what the source needs and no more
                eval_transforms="",
                augment_on="cpu",  # or "device": where multi_crop, the last of train_transforms, is done
                batch_size=64,  # over all devices and hosts
                eval_batch_size=0,  # 0: as batch_size
                balanced=False,
                mixture=(),  # dicts of source, path, name, split, weight, ...: what to train on instead of `source`
                repeats=1,  # of each record in a batch, differently transformed
                cache="none",  # "encoded" or "decoded" records stay in memory
                bad_records="skip",  # or "error": what to do with records that cannot be read, in training
                eval_bad_records="error",
                max_bad_share=0.001,  # of skipped records, before it is an error
                max_megapixels=64.0,  # of an image file; larger ones cannot be read
                num_threads=4,
                num_workers=0,  # processes; 0 decodes in threads
                prefetch=2,  # batches
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=1e-3,
                b1=0.9,
                b2=0.999,
                epsilon=1e-8,
                momentum=0.9,
                nesterov=False,
                # Patterns of what muon makes orthogonal.
                matrices=(r"^(?!(.*/)?(patch_embed|head)/).*kernel$",),
                weight_decay=0.0,
                weight_decay_schedule="constant",  # or "linear" or "cosine", over the run, to:
                weight_decay_end=0.0,
                decay=(r"kernel$",),  # patterns of parameters that decay
                clip_norm=1.0,  # 0: off
                clip_per_tensor=False,  # each tensor's own norm instead of the norm of all
                layer_decay=1.0,
                layer_decay_rule="beit",  # or "timm": which layer the final norm belongs to; see models.layer_numbers
                trained=(),  # patterns of parameters that are trained; empty: all, with lora its factors and the head
                frozen=(),  # patterns of parameters that stay as they are all the same
                frozen_blocks=0,  # everything before the blocks and so many of the first stay as they are
                trained_blocks=-1,  # or: all but so many of the last; -1: all are trained
                learning_rate_multipliers=(),  # (pattern, factor)
                weight_decay_multipliers=(),
                # (pattern, when its parameters start[, how long they warm up, if not as schedule.warmup; None: not at
                # all, their rate is then that of all others]).
                delay=(),
                first_moment_dtype="float32",
            ),
            schedule=dict(
                name="cosine",
                warmup="0 steps",
                warmup_start=0.0,  # share of the peak
                cooldown="0 steps",
                final=0.0,  # share of the peak
                timescale="10000 steps",  # of rsqrt
                power=1.0,  # of poly
                milestones=(),  # of steps, durations from the beginning of the run, at each of which the rate is
                factor=0.1,  # multiplied by this
            ),
            ema=dict(decay=0.0, warmup=True),
            mesh=dict(data=-1, fsdp=1, tensor=1),
            sharding=dict(
                rules=(),  # (pattern, tactic) before ours; see training.sharding
                min_size=2**18,  # elements below which a tensor stays whole
                overlap=True,  # reduce-scatters of gradients run beside products; on TPU v5e, elsewhere nothing
                zero1=False,  # optimizer state and moving average are divided over `data` too
                max_replicated=0.02,  # share of parameter bytes that may stay whole for want of a dividing dimension
            ),
            # Where compiled programs are kept for the next start: a folder; "auto", in this user's cache, or in the
            # workdir on several hosts; "off".
            compilation=dict(cache="auto"),
            # Steps whose update is left out, counted and recorded in the workdir's `incidents`; see `vit-jax replay`.
            divergence=dict(
                max_skipped=0,  # steps with numbers that are not finite, in the whole run, before they end it
                spike_deviations=0.0,  # a loss so many deviations above the mean of the last is a spike; 0: none is
                spike_window=128,  # steps of that mean
            ),
            evaluation=dict(
                every="10%",
                monitor="",  # the metric that decides which checkpoint is best; empty: the objective's own
                patience=0,  # evaluations without improvement of it that end the run early; 0: never
                min_delta=0.0,  # what it must gain to have improved
                baselines=(),
                illustrate=0,
                # What frozen features are asked: "knn", "linear", "linear_sgd", "fewshot", "rank"; with an interval of
                # its own as "linear:10 epochs", else with every evaluation. See evaluation.probes.
                probes=(),
                neighbours=(10, 20),  # of knn
                shots=(1, 5, 10, 25),  # of fewshot: examples of each class
                shots_l2=1024.0,  # of fewshot: its regularisation; 0: chosen by leaving one out
            ),
            checkpoint=dict(
                every="10%",
                keep_last=2,
                keep_best=1,
                staging="",  # a local folder to write to first, where the workdir is on a remote disk (Colab's Drive)
            ),
            # Seconds after which a process ends itself with status 75: in one step or waiting for its data; in anything
            # else, such as compiling, evaluating or saving; without a sign of life from another process.
            watchdog=dict(step_limit=300.0, phase_limit=3600.0, peer_limit=10.0),
            log=dict(
                every="50 steps",
                tensorboard=True,
                progress=True,
                writers=(),  # services that get every number too: "wandb", "mlflow", "trackio"
                project="",  # there: a project, to MLflow an experiment; empty: their own choice
            ),
        ),
        type_safe=False,
    )


def flatten(config: Any) -> dict[str, Any]:
    """Return `{"data.batch_size": 64}` of a configuration or nested dict; lists become tuples."""
    flat = {}
    for key, value in dict(config).items():
        if isinstance(value, ConfigDict | dict):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            flat[str(key)] = tuples(value)
    return flat


def unflatten(flat: dict[str, Any]) -> Config:
    """Return the configuration of a flat dict; the inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return ConfigDict(nested, type_safe=False)


def tuples(value: Any) -> Any:
    """Return a value with tuples for lists, also inside dicts and tuples."""
    if isinstance(value, dict):
        return {key: tuples(inner) for key, inner in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
