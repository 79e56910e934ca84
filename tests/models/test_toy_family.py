"""A family that the library does not know, in one file, and all that it does without a line elsewhere.

It has two stages, a batch norm, a level of stride 4 and one of stride 8, names, arithmetic and layer numbers; and a
made-up library writes its checkpoints. `docs/extend.md` is written along this file.
"""

import json
from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests.tiny import randomised
from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.evaluating import evaluate_workdir
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models import families
from vit_jax.models.adaptation import Adaptation
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.family import Family, Kernel, Level, Names
from vit_jax.models.flops import forward_macs, parameter_count, training_flops
from vit_jax.models.functional import buffers_of, parameters
from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.lora import Lora
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.layers.placement import gather_block, keep_rows
from vit_jax.models.preprocessing import INCEPTION, Preprocessing, as_preprocessing
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.registry import model_functions
from vit_jax.planning.plan import planned_experiment
from vit_jax.planning.program import compile_program
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.guard.memory import state_bytes
from vit_jax.training.parts.treatments import treatments
from vit_jax.training.report.callbacks import Callback
from vit_jax.weights.layouts import table
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.rules import CONV, affine, norm, rule

# ---- the configuration


@dataclass(frozen=True)
class ToyConfig:
    """Patches of 4 pixels, blocks, patches of 8 pixels, blocks, the mean, a head."""

    image_size: tuple[int, int] = (8, 8)
    in_channels: int = 1
    num_classes: int = 10
    problem: str = "single_label"
    width: int = 16
    depths: tuple[int, int] = (2, 1)
    preprocessing: Preprocessing = INCEPTION
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        if any(side % 8 for side in self.image_size):
            raise ConfigError(f"image_size is {self.image_size}; it must be a multiple of 8.")

    @property
    def input_shape(self):
        return *self.image_size, self.in_channels

    @property
    def output_width(self):
        return self.num_classes or 2 * self.width


def levels(config):
    (h, w), d = config.image_size, config.width
    return Level("fine", (4, 4), d, (h // 4, w // 4)), Level("coarse", (8, 8), 2 * d, (h // 8, w // 8))


# ---- the module


class Mixer(Module):
    def __init__(self, width, *, rngs):
        self.fc1 = Dense((width,), (2 * width,), scheme="jax", rngs=rngs)
        self.fc2 = Dense((2 * width,), (width,), scheme="jax", rngs=rngs)

    def __call__(self, x):
        return self.fc2(jax.nn.gelu(self.fc1(x)))


class Block(Module):
    def __init__(self, width, *, rngs):
        self.mixer = Mixer(width, rngs=rngs)


class Stage(Module):
    """Equal blocks, stored stacked."""

    def __init__(self, width, depth, *, rngs):
        keys = jax.random.split(rngs.params(), depth)
        self.blocks, self.depth = jax.vmap(lambda key: Block(width, rngs=nnx.Rngs(key)))(keys), depth

    def __call__(self, x):
        def body(x, block):
            block = gather_block(block, self.depth, x.dtype)
            return x + block.mixer(keep_rows(x)), None

        return jax.lax.scan(body, x, self.blocks)[0]


class Patches(Module):
    """A convolution without overlap."""

    def __init__(self, side, channels, width, *, rngs):
        self.side = side
        shape = (side, side, channels, width)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))

    def __call__(self, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel, strides = self.kernel[...].astype(x.dtype), (self.side, self.side)
        return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=numbers)


class Toy(Backbone):
    def __init__(self, config, *, rngs):
        self.config, d = config, config.width
        self.stem, self.norm = Patches(4, config.in_channels, d, rngs=rngs), BatchNorm(d)
        self.merge = Patches(2, d, 2 * d, rngs=rngs)
        widths = zip((d, 2 * d), config.depths)
        self.stages = nnx.List([Stage(width, depth, rngs=rngs) for width, depth in widths])
        classes = config.num_classes
        self.head = Dense((2 * d,), (classes,), scheme="zeros", rngs=rngs) if classes else None

    def __call__(self, images, key=None, capture=()):
        x = self.norm(self.stem(images.astype(self.config.dtype)), training=key is not None)
        fine = self.stages[0](x)
        coarse = self.stages[1](self.merge(fine))
        out = coarse.astype(jnp.float32).mean((1, 2))
        out = out if self.head is None else self.head(out)
        return (out, {"fine": fine, "coarse": coarse}) if capture else out


# ---- the family


def _blocks(config):
    """Width, depth and places of each stage."""
    (first, second), (fine, coarse) = config.depths, levels(config)
    return (config.width, first, np.prod(fine.grid)), (2 * config.width, second, np.prod(coarse.grid))


def macs(config, visible=1.0):
    (d, _, fine), (e, _, coarse) = _blocks(config)
    patches = fine * 16 * config.in_channels * d + coarse * 4 * d * e
    blocks = sum(depth * places * 4 * width**2 for width, depth, places in _blocks(config))
    return int(patches + blocks + e * config.num_classes)


def parameter_number(config):
    d, c = config.width, config.num_classes
    blocks = sum(depth * (4 * width**2 + 3 * width) for width, depth, _ in _blocks(config))
    return 16 * config.in_channels * d + 2 * d + 8 * d * d + blocks + (2 * d + 1) * c


def layer_of(config, path, rule):
    first, second = config.depths
    if path.startswith("stages/"):
        return range(1, first + 1) if path.startswith("stages/0") else range(first + 1, first + second + 1)
    return {"stem": 0, "norm": 0, "merge": first, "head": first + second + 1}[path.split("/")[0]]


def resolve(name):
    sizes = {"toy_tiny": ToyConfig(), "toy_small": ToyConfig(width=32)}
    return (name, sizes[name]) if name in sizes else None


class ToyAdaptation(Adaptation):
    fixed = ("width", "depths")

    def first_kernel(self, config):
        return "stem/kernel"


ADAPTATION = ToyAdaptation()
FAMILY = Family(
    name="toy",
    config=ToyConfig,
    module=f"{__name__}:Toy",
    macs=macs,
    parameters=parameter_number,
    parts={"image": ""},
    names=Names(resolve, architectures=lambda: ["toy_tiny", "toy_small"], aliases=lambda: ["Toy-T"]),
    levels=levels,
    depth=lambda config: sum(config.depths),
    layer_of=layer_of,
    widest=lambda config: 4 * config.width,
    headless=lambda config: replace(config, num_classes=0),
    captures=("fine", "coarse"),
    traced=("fine", "coarse"),
    rules=((r"(^|/)merge/kernel$", "fsdp"), (r"(^|/)stem/kernel$", "replicate")),
    kernels={f"mixer/{layer}": Kernel((f"mixer/{layer}",)) for layer in ("fc1", "fc2")},
    adaptation=f"{__name__}:ADAPTATION",
)

# ---- a made-up library


def rules(config):
    found = [rule("stem/kernel", "first.weight", form=CONV), rule("merge/kernel", "merge.weight", form=CONV)]
    found += [
        *norm("norm", "bn"),
        rule("norm/mean", "bn.running_mean"),
        rule("norm/variance", "bn.running_var"),
    ]
    for stage in (0, 1):
        for layer in ("fc1", "fc2"):
            found += affine(f"stages/{stage}/blocks/mixer/{layer}", f"stages.{stage}.{{l}}.{layer}")
    return found + (affine("head", "classes") if config.num_classes else [])


def claims(raw):
    return {"first.weight", "merge.weight"} <= raw.tensors.keys()


def read(raw, model):
    check_model(raw, model, "a toy", "toy")
    width, channels, _, _ = raw.tensors["first.weight"].shape
    depths = tuple(sum(f"stages.{s}.{i}.fc1.weight" in raw.tensors for i in range(9)) for s in (0, 1))
    classes = raw.tensors["classes.bias"].shape[0] if "classes.bias" in raw.tensors else 0
    said = raw.documents["config.json"]
    config = ToyConfig(num_classes=classes, in_channels=channels, width=width, depths=depths, **said)
    return raw, Layout(model or config, rules(config))


def write(config, params, class_names):
    said = {"image_size": list(config.image_size), "preprocessing": asdict(config.preprocessing)}
    return Written(config, params, rules(config), {"config.json": said})


@pytest.fixture(scope="module", autouse=True)
def known():
    """The family and the library are known to the tests of this file alone."""
    families.register(FAMILY)
    table.register_reading("toy_library", Reading("the toy library", claims, read))
    table.register_writing("hf", "toy", write)
    yield
    del families.FAMILIES["toy"], table.READINGS["toy_library"], table.WRITINGS["hf", "toy"]


# ---- what it does


def configuration(**changes):
    config = default_config()
    config.duration = "4 steps"
    config.model = {"name": "toy_tiny"}
    config.data.update(batch_size=64, eval_batch_size=360)
    config.optimizer.update(learning_rate=1e-2, layer_decay=0.5)
    config.mesh.fsdp = 2
    config.sharding.min_size = 0
    config.evaluation.update(every="4 steps", illustrate=2)
    config.checkpoint.every = "2 steps"
    config.log.update(every="1 step", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


class Stop(Exception):
    pass


class Stopping(Callback):
    def on_step(self, step, metrics):
        if step == 2:
            raise Stop


@pytest.fixture(scope="module")
def run(compile_cache, known, tmp_path_factory):
    """A workdir and what it ended with."""
    folder = tmp_path_factory.mktemp("toy")
    return folder, vit_jax.train(configuration(), folder)


def assert_same(ours, theirs):
    ours, theirs = trees.flatten(ours), trees.flatten(theirs)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(theirs[path]), path)


def test_it_is_created_by_name_and_counted():
    assert vit_jax.list_models("toy*") == ["toy_small", "toy_tiny"]
    with pytest.raises(ConfigError, match=r"toy_tinx.*Did you mean 'toy_tiny'"):
        vit_jax.create_model("toy_tinx")
    model = vit_jax.create_model("toy_tiny", num_classes=3)
    assert parameter_count(model.config) == trees.count(parameters(model))
    assert sorted(trees.flatten(buffers_of(model))) == ["norm/mean", "norm/variance"]
    assert model(jnp.zeros((2, 8, 8, 1))).shape == (2, 3)
    assert training_flops(model.config) == 6 * forward_macs(model.config) > 0


def test_its_configuration_goes_through_json():
    config = ToyConfig(image_size=16, depths=(1, 1))
    document = json.loads(json.dumps(config_to_json(config)))
    assert (document["family"], config_from_json(document)) == ("toy", config)


def test_another_family_cannot_take_its_name():
    with pytest.raises(ConfigError, match="family 'other' of ToyConfig is 'toy' of ToyConfig already"):
        families.register(Family("other", ToyConfig, "x:Y", macs, parameter_number))


def test_features_have_the_strides_of_the_levels():
    functions = model_functions(ToyConfig(image_size=(16, 24)))
    params, buffers = functions.init_state(jax.random.key(0))
    fine, coarse = functions.features(params, buffers, jnp.ones((2, 16, 24, 1)))
    assert (fine.shape, coarse.shape) == ((2, 4, 6, 16), (2, 2, 3, 32))
    (only,) = functions.features(params, buffers, jnp.ones((2, 16, 24, 1)), levels=["coarse"])
    np.testing.assert_array_equal(only, coarse)
    with pytest.raises(
        ConfigError, match=r"'blocks' is not a level of this model; it has fine \(stride 4\), "
    ):
        functions.features(params, buffers, jnp.ones((2, 16, 24, 1)), levels=["blocks"])


def test_it_is_trained_and_sharded(run):
    _, result = run
    start = build(configuration()).init()
    assert not start.params["merge"]["kernel"].sharding.is_fully_replicated
    assert not start.params["stages"]["1"]["blocks"]["mixer"]["fc1"]["kernel"].sharding.is_fully_replicated
    for path, leaf in trees.flatten(result.state.buffers).items():
        assert (np.asarray(leaf) != np.asarray(trees.flatten(start.buffers)[path])).any(), path
    assert result.metrics["loss"] < np.log(10)


def test_it_is_resumed_bitwise_with_its_statistics(run, tmp_path):
    _, whole = run
    with pytest.raises(Stop):
        vit_jax.train(configuration(), tmp_path, callbacks=[Stopping()])
    resumed = vit_jax.train(configuration(), tmp_path)
    assert_same(
        {"params": resumed.state.params, "buffers": resumed.state.buffers},
        {"params": whole.state.params, "buffers": whole.state.buffers},
    )


def test_rates_fall_by_layer_over_both_stages():
    functions = model_functions(ToyConfig())
    found = treatments(configuration().optimizer, functions.abstract, ToyConfig())
    rates = {path: treatment.rate.ravel().tolist() for path, treatment in found.items()}
    assert rates["stem/kernel"] == rates["norm/scale"] == [0.5**4]
    assert rates["stages/0/blocks/mixer/fc1/kernel"] == [0.5**3, 0.5**2]
    assert rates["merge/kernel"] == [0.5**2]
    assert rates["stages/1/blocks/mixer/fc2/bias"] == [0.5]
    assert rates["head/kernel"] == [1.0]
    section = configuration(optimizer__frozen_blocks=2, optimizer__layer_decay=1.0).optimizer
    frozen = {
        path: treatment.frozen.tolist()
        for path, treatment in treatments(section, functions.abstract, ToyConfig()).items()
    }
    assert frozen["stem/kernel"] is frozen["stages/0/blocks/mixer/fc1/kernel"] is True
    assert frozen["stages/1/blocks/mixer/fc1/kernel"] is frozen["head/kernel"] is False


def test_low_rank_factors_find_its_layers():
    factors = Lora(2, 2.0, ("fc1",)).init(jax.random.key(0), model_functions(ToyConfig()).abstract)
    assert sorted(trees.flatten(factors)) == [
        f"stages/{stage}/blocks/mixer/fc1/{factor}" for stage in (0, 1) for factor in "ab"
    ]


def test_a_run_is_evaluated_and_predicts_with_its_statistics(run):
    folder, result = run
    assert evaluate_workdir(folder)["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=1e-6)
    predictor = Predictor.load(folder)
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    functions = model_functions(predictor.model)
    logits, _ = functions.apply_state(
        *jax.device_get((result.state.params, result.state.buffers)),
        (image / 255 - 0.5).astype(np.float32) / 0.5,
    )
    np.testing.assert_allclose(predictor.probabilities(image), jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)
    assert FeatureExtractor.load(folder).features(image).shape == (2, 32)


def test_it_is_saved_and_loaded_as_its_own_and_in_the_made_up_library(run, tmp_path):
    folder, result = run
    own = vit_jax.load(folder)
    state = {"params": result.state.params, "buffers": result.state.buffers}
    assert_same({"params": parameters(own), "buffers": buffers_of(own)}, state)
    pyramid = vit_jax.load(folder, levels=(8, "fine"))
    maps = jax.jit(lambda model, images: model(images))(pyramid, jnp.ones((2, 16, 24, 1)))
    assert [level.name for level in pyramid.levels] == ["coarse", "fine"]
    assert [x.shape for x in maps] == [(2, 2, 3, 32), (2, 4, 6, 16)]
    np.testing.assert_allclose(maps[0], own.features(jnp.ones((2, 16, 24, 1)), 8)[0], rtol=1e-5, atol=1e-6)
    for format in ("orbax", "hf"):
        vit_jax.save(own, tmp_path / format, format)
        again = vit_jax.load(tmp_path / format, verbose=False)
        assert again.config == own.config
        assert_same({"params": parameters(again), "buffers": buffers_of(again)}, state)
    with pytest.raises(ConfigError, match="timm has no Toy; choose 'hf' or 'orbax'"):
        vit_jax.save(own, tmp_path / "timm", "timm")
    other = vit_jax.load(tmp_path / "hf", num_classes=2, in_channels=3, verbose=False)
    assert (other.config.num_classes, other.stem.kernel.shape) == (2, (4, 4, 3, 16))
    with pytest.raises(CheckpointError, match=r"width is 8, but 16 in the checkpoint"):
        vit_jax.load(tmp_path / "hf", width=8)


def test_training_starts_from_its_checkpoint_with_the_statistics(tmp_path):
    functions = model_functions(ToyConfig())
    params, buffers = randomised(functions.abstract), randomised(functions.abstract_buffers, 1)
    vit_jax.save(functions.bind(params, buffers), tmp_path / "toy", "hf")
    config = configuration()
    config.model = {"checkpoint": str(tmp_path / "toy")}
    state = build(config).init()
    assert_same({"params": state.params, "buffers": state.buffers}, {"params": params, "buffers": buffers})


def test_two_libraries_that_claim_a_file_and_none_are_errors(tmp_path):
    functions = model_functions(ToyConfig())
    vit_jax.save(functions.bind(*functions.init_state(jax.random.key(0))), tmp_path / "toy", "hf")
    table.register_reading("twin", Reading("the twin", claims, read))
    try:
        with pytest.raises(CheckpointError, match="could be of the toy library and of the twin"):
            vit_jax.load(tmp_path / "toy")
    finally:
        del table.READINGS["twin"]
    reading = table.READINGS.pop("toy_library")
    try:
        with pytest.raises(CheckpointError, match=r"whose names no known library uses.*known are timm"):
            vit_jax.load(tmp_path / "toy")
    finally:
        table.register_reading("toy_library", reading)


def test_it_is_planned():
    experiment, assumptions = planned_experiment(configuration(), jax.devices())
    assert assumptions == ()
    parts = state_bytes(experiment)
    assert parts["buffers"] == 2 * 16 * 4
    program = compile_program(experiment)
    assert program.peak > sum(parts.values())
    assert experiment.task.objective.train_flops == training_flops(ToyConfig())
