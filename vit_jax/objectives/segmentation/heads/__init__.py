"""The heads of semantic segmentation, each with its options."""

# By the name that `objective.head` calls it: where the dataclass of its options is.
HEADS = {
    "dpt": "vit_jax.objectives.segmentation.heads.dpt:DptHead",
    "linear": "vit_jax.objectives.segmentation.heads.linear:LinearHead",
    "setr_mla": "vit_jax.objectives.segmentation.heads.setr:SetrMla",
    "setr_naive": "vit_jax.objectives.segmentation.heads.setr:SetrNaive",
    "setr_pup": "vit_jax.objectives.segmentation.heads.setr:SetrPup",
    "upernet": "vit_jax.objectives.segmentation.heads.upernet:UperNetHead",
}
