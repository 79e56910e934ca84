"""Images and label maps in two folders: `images/a.jpg` and `masks/a.png`."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.class_table import FILES, ClassTable, read_table, table_of
from vit_jax.data.fingerprint import digest, file_sizes
from vit_jax.data.images.decode import read_bytes
from vit_jax.data.images.image_files import image_files, subfolders
from vit_jax.data.images.label_maps import decode_labels
from vit_jax.data.sources.folder import ALL, SPLIT_NAMES, held_out
from vit_jax.errors import DataError, choose, nearest
from vit_jax.paths import expanded, read_file

# Names of the two folders, in any case.
IMAGES = ("images", "jpegimages")
MASKS = ("masks", "annotations", "labels", "segmentationclass")
LISTS = ("", "ImageSets/Segmentation", "splits")  # where files that list the names of a split are looked for
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_MOST_BYTES = 2**30
WITHOUT_IMAGE = "masks without an image"


class MaskSource(Source):
    """Images, each with a label map of its name and size in another folder.

    The folders are `path/images` and `path/masks`, also called as `IMAGES` and `MASKS` say. A split is a folder in both
    (`images/train`, `masks/train`), a folder around both (`train/images`, `train/masks`), or a file of names
    (`train.txt`); where there is none of these, about a tenth is held out as `test`, as `FolderSource` does.

    Args:
      path: the folder.
      split: which part.
      classes: what the numbers in the maps mean: a table, or names in order; None reads `classes.json` or `classes.txt`
        in the folder.

    Raises:
      DataError: folders, split or classes are missing; an image has no mask, or two; a mask is a JPEG.
    """

    fields = ("image", "segmentation")

    def __init__(
        self, path: str | os.PathLike[str], split: str, classes: ClassTable | Sequence[str] | None = None
    ):
        root = expanded(path)
        if not os.path.isdir(root):
            raise DataError(
                f"data.path is {os.fspath(path)!r}, which is not a folder; give one with the folders images and "
                "masks."
            )
        if not isinstance(classes, ClassTable):
            classes = _table_in(root) if classes is None else table_of(classes)
        self._table, self.class_names = classes, classes.names
        self._images, self._masks, chosen = _folders(root, split)
        images, masks = _by_stem(self._images), _by_stem(self._masks)
        stems = _chosen(root, split, sorted(images), chosen)
        for stem in stems:
            self._check_pair(images[stem], masks.get(stem, []), stem)
        self.files = [images[stem][0] for stem in stems]
        self.mask_files = [masks[stem][0] for stem in stems]
        unused = len(masks.keys() - images.keys())
        self.left_out = {WITHOUT_IMAGE: unused} if unused else {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        mask = os.path.join(self._masks, self.mask_files[index])
        image, encoded = read_bytes(self.name_of(index)), read_bytes(mask)
        try:
            segmentation = self._table.numbers(decode_labels(encoded))
        except DataError as error:
            raise DataError(f"{mask}: {error}") from error
        return {"image": image, "segmentation": segmentation, "record": self.name_of(index)}

    def name_of(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self._images, self.files[index])

    def fingerprint(self) -> str:
        """Return a checksum of names and sizes of images and masks, and of the table of classes."""
        names = "\0".join((*self.files, *self.mask_files))
        sizes = (file_sizes(self._images, self.files), file_sizes(self._masks, self.mask_files))
        return digest(names, *sizes, repr((self._table.names, self._table.ids, self._table.ignored)))

    def _check_pair(self, images: list[str], masks: list[str], stem: str) -> None:
        if len(images) > 1:
            raise DataError(
                f"{self._images} has {' and '.join(images)}, two images with the same name; rename one, and its mask."
            )
        image = os.path.join(self._images, images[0])
        if not masks:
            raise DataError(
                f"{image} has no mask: {os.path.join(self._masks, stem)}.png does not exist; add it, or remove "
                "the image."
            )
        if len(masks) > 1:
            raise DataError(f"{image} has two masks in {self._masks}, {' and '.join(masks)}; remove one.")
        if masks[0].lower().endswith(_JPEG):
            raise DataError(
                f"{os.path.join(self._masks, masks[0])} is a JPEG mask, and JPEG changes class ids; save masks as "
                "PNG."
            )


class _Folders(NamedTuple):
    """Where images and masks of a split are, and whether these folders have it alone."""

    images: str
    masks: str
    whole: bool


def mask_splits(path: str | os.PathLike[str]) -> list[str]:
    """Return the splits of a folder as `MaskSource` reads it; none where it is no folder of images and masks.

    It is one where a folder of images and one of masks have files of equal names.

    Raises:
      DataError: it may be one, or a folder of class folders.
    """
    root, known = expanded(path), {name for names in SPLIT_NAMES for name in names}
    pair = _paired(root)
    if pair is None:
        return [
            name for name in subfolders(root) if name.lower() in known and _paired(os.path.join(root, name))
        ]
    inside = [name for name in subfolders(pair[0]) if name.lower() in known]
    if inside:
        return inside
    stems = sorted(_by_stem(pair[0]))
    return [name for name in _lists(root) if name in known] or [
        split for split in ("train", "test") if held_out(stems, split)
    ]


def _paired(folder: str) -> tuple[str, str] | None:
    """Return the folders of images and of masks in a folder, if there are both and it is nothing else.

    Raises:
      DataError: it may be a folder of class folders that are called so.
    """
    # Whatever masks are called, a class may be called too: of class folders nothing is asked that has no images.
    pair = _pair(folder) if _named(folder, IMAGES) else None
    if pair is None or not image_files(pair[1]).files:
        return None
    beside = [
        name
        for name in subfolders(folder)
        if os.path.join(folder, name) not in pair and image_files(os.path.join(folder, name)).files
    ]
    names = " and ".join(map(os.path.basename, pair))
    if beside:
        why = f"and images in {beside[0]} too"
    elif not _by_stem(pair[0]).keys() & _by_stem(pair[1]).keys():
        why = "but no image and mask of one name"
    else:
        return pair
    raise DataError(
        f"{folder} has {names}, {why}, so it may be images with masks or class folders; say --source masks or "
        "--source folder, with --split."
    )


def _table_in(root: str) -> ClassTable:
    for name in FILES:
        if os.path.isfile(os.path.join(root, name)):
            return read_table(os.path.join(root, name))
    raise DataError(
        f"{root} has no table of classes; write {FILES[1]} with one class name per line, or set data.classes."
    )


def _folders(root: str, split: str) -> _Folders:
    pair = _pair(root)
    if pair is None:
        inner = _named(root, _synonyms(split))
        found = None if inner is None else _pair(os.path.join(root, inner))
        if found is None:
            there = ", ".join(subfolders(root)) or "no folders"
            raise DataError(
                f"{root} has {there}; it must have images and masks, or a folder {split!r} that has these."
            )
        return _Folders(*found, whole=True)
    parts = [_named(folder, _synonyms(split)) for folder in pair]
    if parts[0] is not None and parts[1] is not None:
        return _Folders(os.path.join(pair[0], parts[0]), os.path.join(pair[1], parts[1]), whole=True)
    if any(parts):
        has, lacks = pair if parts[0] else pair[::-1]
        raise DataError(f"{has} has a folder of the split {split!r}, but {lacks} has none; add it.")
    return _Folders(*pair, whole=False)


def _pair(folder: str) -> tuple[str, str] | None:
    images, masks = _named(folder, IMAGES), _named(folder, MASKS)
    if images is None or masks is None:
        return None
    return os.path.join(folder, images), os.path.join(folder, masks)


def _named(folder: str, names: Sequence[str]) -> str | None:
    """Return the one folder in a folder that has one of these names, in any case."""
    found = [name for name in subfolders(folder) if name.lower() in names]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(found)}, which mean the same; remove or rename one.")
    return found[0] if found else None


def _synonyms(split: str) -> tuple[str, ...]:
    lower = split.lower()
    return next((names for names in SPLIT_NAMES if lower in names), (lower,))


def _by_stem(folder: str) -> dict[str, list[str]]:
    """Return the images of a folder at every depth by their name without its ending."""
    found: dict[str, list[str]] = {}
    for file in image_files(folder).files:
        found.setdefault(os.path.splitext(file)[0], []).append(file)
    if not found:
        raise DataError(f"{folder} has no images; add some.")
    return found


def _chosen(root: str, split: str, stems: list[str], whole: bool) -> list[str]:
    """Return which of the names are in a split."""
    if whole:
        return stems
    lists = _lists(root)
    if lists and split != ALL:
        path = next((lists[name] for name in (split, *_synonyms(split)) if name in lists), None)
        if path is None:
            raise DataError(
                f"{root} has no list of the split {split!r}; it has {', '.join(lists)}: set data.train_split and "
                f"data.eval_split.{nearest(split, lists)}"
            )
        return _listed(path, set(stems))
    choose(split, ("train", "test", ALL), f"{root} has neither folders nor lists of splits, so the split")
    found = held_out(stems, split)
    if not found:
        raise DataError(
            f"{root} has too few images to hold out any; add images, or write train.txt and test.txt with their "
            "names."
        )
    return found


def _lists(root: str) -> dict[str, str]:
    """Return the files that list names, by their split in lower case."""
    found: dict[str, str] = {}
    for place in LISTS:
        folder = os.path.join(root, place) if place else root
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            stem, ending = os.path.splitext(name.lower())
            if ending == ".txt" and name.lower() not in FILES:
                found.setdefault(stem, os.path.join(folder, name))
    known = {name for names in SPLIT_NAMES for name in names}
    return found if known.intersection(found) else {}


def _listed(path: str, stems: set[str]) -> list[str]:
    """Return the names that a file lists, with or without an ending."""
    try:
        lines = [line.strip() for line in read_file(path, _MOST_BYTES).decode().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, the list of a split, cannot be read: {error}.") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        stem = line if line in stems or not line else os.path.splitext(line)[0]
        if line and stem not in stems:
            raise DataError(f"{path}, line {number}: there is no image {line!r}.{nearest(stem, stems)}")
        if stem in found:
            raise DataError(f"{path} lists {line!r} in lines {found[stem]} and {number}; remove one.")
        if line:
            found[stem] = number
    if not found:
        raise DataError(f"{path} lists no images; write one name per line.")
    return [*found]


def open_section(section: Any, split: str, shape: Any) -> MaskSource:
    """Return what `data.source='masks'` means."""
    return MaskSource(section.path, split, read_table(section.classes) if section.classes else None)
