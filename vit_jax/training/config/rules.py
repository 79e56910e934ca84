"""What a configuration may say, as data: keys, types, choices and ranges. Needs no jax."""

import re
from collections.abc import Callable
from typing import Any

from vit_jax.data.section import CACHES, LABELS, POLICIES, SOURCES
from vit_jax.models.family import LAYER_RULES
from vit_jax.training.report.writers.base import WRITERS

# Sections that take further keys: fields of the model's configuration, options of the objective.
OPEN_SECTIONS = ("model.", "objective.")

# What `model` may say beside the fields of its configuration and its name.
CHECKPOINT_KEYS: dict[str, Any] = {
    "checkpoint": "",
    "ignore": (),
    "weights": "",
    "labels": LABELS[0],
    "head_std": 0.0,
}

# Whether a share of the run makes sense.
DURATIONS = {
    "duration": False,
    "schedule.warmup": True,
    "schedule.cooldown": True,
    "schedule.timescale": True,
    "evaluation.every": True,
    "checkpoint.every": True,
    "log.every": True,
}

POSITIVE = ("duration", "evaluation.every", "checkpoint.every", "log.every")

CHOICES = {
    "compute_dtype": ("auto", "float32", "bfloat16"),
    "data.source": tuple(SOURCES),
    "data.cache": CACHES,
    "data.augment_on": ("cpu", "device"),
    "data.bad_records": POLICIES,
    "data.eval_bad_records": POLICIES,
    "optimizer.name": ("adamw", "sgd", "lamb", "lars", "lion", "adafactor", "muon"),
    "optimizer.first_moment_dtype": ("float32", "bfloat16"),
    "optimizer.layer_decay_rule": LAYER_RULES,
    "optimizer.weight_decay_schedule": ("constant", "linear", "cosine"),
    "schedule.name": ("cosine", "linear", "rsqrt", "poly", "steps", "constant"),
}

# Intervals as in mathematics: a round bracket leaves the bound out.
# What is far beyond any machine is a slip, too.
RANGES = {
    "seed": "[0, 4294967296)",
    "accumulation": "[1, 1048576]",
    "data.size": "[1, 1099511627776]",
    "data.batch_size": "[1, 2147483648]",
    "data.eval_batch_size": "[0, 2147483648]",
    "data.repeats": "[1, 1048576]",
    "data.max_bad_share": "[0, 1]",
    "data.max_megapixels": "(0, 10000]",
    "data.num_threads": "[0, 1024]",
    "data.num_workers": "[0, 1024]",
    "data.prefetch": "[0, 1024]",
    "optimizer.learning_rate": "(0, inf)",
    "optimizer.b1": "[0, 1)",
    "optimizer.b2": "[0, 1)",
    "optimizer.epsilon": "[0, inf)",
    "optimizer.momentum": "[0, 1)",
    "optimizer.weight_decay": "[0, inf)",
    "optimizer.weight_decay_end": "[0, inf)",
    "optimizer.clip_norm": "[0, inf)",
    "optimizer.layer_decay": "(0, 1]",
    "optimizer.frozen_blocks": "[0, 1048576]",
    "optimizer.trained_blocks": "[-1, 1048576]",
    "schedule.warmup_start": "[0, 1]",
    "schedule.final": "[0, 1]",
    "schedule.power": "(0, 100]",
    "schedule.factor": "(0, 1]",
    "ema.decay": "[0, 1)",
    "lora.rank": "[0, 1048576]",
    "lora.alpha": "(0, inf)",
    "mesh.data": "[-1, 1048576]",
    "mesh.fsdp": "[-1, 1048576]",
    "mesh.tensor": "[-1, 1048576]",
    "sharding.min_size": "[0, inf)",
    "sharding.max_replicated": "[0, 1]",
    "divergence.max_skipped": "[0, 1000000]",
    "divergence.spike_deviations": "[0, inf)",
    "divergence.spike_window": "[2, 1000000]",
    "evaluation.patience": "[0, 1000000]",
    "evaluation.min_delta": "[0, inf)",
    "evaluation.illustrate": "[0, 1048576]",
    "evaluation.shots_l2": "[0, inf)",
    "checkpoint.keep_last": "[1, 1000000]",
    "checkpoint.keep_best": "[0, 1000000]",
    "watchdog.step_limit": "(0, inf)",
    "watchdog.phase_limit": "(0, inf)",
    "watchdog.peer_limit": "[3, inf)",
}

# Regular expressions on parameter paths; and pairs of one with something else.
PATTERNS = ("optimizer.decay", "optimizer.matrices", "optimizer.trained", "optimizer.frozen", "lora.targets")
PATTERN_FACTORS = ("optimizer.learning_rate_multipliers", "optimizer.weight_decay_multipliers")
PATTERN_PAIRS = (*PATTERN_FACTORS, "sharding.rules")
TACTIC = re.compile(r"\s*((replicate|fsdp|stacked|tensor\(-?\d{1,9}\))(\s+|$))+")
# What stands in transforms for numbers of the model, which are known later.
STAND_INS = {
    "{size}": "(224, 224)", "{channels}": "3", "{interpolation}": "'bicubic'", "{patches}": "196", "{patch}": "16",
}  # fmt: skip
BASELINES = ("logistic_regression", "svm_rbf", "nearest_neighbour")
# Sequences of numbers of at least 1.
COUNTS = ("evaluation.neighbours", "evaluation.shots")
# Sequences of names, and which there are.
NAMES = {"evaluation.baselines": BASELINES, "log.writers": tuple(WRITERS)}

TYPES: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str)),
    tuple: ("a sequence, for example ('head',)", lambda value: isinstance(value, tuple)),
}
