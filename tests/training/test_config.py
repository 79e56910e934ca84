import dataclasses
import json
import re
import subprocess
import sys
import time

import pytest
from ml_collections import ConfigDict

from vit_jax.data.section import Part, mixture_parts
from vit_jax.errors import ConfigError
from vit_jax.models.vit.config import ViTConfig
from vit_jax.training.config import load as configs
from vit_jax.training.config.defaults import default_config, flatten
from vit_jax.training.config.rules import DURATIONS, OPEN_SECTIONS, RANGES

KEYS = sorted(flatten(default_config()))

FILE = """
from vit_jax.training.config import default_config

def get_config(arg="base"):
    config = default_config()
    config.model.name = f"vit_{arg}_patch16_224"
    config.optimizer.learning_rate = 1
    config.optimizer.decay = ["kernel$"]
    config.duration = 500
    return config
"""


def write(tmp_path, text, name="experiment.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def changed(**changes):
    config = default_config()
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = config
        for parent in parents:
            section = section[parent]
        section[last] = value
    return config


def message(config):
    with pytest.raises(ConfigError) as caught:
        configs.validate(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_valid():
    configs.validate(default_config())


def test_a_file_with_an_argument_and_overrides(tmp_path):
    path = write(tmp_path, FILE)
    config = configs.load_config(f"{path}:small", ["data.batch_size=128", "model.depth=3"])
    assert config.model.name == "vit_small_patch16_224"
    assert config.data.batch_size == 128
    assert config.model.depth == 3
    assert config.duration == 500
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.optimizer.decay == ("kernel$",)
    assert configs.load_config(path).model.name == "vit_base_patch16_224"


def test_a_saved_json_is_a_config(tmp_path):
    config = configs.load_config(write(tmp_path, FILE))
    path = write(tmp_path, configs.to_json(config), "config.json")
    assert configs.load_config(path) == config
    assert configs.load_config(write(tmp_path, '{"seed": 3}', "seed.json")).seed == 3


def test_json_is_lossless():
    config = changed(optimizer__learning_rate_multipliers=(("head", 10.0), ("^blocks/", 0.1)), duration="7%")
    again = configs.from_json(configs.to_json(config))
    assert again == config
    assert flatten(again) == flatten(config)
    assert {k: type(v) for k, v in flatten(again).items()} == {k: type(v) for k, v in flatten(config).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "not JSON"), ("[1]", "object"), ("", "not JSON")],
)
def test_json_that_is_no_configuration(tmp_path, text, expected):
    with pytest.raises(ConfigError, match=expected):
        configs.from_json(text)
    with pytest.raises(ConfigError, match=expected):
        configs.load_config(write(tmp_path, text, "bad.json"))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("https://example.org/config.py", "is a URL"),
        ("config.yaml", "FILE.py"),
        ("digits", "FILE.py"),
        ("nowhere/config.py", "does not exist"),
        ("{folder}/experimnt.py", "Did you mean 'experiment.py'"),
        ("{folder}/zzzzzzzz.py", "That folder has experiment.py"),
        ("{folder}/config.json:arg", "takes no argument"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path, spec, expected):
    write(tmp_path, FILE)
    write(tmp_path, "{}", "config.json")
    with pytest.raises(ConfigError, match=expected):
        configs.load_config(spec.format(folder=tmp_path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("config.optimizer.learning_rat = 3", "'optimizer.learning_rat' is not .* 'optimizer.learning_rate'"),
        ("config.seed = config.optimizer.learnin_rate", "line 5.*'learnin_rate'.* 'learning_rate'"),
        ("config.seed = config['optimizer']['learnin_rate']", "line 5.*'learnin_rate'.* 'learning_rate'"),
        ("config = dict(config)", "returned dict; it must return a modified default_config"),
        ("config.seed == ==", "line 5: invalid syntax"),
        ("config.data = 3", "data is 3; it must be a section"),
        ("del config.seed", "seed is missing"),
        ("config.model = {}", "model.name is missing"),
        ("config.model.preprocessing = 3", "model.preprocessing is 3"),
        ("config.model.preprocessing = dict(meen=1)", "model.preprocessing.meen is not .* 'mean'"),
        ("config.model.preprocessing = dict(crop='a')", "model.preprocessing.crop is 'a'"),
    ],
)
def test_mistakes_in_a_file_are_one_line(tmp_path, change, expected):
    text = f"""
from vit_jax.training.config import default_config
def get_config():
    config = default_config()
    {change}
    return config
"""
    with pytest.raises(ConfigError, match=expected) as caught:
        configs.load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bug", ["1 / 0", "undefined", "{}['key']", "None.name", "import nowhere_at_all"])
def test_bugs_in_a_file_keep_their_traceback(tmp_path, bug):
    with pytest.raises((ZeroDivisionError, NameError, KeyError, AttributeError, ImportError)):
        configs.load_config(write(tmp_path, f"def get_config():\n    {bug}\n"))


@pytest.mark.parametrize(
    ("text", "arg", "expected"),
    [
        ("x = 1", "", "no function get_config"),
        ("def get_config(size): return size", "", "needs an argument: .*:SIZE"),
        ("def get_config(): return 1", ":small", "takes no argument"),
    ],
)
def test_get_config_must_fit(tmp_path, text, arg, expected):
    with pytest.raises(ConfigError, match=expected):
        configs.load_config(write(tmp_path, text) + arg)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1e4", 10000),
        ("seed=7", 7),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=3e-4", 3e-4),
        ("data.balanced=True", True),
        ("ema.warmup=false", False),
        ("data.path=/a=b c", "/a=b c"),
        ("data.name=123", "123"),
        ("optimizer.frozen=('^blocks/', '^norm/')", ("^blocks/", "^norm/")),
        ("optimizer.frozen=['^blocks/']", ("^blocks/",)),
        ("duration=500", 500),
        ("duration=30 epochs", "30 epochs"),
        ("evaluation.every=5%", "5%"),
        ("model.depth=2", 2),
        ("model.image_size=32", 32),
        ("model.image_size=(32, 64)", (32, 64)),
        ("model.layer_scale=1e-4", 1e-4),
        ("model.layer_scale=none", None),
        ("model.class_token=true", True),
        ("model.preprocessing.crop=1", 1.0),
        ("objective.label_smoothing=0.1", 0.1),
        ("objective.bce_threshold=None", None),
        ("objective.class_weights=balanced", "balanced"),
        ("objective.class_weights=(1.0, 2.0)", (1.0, 2.0)),
    ],
)
def test_overrides_are_read_by_the_type_of_the_key(tmp_path, override, expected):
    path = write(tmp_path, '{"model": {"name": "vit_mu_patch16_224"}}', "config.json")
    value = flatten(configs.load_config(path, [override]))[override.partition("=")[0]]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("sed=1", "'seed'"),
        ("data=1", "data is a section"),
        ("optimizer.lr=1", "optimizer.lr"),
        ("seed=1.5", "seed is '1.5'"),
        ("seed=abc", "seed is 'abc'"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate is 'fast'"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate is nan"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate is inf"),
        ("data.batch_size=-1", "data.batch_size is -1; it must be at least 1"),
        ("data.balanced=1", "true or false"),
        ("optimizer.frozen=head", "optimizer.frozen is 'head'"),
        ("optimizer.frozen='head'", "optimizer.frozen is 'head'"),
        ("optimizer.frozen=('(',)", "not a regular expression"),
        ("optimizer.frozen=(1,)", "a pattern must be a string"),
        ("optimizer.learning_rate_multipliers=('head',)", "pair"),
        ("optimizer.learning_rate_multipliers=(('head', -1),)", "factor"),
        ("optimizer.name=adam", "'adamw'"),
        ("schedule.name=cosin", "'cosine'"),
        ("data.source=digit", "'digits'"),
        ("data.source=folder", "data.path is empty"),
        ("data.source=tfds", "data.name or data.path is empty"),
        ("duration=10 parsecs", "duration is '10 parsecs'"),
        ("duration=10%", "duration is '10%'"),
        ("mesh.data=0", "mesh.data is 0"),
        ("mesh.fsdp=-1", "mesh.data is -1"),
        ("accumulation=3", "accumulation is 3, which does not divide data.batch_size 64"),
        ("data.repeats=0", "data.repeats is 0; it must be at least 1"),
        ("data.bad_records=ignore", "data.bad_records is 'ignore'; it must be one of skip, error"),
        ("data.max_bad_share=2", "data.max_bad_share is 2"),
        ("data.cache=yes", "data.cache is 'yes'; it must be one of none, encoded, decoded"),
        ("data.mixture=({'pth': 'x'},)", "data.mixture[0] has no key 'pth'"),
        ("evaluation.baselines=(1,)", "evaluation.baselines"),
        ("model.widht=3", "'model.width'"),
        ("model.width=abc", "model.width is 'abc'"),
        ("model.width=100", "width"),
        ("model.name=vit_tiny_patch16", "vit_tiny_patch16"),
        ("model.pool=cl", "pool is 'cl'"),
        ("model.weights=teacher", "model.weights is 'teacher', but there is no model.checkpoint"),
        ("objective.name=class", "'classification'"),
        ("objective.mask_ratio=0.5", "objective.mask_ratio is not an option of 'classification'"),
        ("objective.label_smoothing=2", "objective.label_smoothing is 2"),
    ],
)
def test_wrong_overrides_are_one_line(tmp_path, override, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        configs.load_config(write(tmp_path, "{}", "config.json"), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_typo_in_any_key_is_named_with_the_right_one(key):
    flat = flatten(default_config())
    for position in {0, len(key) // 2, len(key) - 1}:
        typo = key[:position] + key[position + 1 :]
        if typo.startswith(OPEN_SECTIONS) or typo in flat:
            continue
        text = message(with_key(typo))
        assert repr(typo) in text
        assert f"'{key}'" in text


def with_key(key):
    config = default_config()
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        if parent not in section:
            section[parent] = ConfigDict(type_safe=False)
        section = section[parent]
    section[last] = 1
    return config


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_type_in_any_key_is_named(key):
    default = flatten(default_config())[key]
    wrong = [None, object(), {"a": 1}, {}]
    wrong += [3, 3.5, True] if isinstance(default, str) and key not in DURATIONS else ["abc"]
    # ml_collections itself turns True into 1.0 where a float stands.
    wrong += [1] if isinstance(default, bool) else [] if isinstance(default, float) else [True]
    wrong += [0.5] if isinstance(default, int) else []
    for value in wrong:
        assert key in message(changed(**{key.replace(".", "__"): value}))


@pytest.mark.parametrize("key", sorted(RANGES))
def test_values_out_of_range_are_named(key):
    low, high = (float(bound) for bound in RANGES[key][1:-1].split(","))
    kind = type(flatten(default_config())[key])
    for value in (kind(low) - 1, *([kind(high) + 1] if high < float("inf") else [])):
        assert f"{key} is {value}" in message(changed(**{key.replace(".", "__"): value}))


def test_every_numeric_key_has_a_range():
    numeric = {key for key, value in flatten(default_config()).items() if type(value) in (int, float)}
    assert numeric == set(RANGES)


def test_every_model_field_can_be_overridden_or_is_refused_by_name(tmp_path):
    path = write(tmp_path, "{}", "config.json")
    for field in dataclasses.fields(ViTConfig):
        if isinstance(field.default, int | float):
            with pytest.raises(ConfigError, match=field.name):
                configs.load_config(path, [f"model.{field.name}=abc"])


def test_difference_names_changed_added_and_removed_keys():
    old, new = default_config(), default_config()
    new.seed = 1
    new.model.depth = 3
    old.objective.mixup = 0.2
    assert configs.difference(old, new) == {
        "seed": (0, 1),
        "model.depth": (configs.ABSENT, 3),
        "objective.mixup": (0.2, configs.ABSENT),
    }
    assert configs.difference(old, old) == {}


def test_resuming_refuses_what_changes_training():
    old = default_config()
    new = changed(seed=1, optimizer__learning_rate=0.5, log__every=7)
    with pytest.raises(ConfigError) as caught:
        configs.check_resumable(old, new)
    text = str(caught.value)
    assert "optimizer.learning_rate: 0.001 -> 0.5; seed: 0 -> 1" in text
    assert "allow_change=['optimizer.learning_rate', 'seed']" in text
    assert "log.every" not in text
    with pytest.raises(ConfigError, match="seed: 0 -> 1") as caught:
        configs.check_resumable(old, new, ["optimizer"])
    assert "learning_rate" not in str(caught.value)
    notices = configs.check_resumable(old, new, ["optimizer.learning_rate", "seed"])
    assert notices == ["optimizer.learning_rate: 0.001 -> 0.5 (allowed)", "seed: 0 -> 1 (allowed)"]


def test_resuming_allows_what_is_harmless_and_tells_what_changes_rounding():
    new = changed(log__progress=False, checkpoint__keep_last=9, evaluation__every=3, data__prefetch=9)
    new.checkpoint.staging = "/content/staging"
    assert configs.check_resumable(default_config(), new) == []
    notices = configs.check_resumable(default_config(), changed(mesh__fsdp=4))
    assert notices == ["mesh.fsdp: 1 -> 4 (not bitwise the same from here on)"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule.milestones", ("5 minutes",), "schedule.milestones is '5 minutes'; it must be a number"),
        ("optimizer.delay", ("head",), r"optimizer.delay has 'head'; each entry must be a pattern, when its"),
        (
            "optimizer.delay",
            (("he(ad", 5),),
            "optimizer.delay has 'he\\(ad', which is not a regular expression",
        ),
        ("optimizer.delay", (("head", "soon"),), "optimizer.delay is 'soon'; it must be a number"),
        ("optimizer.weight_decay_end", 0.4, "weight_decay_end is 0.4, but the decay is constant"),
        ("schedule.power", 0.0, "schedule.power is 0.0; it must be above 0"),
    ],
)
def test_schedules_that_say_nothing(key, value, message):
    config = default_config()
    section, name = key.split(".")
    config[section][name] = value
    with pytest.raises(ConfigError, match=message):
        configs.validate(config)


def test_clipping_of_each_tensor_needs_a_norm():
    config = default_config()
    config.optimizer.update(clip_per_tensor=True, clip_norm=0.0)
    with pytest.raises(ConfigError, match=r"clip_per_tensor is on, but .*clip_norm is 0"):
        configs.validate(config)


def test_data_options_that_exclude_each_other():
    mixture = ({"source": "digits"},)
    with pytest.raises(ConfigError, match=r"data\.balanced is on, but data\.mixture has its own weights"):
        configs.validate(changed(data__mixture=mixture, data__balanced=True))
    with pytest.raises(ConfigError, match=r"data\.cache is 'encoded', but 3 worker processes"):
        configs.validate(changed(data__cache="encoded", data__num_workers=3))


def test_the_cache_of_compiled_programs_is_a_folder():
    for value in ("", "gs://bucket/compiled"):
        with pytest.raises(
            ConfigError, match=rf"compilation\.cache is '{value}'; it must be 'auto', 'off' or"
        ):
            configs.validate(changed(compilation__cache=value))
    assert configs.check_resumable(default_config(), changed(compilation__cache="off")) == []


def test_a_mixture_survives_saving():
    config = changed(data__mixture=({"source": "digits", "weight": 2.0}, {"path": "somewhere"}))
    configs.validate(config)
    saved = configs.from_json(configs.to_json(config))
    assert configs.check_resumable(saved, config) == []
    assert mixture_parts(saved.data.mixture) == [Part("digits", weight=2.0), Part("folder", "somewhere")]


def test_an_allowed_key_must_exist():
    with pytest.raises(ConfigError, match=r"learnin_rate.*'optimizer.learning_rate'"):
        configs.check_resumable(default_config(), default_config(), ["optimizer.learnin_rate"])


def test_a_saved_config_resumes_itself():
    config = changed(optimizer__frozen=("^stem/",), duration="3 epochs")
    assert configs.check_resumable(configs.from_json(configs.to_json(config)), config) == []


def test_loading_is_fast_and_needs_no_jax(tmp_path):
    code = (
        "import sys; from vit_jax.training.config import load_config; load_config(sys.argv[1]); "
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, write(tmp_path, FILE)], check=True)
    assert time.monotonic() - start < 1


def test_json_is_readable_by_others():
    values = json.loads(configs.to_json(default_config()))
    assert values["optimizer"]["decay"] == ["kernel$"]
