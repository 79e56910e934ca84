"""The one list of names that configurations may use for transforms."""

import importlib
from collections.abc import Iterator, Mapping

from vit_jax.data.transforms.base import Transform


class _Table(Mapping[str, type[Transform]]):
    """Classes by name, imported when they are asked for: so transforms may be made of others by their names."""

    def __init__(self, places: Mapping[str, str]):
        self._places = places

    def __getitem__(self, name: str) -> type[Transform]:
        module, _, kind = self._places[name].partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


# A new transform is a class, and a line here.
TRANSFORMS = _Table(
    {
        "decode": "decoding:Decode",
        "to_channels": "decoding:ToChannels",
        "resize": "sizes:Resize",
        "resize_short": "sizes:ResizeShort",
        "resize_long": "sizes:ResizeLong",
        "center_crop": "sizes:CenterCrop",
        "random_resized_crop": "crops:RandomResizedCrop",
        "token_crop": "masks:TokenCrop",
        "token_image": "masks:TokenImage",
        "flip_lr": "crops:FlipLeftRight",
        "pad_crop": "crops:PadCrop",
        "inception_crop": "recipe_crops:InceptionCrop",
        "random_crop": "recipe_crops:RandomCrop",
        "simple_random_crop": "recipe_crops:SimpleRandomCrop",
        "flip_ud": "recipe_crops:FlipUpDown",
        "scale_jitter": "padding:ScaleJitter",
        "native_crop": "naflex:NativeCrop",
        "naflex": "naflex:Naflex",
        "pad": "padding:Pad",
        "pad_objects": "padding:PadObjects",
        "rand_augment": "policies.rand_augment:RandAugment",
        "randaug": "policies.randaug:RandAug",
        "auto_augment": "policies.auto_augment:AutoAugment",
        "trivial_augment": "policies.auto_augment:TrivialAugment",
        "three_augment": "policies.colors:ThreeAugment",
        "aug_mix": "policies.aug_mix:AugMix",
        "color_jitter": "policies.colors:ColorJitter",
        "grayscale": "policies.colors:Grayscale",
        "hsv": "policies.colors:Hsv",
        "gaussian_blur": "policies.colors:GaussianBlur",
        "solarize": "policies.colors:Solarize",
        "random_erasing": "policies.erasing:RandomErasing",
        "mae_mask": "masks:MaeMask",
        "block_mask": "masks:BlockMask",
        "multi_crop": "multi_crop:MultiCrop",
    }
)
