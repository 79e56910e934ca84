"""The heads of semantic segmentation, each with its options."""

# By the name that `objective.head` calls it: where the dataclass of its options is.
HEADS = {
    "linear": "vit_jax.objectives.segmentation.heads.linear:LinearHead",
    "upernet": "vit_jax.objectives.segmentation.heads.upernet:UperNetHead",
}
