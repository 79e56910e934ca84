"""What frozen features of a run's model are asked, checked before anything is compiled."""

import numpy as np

from vit_jax.data.base import Source
from vit_jax.evaluation.probes.base import Probe, Records
from vit_jax.evaluation.probes.measuring import make_probe
from vit_jax.evaluation.probes.names import parse_probes
from vit_jax.training.config.defaults import Config


def make_probes(section: Config, train_source: Source, eval_source: Source, dtype: str) -> tuple[Probe, ...]:
    """Return the probes of a configuration.

    Args:
      section: `evaluation`.
      train_source: what the bank is made of.
      eval_source: what is asked about.
      dtype: that the model computes in.

    Raises:
      ConfigError: a probe cannot be asked of these records.
    """
    labelled = all("label" in source.fields for source in (train_source, eval_source))
    labels = train_source.labels if labelled else None
    records = Records(
        len(train_source),
        len(eval_source),
        tuple(train_source.class_names) if labelled else (),
        None if labels is None else np.bincount(labels, minlength=train_source.num_classes).tolist(),
    )
    probes = tuple(
        make_probe(name, section, dtype) for name in parse_probes(section.probes, "evaluation.probes")
    )
    for probe in probes:
        probe.check(records)
    return probes
