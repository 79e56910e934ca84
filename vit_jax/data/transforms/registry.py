"""The one list of names that configurations may use for transforms."""

from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.crops import FlipLeftRight, PadCrop, RandomResizedCrop
from vit_jax.data.transforms.decoding import Decode, ToChannels
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
}
