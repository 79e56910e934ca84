"""Policies: what they draw, against tables of timm and torchvision, and their operations against golden images."""

import collections
import math

import numpy as np
import pytest

from tests.data.transforms import golden
from vit_jax.data.transforms.policies import (
    aug_mix,
    auto_augment,
    geometric,
    operations,
    rand_augment,
    randaug,
)
from vit_jax.data.transforms.policies.aug_mix import AugMix, mix_policy
from vit_jax.data.transforms.policies.auto_augment import AutoAugment, TrivialAugment
from vit_jax.data.transforms.policies.operations import Operation, timm_operations
from vit_jax.data.transforms.policies.rand_augment import RandAugment, rand_policy
from vit_jax.data.transforms.policies.randaug import RandAug
from vit_jax.errors import ConfigError, DataError

DRAWS = {"plus": golden.Fixed(0.1), "minus": golden.Fixed(0.9)}
IMAGE = golden.arrays()["image"]


class Recorder:
    """Tables of operations that only note what would have been done."""

    def __init__(self):
        self.calls: list[tuple[str, object]] = []

    def operation(self, name: str, moves: bool = False) -> Operation:
        def note(image, argument, *options):
            self.calls.append((name, argument, *options))
            return image

        return Operation(note, lambda level, rng: level, geometric.shifted_x if moves else None)

    def table(self, names) -> dict[str, Operation]:
        return {name: self.operation(name) for name in names}

    def counts(self) -> collections.Counter:
        return collections.Counter(call[0] for call in self.calls)


def assert_uniform(counts: collections.Counter, names, total: float):
    """Check that every name was counted about equally often; five standard deviations."""
    expected = total / len(names)
    assert set(counts) == set(names)
    for name in names:
        assert abs(counts[name] - expected) < 5 * math.sqrt(expected), (name, counts[name], expected)


def repeat(transform, times: int, image: np.ndarray = IMAGE[:4, :4]):
    rng = np.random.default_rng(5)
    for _ in range(times):
        transform.image(image, rng)


# Levels and texts, as timm and torchvision read them.


@pytest.mark.parametrize("sign", sorted(DRAWS))
@pytest.mark.parametrize("name", sorted({*golden.tables()["timm"]["arguments"]} - {"gaussian_blur_random"}))
def test_levels_mean_what_they_mean_to_timm(name, sign):
    table = golden.tables()["timm"]
    argument = timm_operations()[name].argument
    ours = [float(argument(level, DRAWS[sign])) for level in table["levels"]]
    assert ours == pytest.approx(table["arguments"][name][sign], abs=1e-12)


def test_random_blur_draws_radii_up_to_twice_the_level():
    argument = timm_operations()["gaussian_blur_random"].argument
    rng = np.random.default_rng(0)
    factors = dict(
        zip(
            golden.tables()["timm"]["levels"],
            golden.tables()["timm"]["arguments"]["gaussian_blur_random"]["plus"],
        )
    )
    for level in (5, 10):
        radii = [argument(level, rng) for _ in range(500)]
        assert 0.1 <= min(radii) < 0.15
        assert 0.97 < max(radii) / (2 * factors[level]) <= 1


@pytest.mark.parametrize("text", sorted(golden.tables()["rand"]))
def test_rand_augment_texts(text):
    expected = golden.tables()["rand"][text]
    policy = rand_policy(text)
    assert list(policy.names) == expected["names"]
    if expected["weights"] is None:
        assert policy.weights is None
    else:
        assert policy.weights == pytest.approx(expected["weights"])
    assert policy._replace(names=(), weights=None) == (
        (),
        None,
        expected["number"],
        expected["probability"],
        expected["magnitude"],
        float(expected["deviation"]),
        expected["most"],
    )


@pytest.mark.parametrize("text", sorted(golden.tables()["mix"]))
def test_aug_mix_texts(text):
    expected = dict(golden.tables()["mix"][text])
    assert list(aug_mix._NAMES) == expected.pop("names")
    assert mix_policy(text)._asdict() == {**expected, "deviation": float(expected["deviation"])}


@pytest.mark.parametrize("name", sorted(golden.tables()["auto"]))
def test_auto_augment_policies(name):
    ours = [[list(step) for step in pair] for pair in auto_augment._POLICIES[name]]
    assert ours == golden.tables()["auto"][name]


@pytest.mark.parametrize(("space", "count"), [("paper", 10), ("wide", 31)])
def test_strengths_of_torchvision(space, count):
    table = {"paper": auto_augment._PAPER, "wide": auto_augment._WIDE}[space]
    for name, expected in golden.tables()[space].items():
        ours = [table[name].argument(level, DRAWS["plus"]) for level in range(count)]
        if name in operations.MIXTURES:
            ours = [factor - 1 for factor in ours]
        if name.startswith("translate"):
            # Of the largest shift; golden values are for images of 331 pixels.
            ours = [share * expected[-1] for share in ours]
            assert expected[-1] == {"paper": 150, "wide": 32}[space]
        assert ours == pytest.approx(expected, abs=2e-5), name


# Golden images.


def allowed(name: str, method: str) -> tuple[int, float]:
    """Return the largest and the mean difference allowed."""
    if name == "gaussian_blur":
        return 12, 1.0  # Small images are mostly frame.
    if name in ("rotate", "shear_x", "shear_y") and method != "nearest":
        return (2, 0.6) if method == "bilinear" else (20, 1.2)
    if name.startswith("translate"):
        return 1, 0.25  # Every fifth value lies on an integer, where Pillow's rounding errors decide.
    exact = (
        "autocontrast",
        "equalize",
        "invert",
        "identity",
        "solarize",
        "posterize",
        "brightness",
        "contrast",
    )
    return (0, 0) if name.startswith(exact) or method == "nearest" else (1, 0.02)


@pytest.mark.parametrize("key", sorted(key for key in golden.arrays() if key.startswith("timm/")))
def test_operations_of_timm(key):
    _, name, level, sign, method = key.split("/")
    interpolation = "bilinear" if method == "any" else method
    ours = timm_operations()[name].apply(IMAGE, float(level), DRAWS[sign], interpolation, (124, 116, 104))
    difference = np.abs(ours.astype(int) - golden.arrays()[key])
    most, mean = allowed(name, method)
    assert difference.max() <= most
    assert difference.mean() <= mean


@pytest.mark.parametrize("key", sorted(key for key in golden.arrays() if key.startswith("wide/")))
def test_operations_of_trivial_augment(key):
    _, name, level, sign = key.split("/")
    # torchvision counts shifts to the right; both are drawn equally often.
    if name.startswith("translate"):
        sign = {"plus": "minus", "minus": "plus"}[sign]
    ours = auto_augment._WIDE[name].apply(IMAGE, int(level), DRAWS[sign], "nearest", 0)
    difference = np.abs(ours.astype(int) - golden.arrays()[key])
    # torchvision's strengths are of single precision, so that mixtures may differ by 1.
    most, mean = (1, 0.02) if name in operations.MIXTURES else (0, 0)
    assert difference.max() <= most
    assert difference.mean() <= mean


# What is drawn.


def test_rand_augment_draws_uniformly_and_applies_half(monkeypatch):
    names = rand_policy("rand-m9-mstd0.5-inc1").names
    recorder = Recorder()
    monkeypatch.setattr(rand_augment, "_OPERATIONS", recorder.table(names))
    repeat(RandAugment("rand-m9-mstd0.5-inc1"), 3000)
    assert_uniform(recorder.counts(), names, 3000)
    levels = np.array([level for _, level in recorder.calls])
    assert abs(levels.mean() - 9) < 0.05
    assert abs(levels.std() - 0.5) < 0.05
    assert levels.max() == 10


@pytest.mark.parametrize(
    ("text", "applied"), [("rand-n3-p1", 3.0), ("rand-n1-p0.2", 0.2), ("rand-p0", 0.0), ("rand-n4", 2.0)]
)
def test_rand_augment_number_and_probability(monkeypatch, text, applied):
    recorder = Recorder()
    monkeypatch.setattr(rand_augment, "_OPERATIONS", recorder.table(rand_policy(text).names))
    repeat(RandAugment(text), 1000)
    assert abs(len(recorder.calls) / 1000 - applied) < 0.1 * (applied not in (0.0, 3.0)) + 1e-9


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("rand-m7", 7, 7), ("rand-m15", 10, 10), ("rand-m15-mmax30", 15, 15), ("rand-m9-mstd101", 0, 9)],
)
def test_rand_augment_levels(monkeypatch, text, low, high):
    recorder = Recorder()
    monkeypatch.setattr(rand_augment, "_OPERATIONS", recorder.table(rand_policy(text).names))
    repeat(RandAugment(text), 600)
    levels = np.array([level for _, level in recorder.calls])
    assert low <= levels.min() <= low + 0.2
    assert high - 0.2 <= levels.max() <= high
    assert abs(levels.mean() - (low + high) / 2) < 0.3


def test_rand_augment_with_weights_draws_without_replacement(monkeypatch):
    policy = rand_policy("rand-n3-p1-tweights")
    recorder = Recorder()
    monkeypatch.setattr(rand_augment, "_OPERATIONS", recorder.table(policy.names))
    repeat(RandAugment("rand-n3-p1-tweights"), 500)
    groups = [tuple(name for name, _ in recorder.calls[i : i + 3]) for i in range(0, 1500, 3)]
    assert all(len(set(group)) == 3 for group in groups)
    assert recorder.counts()["rotate"] > 8 * recorder.counts()["color_increasing"] / 2 > 0
    firsts = collections.Counter(group[0] for group in groups)
    assert abs(firsts["rotate"] / 500 - policy.weights[0]) < 0.1


def test_interpolation_is_drawn_for_each_operation(monkeypatch):
    recorder = Recorder()
    table = {name: recorder.operation(name, moves=True) for name in rand_policy("rand").names}
    monkeypatch.setattr(rand_augment, "_OPERATIONS", table)
    repeat(RandAugment("rand-p1", fill=(1, 2, 3)), 400)
    methods = collections.Counter(call[2] for call in recorder.calls)
    assert_uniform(methods, ["bilinear", "bicubic"], 800)
    assert {call[3] for call in recorder.calls} == {(1, 2, 3)}
    recorder.calls.clear()
    repeat(RandAugment("rand-p1", interpolation="bicubic"), 10)
    assert {call[2] for call in recorder.calls} == {"bicubic"}


def test_auto_augment_draws_pairs_with_their_probabilities(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(auto_augment, "_TIMM", recorder.table(timm_operations()))
    repeat(AutoAugment("original"), 4000)
    expected: collections.Counter = collections.Counter()
    for pair in auto_augment._POLICIES["original"]:
        for name, probability, level in pair:
            expected[name, level] += 4000 / 25 * probability
    counts = collections.Counter(recorder.calls)
    assert set(counts) == {key for key, times in expected.items() if times > 0}
    for key, times in counts.items():
        assert abs(times - expected[key]) < 5 * math.sqrt(expected[key]), key


def test_auto_augment_noise(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(auto_augment, "_TIMM", recorder.table(timm_operations()))
    repeat(AutoAugment("original-mstd0.5"), 200)
    assert all(0 <= level <= 10 for _, level in recorder.calls)
    assert len({level for _, level in recorder.calls}) > 100


def test_trivial_augment_draws_one_operation_and_any_level(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(auto_augment, "_WIDE", recorder.table(auto_augment._WIDE))
    repeat(TrivialAugment(), 4000)
    assert len(recorder.calls) == 4000
    assert_uniform(recorder.counts(), [name for name in auto_augment._WIDE if name != "invert"], 4000)
    assert_uniform(collections.Counter(level for _, level in recorder.calls), range(31), 4000)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_randaug_always_applies_its_number(monkeypatch, number):
    recorder = Recorder()
    table = tuple(recorder.operation(str(i)) for i in range(len(randaug._operations(True))))
    monkeypatch.setattr(randaug, "_operations", lambda as_published: table)
    repeat(RandAug(number, 15), 1600)
    assert len(recorder.calls) == 1600 * number
    assert_uniform(recorder.counts(), [str(i) for i in range(16)], 1600 * number)
    assert {level for _, level in recorder.calls} == {15}


# big_vision's operations; what they should be was worked out by hand.


def applied(index: int, magnitude: float, image: np.ndarray, draw: float = 0.1, as_published: bool = True):
    operation = randaug._operations(as_published)[index]
    return operation.apply(image, magnitude, golden.Fixed(draw), "nearest", 128)


def test_randaug_solarizes_as_published():
    np.testing.assert_array_equal(applied(5, 10, IMAGE), 255 - IMAGE)
    np.testing.assert_array_equal(applied(5, 10, IMAGE, as_published=False), IMAGE)
    expected = np.where(IMAGE < 128, IMAGE, 255 - IMAGE)
    for published in (True, False):
        np.testing.assert_array_equal(applied(5, 5, IMAGE, as_published=published), expected)
    np.testing.assert_array_equal(applied(5, 15, IMAGE), expected)


def test_randaug_contrasts_as_published():
    image = np.full((224, 224, 3), 100, np.uint8)
    assert (applied(7, 5, image) == 100).all()  # Factor 1.
    assert (applied(7, 0, image) == int(196 + 0.1 * (100 - 196))).all()
    assert (applied(7, 0, image, as_published=False) == 100).all()


def test_randaug_moves_in_tensorflows_coordinates():
    h, w = IMAGE.shape[:2]
    y, x = np.mgrid[:h, :w]

    def gathered(rows, columns):
        inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
        moved = IMAGE[np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)]
        return np.where(inside[..., None], moved, 128)

    # The first pixel's centre is the origin, and the nearest pixel is taken; 0.27 never lies between two.
    np.testing.assert_array_equal(applied(10, 9, IMAGE), gathered(y, np.rint(x + 0.27 * y).astype(int)))
    np.testing.assert_array_equal(applied(11, 9, IMAGE), gathered(np.rint(y + 0.27 * x).astype(int), x))
    np.testing.assert_array_equal(applied(12, 2, IMAGE), gathered(y, x + 20))
    np.testing.assert_array_equal(applied(13, 2, IMAGE, draw=0.9), gathered(y - 20, x))


def test_randaug_cuts_out_a_square_about_a_pixel():
    cut = applied(14, 2, IMAGE, draw=0.5)
    expected = IMAGE.copy()
    expected[16 - 8 : 16 + 8, 20 - 8 : 20 + 8] = 128
    np.testing.assert_array_equal(cut, expected)
    corner = applied(14, 2, IMAGE, draw=0.0)
    expected = IMAGE.copy()
    expected[:8, :8] = 128
    np.testing.assert_array_equal(corner, expected)


# All of them.


TRANSFORMS = [
    RandAugment(),
    RandAugment("rand-m15-n4-p1-mmax20-inc1", "nearest"),
    RandAugment("rand-p1-t3aw", "bicubic"),
    RandAug(3, 20),
    RandAug(as_published=False),
    AutoAugment("v0r-mstd1"),
    AutoAugment("cifar10"),
    AutoAugment("svhn", "bilinear", 0),
    AutoAugment("3a"),
    TrivialAugment(),
    AugMix(),
    AugMix("augmix-m8-w2-d1-a0.5-mstd0.3"),
]


@pytest.mark.parametrize("name", ["photograph", "grey", "mirrored", "flat"])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_kind_is_kept_and_generators_decide(transform, name):
    image = golden.images()[name]
    before = image.copy()
    results = [transform.image(image, np.random.default_rng(seed)) for seed in range(12)]
    for seed, result in enumerate(results):
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, transform.image(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)
    if name == "photograph":
        assert len({result.tobytes() for result in results}) > 3


@pytest.mark.parametrize(("text", "least", "most"), [("augmix-w4-d2", 8, 8), ("augmix-w3", 3, 9)])
def test_aug_mix_of_what_changes_nothing(monkeypatch, text, least, most):
    recorder = Recorder()
    monkeypatch.setattr(aug_mix, "_OPERATIONS", recorder.table(aug_mix._NAMES))
    lengths = set()
    for seed in range(40):
        recorder.calls.clear()
        mixed = AugMix(text).image(IMAGE, np.random.default_rng(seed))
        lengths.add(len(recorder.calls))
        # Weights add up to 1; the fraction is cut off twice.
        assert np.abs(mixed.astype(int) - IMAGE).max() <= 1
    assert min(lengths) >= least
    assert max(lengths) <= most
    assert len(lengths) == 1 if least == most else len(lengths) > 3


@pytest.mark.parametrize("transform", [*TRANSFORMS, RandAugment(fill=(1, 2, 3))], ids=str)
def test_images_that_cannot_be_augmented(transform):
    rng = np.random.default_rng(0)
    bad = [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)]
    if getattr(transform, "fill", 0) == (1, 2, 3):
        bad.append(np.zeros((4, 4, 1), np.uint8))
    for image in bad:
        with pytest.raises(DataError, match="channels"):
            transform.image(image, rng)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: RandAugment("rand-x9"),
            "the unknown option 'x9'; the options are m, n, p, mstd, mmax, inc, t",
        ),
        (lambda: RandAugment("rand-w0"), "the unknown option 'w0'"),
        (lambda: RandAugment("rand-t0"), "has the option 't0'; t takes one of weights, 3a, 3aw"),
        (lambda: RandAugment("rand-m9.5"), "has the option 'm9.5'; m takes an integer of at least 0"),
        (lambda: RandAugment("rand-p1.5"), "has the option 'p1.5'; p takes a number from 0 to 1"),
        (lambda: RandAugment("rand-n0"), "n takes an integer of at least 1"),
        (lambda: RandAugment("rand-inc2"), "inc takes an integer from 0 to 1"),
        (lambda: RandAugment("rand-mstdx"), "mstd takes a number of at least 0"),
        (lambda: RandAugment("rand-m9-m8"), "has the option 'm' twice"),
        (lambda: RandAugment("rand--m9"), "the unknown option ''"),
        (lambda: RandAugment("m9"), "it must begin with 'rand'"),
        (lambda: RandAugment("rand-n4-t3aw-n5"), "has the option 'n' twice"),
        (lambda: RandAugment("rand-n16-tweights"), "draws 16 of 15 operations without replacement"),
        (lambda: RandAugment(9), "rand_augment: the policy is 9; it must be a string"),
        (lambda: RandAugment(interpolation="lanczos"), "rand_augment: interpolation is 'lanczos'"),
        (lambda: RandAugment(fill=300), "rand_augment: fill is 300; it must be an integer from 0 to 255"),
        (lambda: RandAugment(fill=(1, 2)), "rand_augment: fill is (1, 2)"),
        (lambda: AutoAugment("v1"), "auto_augment: the policy is 'v1'; it must be one of v0, v0r, original"),
        (lambda: AutoAugment("original-m9"), "the unknown option 'm9'; the options are mstd"),
        (lambda: AutoAugment(["v0"]), "auto_augment: the policy is ['v0']; it must be a string"),
        (lambda: TrivialAugment("cubic"), "trivial_augment: interpolation is 'cubic'"),
        (lambda: AugMix("augmix-k1"), "the unknown option 'k1'; the options are m, w, d, a, mstd"),
        (lambda: AugMix("augmix-a0"), "has alpha 0; it must be above 0"),
        (lambda: AugMix("mix"), "it must begin with 'augmix'"),
        (lambda: RandAug(0), "randaug: number is 0; it must be an integer of at least 1"),
        (lambda: RandAug(2, 31), "randaug: magnitude is 31; it must be from 0 to 30"),
        (lambda: RandAug(2, 10, "yes"), "randaug: as_published is 'yes'; it must be True or False"),
    ],
)
def test_what_is_said_of_mistakes(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
