"""Mixtures, parts of splits, caches: sources made of sources."""

import numpy as np
import pytest

from vit_jax.data.base import Source
from vit_jax.data.cache import Cached
from vit_jax.data.mixture import BLOCK, Mixture
from vit_jax.data.pipeline import train_batches
from vit_jax.data.section import mixture_parts
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.opening import cached, open_mixture
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, ResourceError


def numbered(count, first=0, classes=("cat", "dog")):
    images = (first + np.arange(count)).astype(np.uint8).reshape(-1, 1, 1, 1)
    return ArraySource(images, np.arange(count) % len(classes), class_names=classes)


A, B = numbered(7), numbered(30, 100, ("bird", "cat", "emu"))


class TestMixture:
    def test_classes_are_told_apart_by_name(self):
        mixture = Mixture([A, B], [1, 1])
        assert mixture.class_names == ("cat", "dog", "bird", "emu")
        assert len(mixture) == 37
        for index in range(37):
            example = mixture[index]
            source, own = (A, index) if index < 7 else (B, index - 7)
            assert example["image"] == source[own]["image"]
            assert mixture.class_names[example["label"]] == source.class_names[source[own]["label"]]
            assert mixture.labels[index] == example["label"]

    @pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 9999), (0.2, 0.5)])
    def test_each_block_has_the_exact_shares(self, weights):
        mixture = Mixture([A, B], weights)
        share = round(BLOCK * weights[0] / sum(weights))
        for seed in (0, 1):
            from_a = mixture.order(np.arange(3 * BLOCK), seed) < len(A)
            assert from_a.reshape(3, BLOCK).sum(axis=1).tolist() == [share] * 3
            if share > 1000:  # and they lie mixed
                tenths = from_a.reshape(-1, BLOCK // 10).mean(axis=1)
                assert np.abs(tenths - share / BLOCK).max() < 0.1

    def test_each_source_is_gone_through_in_epochs(self):
        order = Mixture([A, B], [1, 2]).order(np.arange(5 * BLOCK), 4)
        for low, high in ((0, 7), (7, 37)):
            own = order[(order >= low) & (order < high)]
            # Positions within a block come shuffled, so epochs are whole up to the block.
            counts = np.bincount(own - low, minlength=high - low)
            assert counts.max() - counts.min() <= 1

    def test_the_order_is_a_function_of_position_and_seed(self):
        mixture = Mixture([A, B], [1, 2])
        whole = mixture.order(np.arange(30_000), 1)
        assert np.array_equal(mixture.order(np.arange(9_000, 12_000), 1), whole[9_000:12_000])
        assert not np.array_equal(mixture.order(np.arange(30_000), 2), whole)

    def test_equal_sources_come_in_different_orders(self):
        order = Mixture([B, B], [1, 1]).order(np.arange(BLOCK), 0)
        left, right = order[order < 30], order[order >= 30] - 30
        assert (left[:1000] != right[:1000]).mean() > 0.9

    def test_batches(self):
        batches = train_batches(Mixture([A, B], [1, 3]), parse("flip_lr"), 100, 0, num_threads=0)
        images = np.concatenate([next(batches)["image"].reshape(-1) for _ in range(100)])
        assert (images < 100).sum() == BLOCK // 4

    @pytest.mark.parametrize("weights", [(0, 1), (-1, 2), (1, float("nan")), (1,), (1, 1e9)])
    def test_weights_are_checked(self, weights):
        with pytest.raises(ConfigError, match="weights of a mixture are"):
            Mixture([A, B], weights)

    def test_from_a_configuration(self, tmp_path):
        np.savez(tmp_path / "train.npz", images=np.zeros((4, 8, 8, 1), np.uint8), labels=[0, 1, 0, 1])
        parts = mixture_parts(
            (
                {"source": "digits", "weight": 3},
                {"source": "arrays", "path": str(tmp_path), "split": "train[:50%]"},
            )
        )
        mixture = open_mixture(parts)
        assert len(mixture) == 1437 + 2
        assert mixture.image_shape == (8, 8, 1)
        order = mixture.order(np.arange(BLOCK), 0)
        assert (order < 1437).sum() == 7500

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            ("folder", r"data.mixture\[0\] is 'folder'; it must be a dict"),
            ({"pth": "x"}, "has no key 'pth'; it takes .* Did you mean 'path'"),
            ({"weight": "2"}, "weight is '2'; it must be like 1.0"),
            ({"path": 3}, "path is 3; it must be like ''"),
            ({"source": "imagenet"}, "source is 'imagenet'; it must be one of"),
            ({"weight": 0}, "weight is 0; it must be a positive number"),
            ({"weight": True}, "weight is True"),
        ],
    )
    def test_configurations_are_checked(self, part, said):
        with pytest.raises(ConfigError, match=said):
            mixture_parts((part,))


class Counting(Source):
    """A source that counts how often each record is read."""

    class_names = ("a",)

    def __init__(self, images):
        self.images, self.reads = images, [0] * len(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads[index] += 1
        return {"image": self.images[index], "label": 0, "record": str(index)}


class TestCache:
    @pytest.mark.parametrize("kind", ["encoded", "decoded"])
    def test_records_are_read_once(self, kind):
        source = Counting(list(np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)))
        kept = cached(source, kind, 1)
        expected = [source[index]["image"] for index in range(5)]
        source.reads = [0] * 5
        for _ in range(3):
            for index in range(5):
                image = kept[index]["image"]
                assert image.shape == (4, 4, 1 if kind == "decoded" else 3)
                if kind == "encoded":
                    assert np.array_equal(image, expected[index])
        assert source.reads == [1] * 5

    def test_batches_are_the_same(self):
        source, spec = SyntheticSource(20, (16, 16, 3), 4), parse("decode(1)|random_resized_crop(8)|flip_lr")
        results = []
        for kind in ("none", "encoded", "decoded"):
            batches = train_batches(cached(source, kind, 1), spec, 8, 0, num_threads=0)
            results.append(np.stack([next(batches)["image"] for _ in range(6)]))
        assert np.array_equal(results[0], results[1])
        assert np.array_equal(results[0], results[2])

    def test_orders_pass_through(self):
        mixture = Mixture([A, B], [5, 1])
        positions = np.arange(100)
        assert np.array_equal(Cached(mixture).order(positions, 0), mixture.order(positions, 0))

    def test_sets_that_do_not_fit_are_refused(self, monkeypatch):
        monkeypatch.setattr("vit_jax.data.cache._SHARE", 1e-30)
        with pytest.raises(ResourceError, match=r"set data\.cache='none'"):
            Cached(A)[0]
