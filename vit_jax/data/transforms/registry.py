"""The one list of names that configurations may use for transforms."""

from vit_jax.data.transforms.aug_mix import AugMix
from vit_jax.data.transforms.auto_augment import AutoAugment, TrivialAugment
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.colors import ColorJitter, GaussianBlur, Grayscale, Solarize, ThreeAugment
from vit_jax.data.transforms.crops import FlipLeftRight, PadCrop, RandomResizedCrop
from vit_jax.data.transforms.decoding import Decode, ToChannels
from vit_jax.data.transforms.erasing import RandomErasing
from vit_jax.data.transforms.masks import BlockMask, MaeMask
from vit_jax.data.transforms.multi_crop import MultiCrop
from vit_jax.data.transforms.rand_augment import RandAugment
from vit_jax.data.transforms.randaug import RandAug
from vit_jax.data.transforms.recipe_crops import FlipUpDown, InceptionCrop, RandomCrop, SimpleRandomCrop
from vit_jax.data.transforms.sizes import CenterCrop, Resize, ResizeLong, ResizeShort

TRANSFORMS: dict[str, type[Transform]] = {
    "decode": Decode,
    "to_channels": ToChannels,
    "resize": Resize,
    "resize_short": ResizeShort,
    "resize_long": ResizeLong,
    "center_crop": CenterCrop,
    "random_resized_crop": RandomResizedCrop,
    "flip_lr": FlipLeftRight,
    "pad_crop": PadCrop,
    "inception_crop": InceptionCrop,
    "random_crop": RandomCrop,
    "simple_random_crop": SimpleRandomCrop,
    "flip_ud": FlipUpDown,
    "rand_augment": RandAugment,
    "randaug": RandAug,
    "auto_augment": AutoAugment,
    "trivial_augment": TrivialAugment,
    "three_augment": ThreeAugment,
    "aug_mix": AugMix,
    "color_jitter": ColorJitter,
    "grayscale": Grayscale,
    "gaussian_blur": GaussianBlur,
    "solarize": Solarize,
    "random_erasing": RandomErasing,
    "mae_mask": MaeMask,
    "block_mask": BlockMask,
    "multi_crop": MultiCrop,
}
