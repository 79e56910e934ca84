"""What a configuration may say about self-distillation; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass
from typing import ClassVar

from vit_jax.errors import ConfigError, choose
from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.objectives.option_checks import check_ranges, is_number

TARGETS = ("centre", "sinkhorn")


@dataclass(frozen=True)
class DinoOptions:
    """Self-distillation over crops. What is set is DINO (Caron et al. 2021, arXiv 2104.14294).

    DINOv2 (Oquab et al. 2023, arXiv 2304.07193) adds `targets`, `patch_weight` and what goes with it, and
    `koleo_weight`; DINOv3 (Simeoni et al. 2025, arXiv 2508.10104) Gram anchoring.

    Attributes:
      prototypes: what the head compares images with, classes without names.
      hidden_dim, bottleneck_dim: of the head.
      norm_last_layer: prototypes have no length that is learned.
      student_temperature: of the student's scores.
      teacher_temperature: of the teacher's scores.
      first_temperature: the teacher's in the first step, from where it goes evenly to the other.
      temperature_epochs: that this takes.
      momentum, last_momentum: share of the old teacher in the first step and at the end, along half a cosine.
      targets: how the teacher's scores become what the student is to say: less their running mean (`centre`), or
        shared out evenly among prototypes, over the whole batch (`sinkhorn`, Cuturi 2013, arXiv 1306.0895).
      centre_momentum: share of the old mean.
      patch_weight: of the loss at masked patches (iBOT, Zhou et al. 2021, arXiv 2111.07832); 0 leaves it out.
      masked_crops: how many global crops of each image have a mask.
      mask_ratio: share of the patches that a mask hides, spread evenly over the batch between two bounds.
      patch_prototypes, patch_bottleneck_dim: of a head of its own for patches; 0 prototypes share the other.
      koleo_weight: of the loss that spreads class tokens, for each global crop (Sablayrolles et al. 2018, arXiv
        1806.03198); 0 leaves it out.
      gram_weight: of the loss that keeps similarities of patches those of an earlier teacher; 0 leaves it out.
      gram_teacher: the checkpoint of that teacher, whatever `vit_jax.load` takes; of a run, its teacher.
      gram_size: height and width in pixels at which it sees global crops, which must come as large and are shrunk for
        all others; 0 for the model's size.
      gram_after: steps before this loss counts.
    """

    # Concern what is computed in training, and what that needs.
    training: ClassVar[tuple[str, ...]] = (
        "gram_weight",
        "gram_teacher",
        "gram_size",
        "gram_after",
        "koleo_weight",
    )

    prototypes: int = 65536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    norm_last_layer: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    first_temperature: float = 0.04
    temperature_epochs: int = 0
    momentum: float = 0.996
    last_momentum: float = 1.0
    targets: str = "centre"
    centre_momentum: float = 0.9
    patch_weight: float = 0.0
    masked_crops: int = 1
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    patch_prototypes: int = 0
    patch_bottleneck_dim: int = 256
    koleo_weight: float = 0.0
    gram_weight: float = 0.0
    gram_teacher: str = ""
    gram_size: int = 0
    gram_after: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, ("prototypes",), 2, 2**24)
        check_ranges(self, ("hidden_dim", "bottleneck_dim", "patch_bottleneck_dim", "masked_crops"), 1, 2**20)
        check_ranges(self, ("student_temperature", "teacher_temperature", "first_temperature"), 1e-3, 10)
        check_ranges(self, ("temperature_epochs", "gram_size", "gram_after"), 0, 2**40)
        check_ranges(self, ("momentum", "last_momentum", "centre_momentum"), 0, 1)
        check_ranges(self, ("patch_weight", "koleo_weight", "gram_weight"), 0, 1e6)
        choose(self.targets, TARGETS, "objective.targets")
        ratio = self.mask_ratio
        good = isinstance(ratio, list | tuple) and len(ratio) == 2 and all(map(is_number, ratio))
        if not good or not 0 < ratio[0] <= ratio[1] < 1:
            raise ConfigError(
                f"objective.mask_ratio is {ratio!r}; it must be two numbers above 0 and below 1, the smaller one "
                "first: a mask of everything leaves nothing to tell from."
            )
        object.__setattr__(self, "mask_ratio", tuple(ratio))
        if self.patch_prototypes and (self.patch_prototypes < 2 or not self.patch_weight):
            raise ConfigError(
                f"objective.patch_prototypes is {self.patch_prototypes} and patch_weight {self.patch_weight}; a head "
                "for patches needs at least 2 prototypes and a patch_weight above 0."
            )
        if bool(self.gram_weight) != bool(self.gram_teacher):
            raise ConfigError(
                f"objective.gram_weight is {self.gram_weight} and gram_teacher {self.gram_teacher!r}; Gram anchoring "
                "needs both, a weight above 0 and the checkpoint of an earlier teacher, for example a workdir."
            )

    def head(self, width: int) -> DinoHeadConfig:
        """Return the head on features of a width."""
        sizes = width, self.hidden_dim, self.bottleneck_dim, self.prototypes
        return DinoHeadConfig(*sizes, norm_last_layer=self.norm_last_layer)

    def patch_head(self, width: int) -> DinoHeadConfig:
        """Return the head of its own for patches, of which there is one if `patch_prototypes`."""
        sizes = width, self.hidden_dim, self.patch_bottleneck_dim, self.patch_prototypes
        return DinoHeadConfig(*sizes, norm_last_layer=self.norm_last_layer)
