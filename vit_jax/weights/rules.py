"""How arrays of other libraries correspond to parameters of ours, said once and used both ways."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.weights.target import Target

Shape = tuple[int, ...]
Read = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Form:
    """How one array of theirs holds what we store in another shape.

    Attributes:
      read: `read(theirs, our shape) -> ours`.
      write: `write(ours) -> theirs`.
    """

    read: Callable[[np.ndarray, Shape], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


def _same(array: np.ndarray, shape: Shape) -> np.ndarray:
    """Axes of size 1 may differ: parameters are stored as (1, 1, d), group norms as (1, 1, 1, c)."""
    if [size for size in array.shape if size != 1] != [size for size in shape if size != 1]:
        raise ValueError(shape)
    return array.reshape(shape)


def _flat(array: np.ndarray, shape: Shape) -> np.ndarray:
    return _same(array, (math.prod(shape),)).reshape(shape)


SAME = Form(_same, lambda array: array)
FLAT = Form(_flat, lambda array: array.reshape(-1))
ROW = Form(_same, lambda array: array[None])  # (1, ...): a batch axis of parameters
ONE = Form(_same, lambda array: array.reshape(1))  # a number as an array of one
# torch's kernel of a convolution, (o, i, p, q), of ours (p, q, i, o).
CONV = Form(lambda array, _: array.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1))

# torch's kernel of a 1x1 convolution, (o, i, 1, 1), of ours of a dense layer, (i, o).
POINT = Form(lambda array, _: array[:, :, 0, 0].T, lambda array: array.T[..., None, None])

# torch's kernel of a transposed convolution, (i, o, p, q), of ours (i, p, q, o).
TRANSPOSED = Form(lambda array, _: array.transpose(0, 2, 3, 1), lambda array: array.transpose(0, 3, 1, 2))

# torch's kernel of a convolution of each channel by itself, (d, 1, *sizes), of ours (*sizes, d).
DEPTHWISE = Form(
    lambda array, _: np.moveaxis(array[:, 0], 0, -1), lambda array: np.moveaxis(array, -1, 0)[:, None]
)


def matrix(inputs: int = 1) -> Form:
    """Return the form of torch's dense weight, (outputs, inputs), for a kernel whose first axes are inputs."""

    def read(array: np.ndarray, shape: Shape) -> np.ndarray:
        return _same(array, (math.prod(shape[inputs:]), math.prod(shape[:inputs]))).T.reshape(shape)

    def write(array: np.ndarray) -> np.ndarray:
        return array.reshape(math.prod(array.shape[:inputs]), -1).T

    return Form(read, write)


def plain_matrix(inputs: int = 1) -> Form:
    """Return the form of a matrix (inputs, outputs), not transposed, for a kernel whose first axes are inputs."""

    def write(array: np.ndarray) -> np.ndarray:
        return array.reshape(math.prod(array.shape[:inputs]), -1)

    return Form(lambda array, shape: _same(array, write(np.empty(shape, bool)).shape).reshape(shape), write)


def grid(size: tuple[int, int]) -> Form:
    """Return the form of positions stored as a map, (1, h, w, d), of ours (h w, d)."""
    return Form(
        lambda array, shape: _same(array, (*size, shape[-1])).reshape(shape),
        lambda array: array.reshape(1, *size, -1),
    )


def map_first(size: tuple[int, int]) -> Form:
    """Return the form of positions stored as torch's map, (1, d, h, w), of ours (h w, d)."""
    return Form(
        lambda array, shape: _same(array, (shape[-1], *size)).reshape(shape[-1], -1).T,
        lambda array: array.T.reshape(1, -1, *size),
    )


MATRIX = matrix()


def pixel_shuffle(patch: tuple[int, int], channels: int, convolution: bool = True) -> Form:
    """Return the form of a 1x1 convolution, (c p q, d, 1, 1), before torch's PixelShuffle, for a head (d, p q c).

    Its bias has this form too. A dense layer, (c p q, d), is no `convolution`.
    """

    def read(array: np.ndarray, shape: Shape) -> np.ndarray:
        split = array.reshape(channels, *patch, *array.shape[1:2])
        return np.moveaxis(split, 0, 2).reshape(-1, *array.shape[1:2]).T.reshape(shape)

    def write(array: np.ndarray) -> np.ndarray:
        split = np.moveaxis(array.T.reshape(*patch, channels, *array.shape[:-1]), 2, 0)
        rows = split.reshape(-1, *array.shape[:-1])
        return rows[..., None, None] if convolution and array.ndim > 1 else rows

    return Form(read, write)


@dataclass(frozen=True)
class Rule:
    """Parameters of ours and the arrays of theirs that hold them.

    Attributes:
      ours: path; several are joined along `axis`, those that lack the axis counting as one row.
      theirs: names; several are stacked along `axis`. In the paths of blocks, `{l}` counts blocks; a name without it
        is an array of all blocks.
      form: how each of theirs holds its part.
      axis: where parts are stacked, counted in one block's parameter.
      first: the number that the first block has in their names.
      blocks_axis: of an array of all blocks, the axis of these.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    form: Form = SAME
    axis: int = 0
    first: int = 0
    blocks_axis: int = 0

    def prefixed(self, ours: str = "", theirs: str = "") -> "Rule":
        """Return the rule for a model inside another."""
        return replace(
            self, ours=tuple(ours + path for path in self.ours), theirs=tuple(theirs + t for t in self.theirs)
        )

    @property
    def in_blocks(self) -> bool:
        """Whether this is about parameters of stacked blocks."""
        return "blocks/" in self.ours[0]

    def names(self, depth: int) -> Iterator[str]:
        """Yield the names of their arrays; `depth` is the number of blocks."""
        for layer in range(depth) if self.in_blocks and self.per_layer else (0,):
            yield from (name.format(l=self.first + layer) for name in self.theirs)

    @property
    def per_layer(self) -> bool:
        """Whether their arrays are of one block each."""
        return "{l}" in self.theirs[0]

    def read(self, path: str, shapes: Mapping[str, Shape], read: Read, target: Target) -> None:
        """Fill `target` with the parameter `path`, reading few of their arrays at a time.

        Args:
          path: one of `ours`.
          shapes: the shape of each of `ours`.
          read: reads one of their arrays by name.
          target: where the parameter goes; of float32, in the parameter's shape.

        Raises:
          CheckpointError: an array does not have the size it must have.
        """
        if not self.in_blocks:
            with target.part() as out:
                self._fill(path, shapes, read, out)
        elif self.per_layer:

            def fill(layer: int) -> None:
                own = replace(self, theirs=tuple(name.format(l=self.first + layer) for name in self.theirs))
                with target.part(layer) as out:
                    own._fill(path, shapes, read, out)

            # Reading waits for the disk and transposing for memory, so blocks are read side by side.
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(fill, range(shapes[path][0])))
        else:
            whole = {name: read(name) for name in self.theirs}
            for layer in range(shapes[path][0]):
                with target.part(layer) as out:
                    self._fill(
                        path, shapes, lambda name, layer=layer: whole[name].take(layer, self.blocks_axis), out
                    )

    def _fill(self, path: str, shapes: Mapping[str, Shape], read: Read, out: np.ndarray) -> None:
        parts = {ours: shapes[ours][1:] if self.in_blocks else shapes[ours] for ours in self.ours}
        joined = self._joined_shape(list(parts.values()))
        part = joined if len(self.theirs) == 1 else joined[: self.axis] + joined[self.axis + 1 :]
        counts = {
            ours: shape[self.axis] if len(shape) == len(joined) and joined else 1
            for ours, shape in parts.items()
        }
        start = sum(list(counts.values())[: self.ours.index(path)])
        rows = counts[path]
        if len(self.theirs) == 1:
            whole = self._one(self.theirs[0], read, part)
            if len(self.ours) > 1:
                whole = np.take(whole, range(start, start + rows), self.axis)
            _copy(whole.reshape(out.shape), out)
            return
        target = np.moveaxis(out, self.axis, 0) if out.ndim == len(joined) else out[None]
        for row in range(rows):
            _copy(self._one(self.theirs[start + row], read, part), target[row])

    def _one(self, name: str, read: Read, shape: Shape) -> np.ndarray:
        array = read(name)
        try:
            part = self.form.read(array, shape)
        except ValueError:
            part = None
        if part is None or part.shape != shape:
            raise CheckpointError(
                f"{name} has shape {array.shape}, which does not fit {' + '.join(self.ours)} of {shape}; the "
                "checkpoint is of a different model or size."
            ) from None
        return part

    def _joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(shapes) == 1:
            return shapes[0]
        longest = max(shapes, key=len)
        rows = sum(shape[self.axis] if len(shape) == len(longest) else 1 for shape in shapes)
        return (*longest[: self.axis], rows, *longest[self.axis + 1 :])

    def write(self, params: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        """Yield the names of their arrays and what makes each.

        Args:
          params: our parameters by path.
        """
        arrays = [params[path] for path in self.ours]
        if not self.in_blocks:
            yield from self._parts(arrays)
        elif self.per_layer:
            for layer in range(len(arrays[0])):
                for name, make in self._parts([array[layer] for array in arrays]):
                    yield name.format(l=self.first + layer), make
        else:
            for index, name in enumerate(self.theirs):

                def stacked(index: int = index) -> np.ndarray:
                    rows = range(len(arrays[0]))
                    parts = [self._part([a[layer] for a in arrays], index) for layer in rows]
                    return np.stack(parts, self.blocks_axis)

                yield name, stacked

    def _parts(self, arrays: list[np.ndarray]) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        for index, name in enumerate(self.theirs):
            yield name, lambda index=index: self._part(arrays, index)

    def _part(self, arrays: list[np.ndarray], index: int) -> np.ndarray:
        joined = arrays[0]
        if len(arrays) > 1:
            longest = max(array.ndim for array in arrays)
            rows = [a if a.ndim == longest else np.expand_dims(a, self.axis) for a in arrays]
            joined = np.concatenate(rows, self.axis)
        if len(self.theirs) > 1:
            joined = np.take(joined, index, self.axis)
        return self.form.write(joined)


@dataclass(frozen=True)
class Joined(Rule):
    """Parameters of ours that one array of theirs holds one after the other along `axis`, each in its own form.

    Attributes:
      forms: of each of `ours`.
    """

    forms: tuple[Form, ...] = ()

    def _fill(self, path: str, shapes: Mapping[str, Shape], read: Read, out: np.ndarray) -> None:
        parts = [shapes[ours][1:] if self.in_blocks else shapes[ours] for ours in self.ours]
        sizes = [form.write(np.empty(part, bool)).shape[self.axis] for form, part in zip(self.forms, parts)]
        index, (name,) = self.ours.index(path), self.theirs
        array, start = read(name), sum(sizes[:index])
        if array.shape[self.axis] != sum(sizes):
            raise CheckpointError(
                f"{name} has shape {array.shape}, which does not fit {' + '.join(self.ours)}; the checkpoint is of a "
                "different model or size."
            )
        piece = array.take(range(start, start + sizes[index]), self.axis)
        one = replace(self, ours=(path,), theirs=self.theirs, form=self.forms[index], forms=())
        _copy(Rule._one(one, name, lambda _: piece, parts[index]).reshape(out.shape), out)

    def _part(self, arrays: list[np.ndarray], index: int) -> np.ndarray:
        return np.concatenate([form.write(array) for form, array in zip(self.forms, arrays)], self.axis)


def _copy(array: np.ndarray, out: np.ndarray) -> None:
    """Copy an array; OpenCV's transposition of torch's kernels is several times as fast as numpy's."""
    for axes in range(1, array.ndim):
        turned = np.moveaxis(array, range(axes), range(-axes, 0))
        if turned.flags.c_contiguous and out.flags.c_contiguous and array.dtype == out.dtype == np.float32:
            rows = math.prod(array.shape[:axes])
            cv2.transpose(turned.reshape(-1, rows), out.reshape(rows, -1))
            return
    out[...] = array


def rule(ours: str, *theirs: str, form: Form = SAME, axis: int = 0) -> Rule:
    """Return a rule about one parameter of ours."""
    return Rule((ours,), theirs, form, axis)


def affine(
    ours: str, theirs: str, form: Form = MATRIX, bias: bool = True, names: str = "weight bias"
) -> list[Rule]:
    """Return the rules of a dense layer: `OURS/kernel` is `THEIRS.weight`, `OURS/bias` is `THEIRS.bias`."""
    weight, offset = names.split()
    rules = [rule(f"{ours}/kernel", f"{theirs}.{weight}", form=form)]
    return rules + [rule(f"{ours}/bias", f"{theirs}.{offset}", form=FLAT)] * bias


def norm(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    """Return the rules of a norm: `OURS/scale` is `THEIRS.weight`, `OURS/bias` is `THEIRS.bias` if it has one."""
    rules = [rule(f"{ours}/scale", f"{theirs}.weight")]
    return rules + [rule(f"{ours}/bias", f"{theirs}.bias")] * bias


def batch_counts(rules: Sequence[Rule], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return how many batches torch's batch norms have seen, which nothing is computed from: 0 for each, by name.

    Args:
      rules: of all arrays.
      params: what they are about, by path.
    """
    averaged = [
        name.removesuffix("running_mean")
        for rule in rules
        if rule.theirs[0].endswith("running_mean")
        for name in rule.names(len(params[rule.ours[0]]))
    ]
    return {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in averaged}


def batch_norm(ours: str, theirs: str) -> list[Rule]:
    """Return the rules of a batch norm, and of its statistics."""
    statistics = {"mean": "running_mean", "variance": "running_var"}
    return norm(ours, theirs) + [rule(f"{ours}/{a}", f"{theirs}.{b}") for a, b in statistics.items()]
