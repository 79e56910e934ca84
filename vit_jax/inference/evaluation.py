"""One evaluation of a model: its metrics, the report on them, and what it says of every record."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.evaluation.finite import finite
from vit_jax.evaluation.reports import Report, counts_of
from vit_jax.inference.tables import open_table
from vit_jax.models.storage import stored
from vit_jax.paths import expanded
from vit_jax.processes import is_main
from vit_jax.training.devices.compilation import kept_programs
from vit_jax.training.experiment import Experiment
from vit_jax.weights.formats.tensors import replacing


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      metrics: means over all records that could be read.
      split: of the data; None of records that were given.
      records: how many the split has.
      skipped: how many of them could not be read; None where it was not counted.
      report: what there is to say beside the metrics, see `evaluation.reports`; None where there is nothing.
      step: of a run's checkpoint.
    """

    metrics: dict[str, float]
    split: str | None
    records: int
    skipped: int | None = None
    report: Report | None = None
    step: int | None = None

    @property
    def origin(self) -> str:
        """What was evaluated, in words."""
        counted = self.records - (self.skipped or 0)
        skipped = f" ({self.skipped:,} more could not be read)" if self.skipped else ""
        records = "record" if counted == 1 else "records"
        which = (
            f"{counted:,} given {records}"
            if self.split is None
            else f"{counted:,} {records} of split {self.split!r}"
        )
        return which + skipped

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, the metrics first and by their names."""
        found: dict[str, Any] = {} if self.step is None else {"step": self.step}
        found |= self.metrics | {"split": self.split, "records": self.records, "skipped": self.skipped}
        return finite(found) | ({} if self.report is None else {"report": self.report.to_json()})


def run_evaluation(
    experiment: Experiment,
    params: Any,
    buffers: Any,
    *,
    storage: str = "float32",
    workdir: Path = Path(),
    step: int | None = None,
    split: str | None,
    output: str | Path | None = None,
    figure: str | Path | None = None,
) -> Evaluation:
    """Evaluate a model on the evaluation records of an experiment, each once.

    Args:
      experiment: see `training.experiment`.
      params, buffers: of the model.
      storage: how parameters are stored, see `models.storage`.
      workdir: where compiled programs are kept, if the configuration says so.
      step: of the checkpoint.
      split: of the data; None of records that were given.
      output: a table that gets the prediction of every record, see `tables`.
      figure: a PNG that gets the report, see `evaluation.report_figure`.

    Raises:
      ConfigError: there are no predictions to write.
      ResourceError: a file cannot be written.
    """
    objective, count = experiment.task.objective, len(experiment.data.eval_source)
    counts = counts_of(objective.output)
    _check_files(experiment, output, figure, drawn=counts is not None)
    compiled = compile_evaluation(
        objective,
        experiment.devices.replicated,
        options=experiment.devices.evaluation_options,
        end=experiment.end,
        rows=counts is not None or output is not None,
    )
    model = compiled, stored(params, storage), buffers
    with kept_programs(experiment.config.compilation.cache, workdir):
        if counts is None and output is None:
            metrics = evaluate(*model, experiment.eval_batches(numbered=compiled.rows))
            return Evaluation(metrics, split, count, step=step)
        seen = 0
        with _predictions(experiment, output) as write:

            def see(rows: dict[str, np.ndarray]) -> None:
                nonlocal seen
                seen += len(rows["index"])
                if counts is not None:
                    counts.add(rows)
                write(rows)

            metrics = evaluate(*model, experiment.eval_batches(numbered=True), see)
    report = None if counts is None else counts.report()
    found = Evaluation(metrics, split, count, count - seen, report, step)
    if figure is not None and report is not None and is_main():
        with replacing(Path(expanded(figure))) as temporary:
            report.draw(temporary, of=found.origin)
    return found


def _check_files(experiment: Experiment, output: Any, figure: Any, *, drawn: bool) -> None:
    """Raise `ConfigError` for files that would have nothing to hold."""
    name = experiment.config.objective.name
    if output is not None and experiment.task.objective.output is None:
        raise ConfigError(
            f"--output is {str(output)!r}, but objective {name!r} makes no predictions for images; leave it out."
        )
    if figure is not None and not drawn:
        raise ConfigError(
            f"--figure is {str(figure)!r}, but objective {name!r} has no figure of its metrics; leave it out."
        )


@contextmanager
def _predictions(experiment: Experiment, path: str | Path | None) -> Iterator[Any]:
    """Give what writes rows to a table, on the process that writes."""
    if path is None or not is_main():
        yield lambda rows: None
        return
    output, source = experiment.task.objective.output, experiment.data.eval_source
    assert output is not None  # else refused by _check_files
    with open_table(path, {"record": str, **output.evaluated_columns}) as table:

        def write(rows: dict[str, np.ndarray]) -> None:
            for place, index in enumerate(rows["index"].tolist()):
                said = output.evaluated({name: values[place] for name, values in rows.items()})
                table.write({"record": source.name_of(index), **said})

        yield write
