"""Whatever is wrong in the `objective` section of a configuration gets one line that says so."""

import subprocess
import sys

import pytest

from vit_jax.errors import ConfigError
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.objectives.options import parse_options
from vit_jax.training.config import default_config
from vit_jax.training.config.overrides import apply_override


def test_options_are_parsed():
    assert parse_options(dict(name="classification")) == ClassificationOptions()
    options = parse_options(
        dict(name="classification", loss="bce", bce_threshold=None, mixup=1, class_weights=[1, 2.5])
    )
    expected = ClassificationOptions(loss="bce", bce_threshold=None, mixup=1, class_weights=(1.0, 2.5))
    assert options == expected
    assert hash(options) == hash(expected)
    lists = parse_options(
        dict(name="classification", cutmix_minmax=[0, 1], erase_area=[0.1, 0.2], erase_count=[1, 2])
    )
    assert lists == ClassificationOptions(cutmix_minmax=(0, 1), erase_area=(0.1, 0.2), erase_count=(1, 2))
    assert hash(lists)
    assert parse_options(dict(name="mae", mask_ratio=0.5, decoder_depth=2)) == MaeOptions(
        0.5, decoder_depth=2
    )


CLASSIFICATION = [
    (dict(mixupp=0.2), "objective.mixupp is not an option of 'classification'. Did you mean 'mixup'"),
    (dict(mask_ratio=0.5), "objective.mask_ratio is not an option of 'classification'."),
    (dict(smoothing=0.1), "objective.smoothing is not .* Did you mean 'label_smoothing'"),
    (
        dict(loss="sigmoidd"),
        "objective.loss is 'sigmoidd'; it must be one of softmax, .* Did you mean 'sigmoid'",
    ),
    (dict(loss=3), "objective.loss is 3; it must be one of softmax, sigmoid, bce"),
    (dict(label_smoothing=-0.1), "objective.label_smoothing is -0.1; it must be between 0 and 1"),
    (dict(label_smoothing=1.1), "objective.label_smoothing is 1.1; it must be between 0 and 1"),
    (dict(label_smoothing="0.1"), "objective.label_smoothing is '0.1'; it must be a number"),
    (dict(label_smoothing=None), "objective.label_smoothing is None; it must be a number"),
    (dict(label_smoothing=True), "objective.label_smoothing is True; it must be a number"),
    (dict(label_smoothing=float("nan")), "objective.label_smoothing is nan; it must be between"),
    (dict(bce_threshold="0"), "objective.bce_threshold is '0'; it must be a number or None"),
    (dict(bce_threshold=2.0), "objective.bce_threshold is 2.0; it must be between 0 and 1"),
    (dict(mixup=-1.0), "objective.mixup is -1.0; it must be between 0 and 1000"),
    (dict(mixup=float("inf")), "objective.mixup is inf"),
    (dict(cutmix=-1), "objective.cutmix is -1; it must be between 0 and 1000"),
    (dict(mix_probability=2), "objective.mix_probability is 2; it must be between 0 and 1"),
    (dict(cutmix_probability=-0.5), "objective.cutmix_probability is -0.5; it must be between"),
    (dict(cutmix_minmax=0.2), "objective.cutmix_minmax is 0.2; it must be two numbers between 0 and 1"),
    (dict(cutmix_minmax=(0.8, 0.2)), r"objective.cutmix_minmax is \(0.8, 0.2\); .* the smaller one first"),
    (dict(cutmix_minmax=(0.2, 1.2)), "objective.cutmix_minmax is .*; it must be two numbers between 0 and 1"),
    (dict(cutmix_minmax=(0.2, float("nan"))), "objective.cutmix_minmax is .*; it must be two numbers"),
    (dict(cutmix_minmax=(0.2, 0.3, 0.4)), "objective.cutmix_minmax is .*; it must be two numbers"),
    (dict(cutmix_corrected=1), "objective.cutmix_corrected is 1; it must be True or False"),
    (dict(mix_mode="element"), "objective.mix_mode is 'element'; .* batch, pair, elem. Did you mean 'elem'"),
    (dict(mix_mode=None), "objective.mix_mode is None; it must be one of batch, pair, elem"),
    (dict(mix_partner="rolled"), "objective.mix_partner is 'rolled'; .* Did you mean 'roll'"),
    (
        dict(mix_mode="pair"),
        "objective.mix_partner is 'roll', but mix_mode 'pair' works only with mix_partner 'flip'; "
        "set mix_partner='flip'",
    ),
    (dict(mix_dominant="yes"), "objective.mix_dominant is 'yes'; it must be True or False"),
    (dict(erase_probability=-0.25), "objective.erase_probability is -0.25; it must be between 0 and 1"),
    (dict(erase_probability="0.25"), "objective.erase_probability is '0.25'; it must be a number"),
    (dict(erase_mode="pixels"), "objective.erase_mode is 'pixels'; .* Did you mean 'pixel'"),
    (dict(erase_area=0.3), "objective.erase_area is 0.3; it must be two numbers between 0 and 1"),
    (dict(erase_area=(0.5, 0.1)), "objective.erase_area is .*; .* the smaller one first"),
    (dict(erase_aspect=3.3), "objective.erase_aspect is 3.3; it must be between 0.01 and 1"),
    (dict(erase_aspect=0.0), "objective.erase_aspect is 0.0; it must be between 0.01 and 1"),
    (dict(erase_count=1), "objective.erase_count is 1; it must be two integers between 1 and 100"),
    (dict(erase_count=(0, 1)), "objective.erase_count is .*; it must be two integers between 1 and 100"),
    (dict(erase_count=(1, 2.0)), "objective.erase_count is .*; it must be two integers"),
    (dict(erase_count=(True, 2)), "objective.erase_count is .*; it must be two integers"),
    (dict(class_weights="balance"), "objective.class_weights is 'balance'; .* Did you mean 'balanced'"),
    (
        dict(class_weights=3.0),
        "objective.class_weights is 3.0; it must be 'none', 'balanced' or one non-negative number",
    ),
    (dict(class_weights=None), "objective.class_weights is None; it must be"),
    (dict(class_weights=("a", "b")), "objective.class_weights is .*; it must be"),
    (dict(class_weights=(1.0, -1.0)), "objective.class_weights is .*; it must be .* one non-negative number"),
    (dict(class_weights=(1.0, float("nan"))), "objective.class_weights is .*; it must be"),
    (dict(class_weights=(0.0, 0)), "objective.class_weights is .*; it must be .* not all 0"),
    (dict(class_weights=()), "objective.class_weights is .*; it must be"),
]
MAE = [
    (dict(mask_ration=0.5), "objective.mask_ration is not an option of 'mae'. Did you mean 'mask_ratio'"),
    (dict(mask_ratio=1.0), "objective.mask_ratio is 1.0; it must be between 0 and 0.999"),
    (dict(mask_ratio=None), "objective.mask_ratio is None; it must be a number"),
    (dict(normalise_pixels=1), "objective.normalise_pixels is 1; it must be True or False"),
    (dict(normalise_pixels="no"), "objective.normalise_pixels is 'no'; it must be True or False"),
    (dict(decoder_width=512.0), "objective.decoder_width is 512.0; it must be an integer"),
    (dict(decoder_width=0), "objective.decoder_width is 0; it must be between 1"),
    (dict(decoder_width=30, decoder_heads=2), "objective.decoder_width is 30; .* a multiple of 4"),
    (dict(decoder_depth=0), "objective.decoder_depth is 0; it must be between 1"),
    (dict(decoder_heads=-1), "objective.decoder_heads is -1; it must be between 1"),
    (dict(decoder_heads=7), "objective.decoder_heads is 7, which does not divide decoder_width 512"),
    (dict(decoder_mlp_dim=-4), "objective.decoder_mlp_dim is -4; it must be between 0"),
]
WRONG = [("classification", *case) for case in CLASSIFICATION] + [("mae", *case) for case in MAE]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_wrong_options_get_one_clear_line(name, options, message):
    with pytest.raises(ConfigError, match=message) as info:
        parse_options(dict(name=name, **options))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(name="clasification"), "objective.name is 'clasification'; .* Did you mean 'classification'"),
        (dict(), "objective.name is None; it must be one of .*, classification, "),
        (dict(name=3), "objective.name is 3; it must be one of"),
    ],
)
def test_wrong_names(section, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(section)


def test_options_do_not_import_jax():
    code = "import sys, vit_jax.objectives.options; print({'jax', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(("text", "value"), [("tuned", "tuned"), ("(0.5, 0.2)", (0.5, 0.2)), ("0.3", 0.3)])
def test_options_that_take_numbers_or_words_are_read_from_the_command_line(text, value):
    config = default_config()
    config.objective.name = "multi_label"
    apply_override(config, f"objective.thresholds={text}")
    assert config.objective.thresholds == value
