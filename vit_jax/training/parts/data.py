"""The records of a run: sources, what happens to each record, batches, and what tells these records from others."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from typing import Any

import jax
import numpy as np

from vit_jax.data.base import Source, balanced
from vit_jax.data.pipeline import Batches, eval_batches, train_batches
from vit_jax.data.reader import SKIPPED, Batch, batch_records
from vit_jax.data.transforms.base import ImageTransform
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError
from vit_jax.training.augmentation.views import device_views, on_host
from vit_jax.training.config.defaults import Config
from vit_jax.training.parts.identity import data_identity
from vit_jax.training.parts.records import Records, first_batch, transform_specs
from vit_jax.training.step import Augment, unchanged

Report = Callable[[str], None]
Fields = Mapping[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class Data:
    """What a run reads; one record of each part has been read, to see what it is like.

    Attributes:
      section: `data` of the configuration.
      seed: of order and transforms.
      train_source, eval_source: the records.
      opened: both, before classes were balanced.
      given: whether they came from outside instead of from the configuration.
      note: how the classes of the records to evaluate on were matched with those of training; empty where they are the
        same.
      transforms: what happens to records to train on and to evaluate on, as configurations write it.
      bank_transforms: what happens to records to train on where their features are probed.
      input_shape: of an image as the model takes it, `(h, w, c)`; of any rank.
      fields, eval_fields: what the transforms leave of a record, by name, without the batch's axis.
      augment: what is done to a batch on the devices.
      made: what that leaves of a record to train on, as `fields`.
    """

    section: Config
    seed: int
    train_source: Source
    eval_source: Source
    opened: tuple[Source, Source]
    given: bool
    note: str
    transforms: tuple[str, str]
    bank_transforms: str
    input_shape: tuple[int, ...]
    fields: Fields
    eval_fields: Fields
    augment: Augment
    made: Fields

    @property
    def num_classes(self) -> int | None:
        """How many classes the records to train on have, which all labels must be of; None if they have none."""
        return self.train_source.num_classes or None

    @property
    def batch_size(self) -> int:
        """Rows of a training batch over all devices."""
        return self.section.batch_size

    @property
    def eval_batch_size(self) -> int:
        """Rows of an evaluation batch over all devices."""
        return self.section.eval_batch_size or self.section.batch_size

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the records from others, see `training.parts.identity`; takes seconds for a million files."""
        return data_identity(*self.opened, given=self.given)

    def find_identity(self) -> None:
        """Begin to find `identity`, for a run that compares it with nothing: it is done when the first state is saved,
        and waits for no disk before."""

        def find() -> None:
            with suppress(Exception):  # told when it is asked for
                _ = self.identity

        Thread(target=find, daemon=True).start()

    def train_batches(self, start_step: int, report: Report | None = None) -> Batches:
        """Return an iterator of this host's training batches from `start_step` on, always the same.

        Its `close()` ends the threads or processes that read ahead. `report` is told of records that are skipped.
        """
        section = self.section
        return train_batches(
            self.train_source,
            parse(self.transforms[0]),
            self.batch_size,
            self.seed,
            start_step,
            input_shape=_image_shape(self.fields),
            num_classes=self.num_classes,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=section.num_threads,
            num_workers=section.num_workers,
            prefetch=section.prefetch,
            repeats=section.repeats,
            skip_bad=section.bad_records == "skip",
            max_bad_share=section.max_bad_share,
            report=report,
        )

    def batch_records(self, number: int) -> np.ndarray:
        """Return which records of `train_source` the rows of step `number`, from 1, have over all hosts."""
        return batch_records(self.train_source, number - 1, self.batch_size, self.seed, self.section.repeats)

    def eval_batches(self, *, numbered: bool = False) -> Generator[Batch, None, None]:
        """Yield this host's rows of the evaluation records as masked batches, each record once.

        `numbered` adds the `index` in `eval_source` of each row.
        """
        policy = self.section.eval_bad_records
        return self._once(self.eval_source, self.transforms[1], policy, numbered=numbered)

    def bank_batches(self) -> Generator[Batch, None, None]:
        """Yield this host's rows of the training records under evaluation transforms, numbered, each record once."""
        return self._once(self.opened[0], self.bank_transforms, self.section.bad_records, numbered=True)

    def _once(
        self, source: Source, transforms: str, policy: str, *, numbered: bool
    ) -> Generator[Batch, None, None]:
        batches = eval_batches(
            source,
            parse(transforms),
            self.eval_batch_size,
            input_shape=_image_shape(self.eval_fields),
            num_classes=self.num_classes,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=self.section.num_threads,
            skip_bad=policy == "skip",
            max_bad_share=self.section.max_bad_share,
        )
        rows = self.eval_batch_size // jax.process_count()
        with closing(batches):
            for number, batch in enumerate(batches):
                if numbered:
                    first = number * self.eval_batch_size + jax.process_index() * rows
                    batch = {**batch, "index": np.arange(first, first + rows, dtype=np.int32)}
                yield batch


def make_data(section: Config, seed: int, records: Records, model: Any) -> Data:
    """Return the records of a run with what happens to them; the first ones are read.

    Args:
      section: `data` of the configuration.
      seed: of the run.
      records: opened.
      model: that they are for.

    Raises:
      VitError: transforms, records and model do not go together.
    """
    train_source, eval_source = records.train, records.evaluation
    classes = train_source.num_classes or None
    transforms = transform_specs(section, model, train_source, eval_source)
    _check_colours(*transforms)
    augment: Augment = unchanged
    if section.augment_on == "device":
        transforms, augment = (on_host(transforms[0]), transforms[1]), device_views(transforms[0])
    if section.balanced and "label" not in train_source.fields:
        raise ConfigError(
            f"data.balanced is on, but the training data has {', '.join(train_source.fields)} and no label; turn "
            "it off."
        )

    def look(source: Source, spec: str, name: str, policy: str) -> Fields:
        batch = first_batch(source, parse(spec, name), policy, classes)
        return {
            field: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype)
            for field, rows in batch.items()
            if field not in ("mask", SKIPPED)
        }

    # Whether images have the size that they should is the objective's to say.
    fields = look(train_source, transforms[0], "data.train_transforms", section.bad_records)
    eval_fields = look(eval_source, transforms[1], "data.eval_transforms", section.eval_bad_records)
    return Data(
        section=section,
        seed=seed,
        train_source=balanced(train_source) if section.balanced else train_source,
        eval_source=eval_source,
        opened=records.opened,
        given=records.given,
        note=records.note,
        transforms=transforms,
        bank_transforms=transform_specs(section, model, train_source, train_source)[1],
        input_shape=model.input_shape,
        fields=fields,
        eval_fields=eval_fields,
        augment=augment,
        made=_made(augment, fields),
    )


def _made(augment: Augment, fields: Fields) -> Fields:
    """Return what is left of the fields of a record."""
    batch = {name: jax.ShapeDtypeStruct((1, *field.shape), field.dtype) for name, field in fields.items()}
    made = jax.eval_shape(augment, batch, jax.random.key(0))
    return {name: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype) for name, rows in made.items()}


def _image_shape(fields: Fields) -> tuple[int, ...] | None:
    return fields["image"].shape if "image" in fields else None


def _check_colours(train: str, evaluation: str) -> None:
    """Raise `ConfigError` where channels mean one thing in training and another in evaluation."""
    train_steps, eval_steps = (
        [step.colours for step in parse(spec) if isinstance(step, ImageTransform) and step.colours]
        for spec in (train, evaluation)
    )
    if train_steps != eval_steps:
        said = " and ".join(
            f"data.{name}_transforms are {spec!r}" for name, spec in (("train", train), ("eval", evaluation))
        )
        raise ConfigError(
            f"{said}; put {(train_steps or eval_steps)[0]} into both or into neither, so that channels mean the same."
        )
