"""What is published under which names, as far as this library has its architecture. Needs no jax.

timm's tags are those of timm 1.0.31. Of Google's buckets the papers' own checkpoints are named here; the thousands of
AugReg's (Steiner et al. 2021, arXiv 2106.10270) load by their paths too.
"""

from functools import cache

# An architecture of timm, and its tags.
_TIMM = """
beit3_base_patch16_224: in22k_ft_in1k indomain_in22k_ft_in1k indomain_pt pt
beit3_large_patch16_224: in22k_ft_in1k indomain_in22k_ft_in1k indomain_pt pt
eva_large_patch14_196: in22k_ft_in1k in22k_ft_in22k_in1k
eva_large_patch14_336: in22k_ft_in1k in22k_ft_in22k_in1k
flexivit_base: 300ep_in1k 300ep_in21k 600ep_in1k 1000ep_in21k 1200ep_in1k patch16_in21k patch30_in21k
flexivit_large: 300ep_in1k 600ep_in1k 1200ep_in1k
flexivit_small: 300ep_in1k 600ep_in1k 1200ep_in1k
vit_base_patch8_224: augreg2_in21k_ft_in1k augreg_in21k augreg_in21k_ft_in1k dino
vit_base_patch14_dinov2: lvd142m
vit_base_patch14_reg1_tipsv2: webli
vit_base_patch14_reg4_dinov2: lvd142m
vit_base_patch16_224: augreg2_in21k_ft_in1k augreg_in1k augreg_in21k augreg_in21k_ft_in1k bamboo dino mae orig_in21k
  orig_in21k_ft_in1k sam_in1k
vit_base_patch16_224_miil: in21k in21k_ft_in1k
vit_base_patch16_384: augreg_in1k augreg_in21k_ft_in1k orig_in21k_ft_in1k
vit_base_patch16_clip_224: datacompxl dfn2b laion2b laion2b_ft_in1k laion2b_ft_in12k laion2b_ft_in12k_in1k
  laion400m_e32 metaclip_2pt5b metaclip_400m openai openai_ft_in1k openai_ft_in12k openai_ft_in12k_in1k
vit_base_patch16_clip_384: laion2b_ft_in1k laion2b_ft_in12k_in1k openai_ft_in1k openai_ft_in12k_in1k
vit_base_patch16_clip_quickgelu_224: metaclip_2pt5b metaclip_400m openai
vit_base_patch16_plus_clip_240: laion400m_e32
vit_base_patch16_siglip_224: v2_webli webli
vit_base_patch16_siglip_256: v2_webli webli webli_i18n
vit_base_patch16_siglip_384: v2_webli webli
vit_base_patch16_siglip_512: v2_webli webli
vit_base_patch16_siglip_gap_224: v2_webli webli
vit_base_patch16_siglip_gap_256: v2_webli webli webli_i18n
vit_base_patch16_siglip_gap_384: v2_webli webli
vit_base_patch16_siglip_gap_512: v2_webli webli
vit_base_patch32_224: augreg_in1k augreg_in21k augreg_in21k_ft_in1k orig_in21k sam_in1k
vit_base_patch32_384: augreg_in1k augreg_in21k_ft_in1k
vit_base_patch32_clip_224: datacompxl laion2b laion2b_ft_in1k laion2b_ft_in12k_in1k laion400m_e32 metaclip_2pt5b
  metaclip_400m openai openai_ft_in1k
vit_base_patch32_clip_256: datacompxl
vit_base_patch32_clip_384: laion2b_ft_in12k_in1k openai_ft_in12k_in1k
vit_base_patch32_clip_448: laion2b_ft_in12k_in1k
vit_base_patch32_clip_quickgelu_224: laion400m_e32 metaclip_2pt5b metaclip_400m openai
vit_base_patch32_siglip_256: v2_webli
vit_base_patch32_siglip_gap_256: v2_webli
vit_betwixt_patch16_reg1_gap_256: sbb_in1k
vit_betwixt_patch16_reg4_gap_256: sbb2_e200_in12k sbb2_e200_in12k_ft_in1k sbb_in1k sbb_in12k sbb_in12k_ft_in1k
vit_betwixt_patch16_reg4_gap_384: sbb2_e200_in12k_ft_in1k
vit_betwixt_patch32_clip_224: tinyclip_laion400m
vit_giant_patch14_clip_224: laion2b
vit_giant_patch14_dinov2: lvd142m
vit_giant_patch14_reg1_tipsv2: webli
vit_giant_patch14_reg4_dinov2: lvd142m
vit_giant_patch16_gap_224: in22k_ijepa
vit_giantopt_patch16_siglip_256: v2_webli
vit_giantopt_patch16_siglip_384: v2_webli
vit_giantopt_patch16_siglip_gap_256: v2_webli
vit_giantopt_patch16_siglip_gap_384: v2_webli
vit_gigantic_patch14_clip_224: laion2b metaclip2_worldwide metaclip_2pt5b
vit_gigantic_patch14_clip_378: metaclip2_worldwide
vit_gigantic_patch14_clip_quickgelu_224: metaclip_2pt5b
vit_huge_patch14_224: mae orig_in21k
vit_huge_patch14_clip_224: dfn5b laion2b laion2b_ft_in1k laion2b_ft_in12k laion2b_ft_in12k_in1k metaclip2_worldwide
  metaclip_2pt5b metaclip_altogether
vit_huge_patch14_clip_336: laion2b_ft_in12k_in1k
vit_huge_patch14_clip_378: dfn5b metaclip2_worldwide
vit_huge_patch14_clip_quickgelu_224: dfn5b metaclip2_worldwide metaclip_2pt5b
vit_huge_patch14_clip_quickgelu_378: dfn5b
vit_huge_patch14_gap_224: in1k_ijepa in22k_ijepa
vit_huge_patch16_gap_448: in1k_ijepa
vit_large_patch14_clip_224: apple_mclip2_dfndr2b datacompxl dfn2b dfn2b_s39b laion2b laion2b_ft_in1k laion2b_ft_in12k
  laion2b_ft_in12k_in1k laion400m_e32 metaclip_2pt5b metaclip_400m openai openai_ft_in1k openai_ft_in12k
  openai_ft_in12k_in1k
vit_large_patch14_clip_336: laion2b_ft_in1k laion2b_ft_in12k_in1k openai openai_ft_in12k_in1k
vit_large_patch14_clip_quickgelu_224: dfn2b metaclip_2pt5b metaclip_400m openai
vit_large_patch14_clip_quickgelu_336: openai
vit_large_patch14_dinov2: lvd142m
vit_large_patch14_reg1_tipsv2: webli
vit_large_patch14_reg4_dinov2: lvd142m
vit_large_patch16_224: augreg_in21k augreg_in21k_ft_in1k mae orig_in21k
vit_large_patch16_384: augreg_in21k_ft_in1k
vit_large_patch16_siglip_256: v2_webli webli
vit_large_patch16_siglip_384: v2_webli webli
vit_large_patch16_siglip_512: v2_webli
vit_large_patch16_siglip_gap_256: v2_webli webli
vit_large_patch16_siglip_gap_384: v2_webli webli
vit_large_patch16_siglip_gap_512: v2_webli
vit_large_patch32_224: orig_in21k
vit_large_patch32_384: orig_in21k_ft_in1k
vit_little_patch16_reg1_gap_256: sbb_in12k sbb_in12k_ft_in1k
vit_little_patch16_reg4_gap_256: sbb_in1k
vit_medium_patch16_clip_224: tinyclip_yfcc15m
vit_medium_patch16_gap_240: sw_in12k
vit_medium_patch16_gap_256: sw_in12k_ft_in1k
vit_medium_patch16_gap_384: sw_in12k_ft_in1k
vit_medium_patch16_reg1_gap_256: sbb_in1k
vit_medium_patch16_reg4_gap_256: sbb_in1k sbb_in12k sbb_in12k_ft_in1k
vit_medium_patch32_clip_224: tinyclip_laion400m
vit_mediumd_patch16_reg4_gap_256: sbb2_e200_in12k sbb2_e200_in12k_ft_in1k sbb_in12k sbb_in12k_ft_in1k
vit_mediumd_patch16_reg4_gap_384: sbb2_e200_in12k_ft_in1k
vit_small_patch8_224: dino
vit_small_patch14_dinov2: lvd142m
vit_small_patch14_reg4_dinov2: lvd142m
vit_small_patch16_224: augreg_in1k augreg_in21k augreg_in21k_ft_in1k dino
vit_small_patch16_384: augreg_in1k augreg_in21k_ft_in1k
vit_small_patch32_224: augreg_in21k augreg_in21k_ft_in1k
vit_small_patch32_384: augreg_in21k_ft_in1k
vit_so400m_patch14_reg1_tipsv2: webli
vit_so400m_patch14_siglip_224: v2_webli webli
vit_so400m_patch14_siglip_378: v2_webli webli webli_ft_in1k
vit_so400m_patch14_siglip_384: webli
vit_so400m_patch14_siglip_gap_224: pali2_3b_pt pali2_10b_pt pali_mix pali_pt v2_webli webli
vit_so400m_patch14_siglip_gap_378: v2_webli webli webli_ft_in1k
vit_so400m_patch14_siglip_gap_384: webli
vit_so400m_patch14_siglip_gap_448: pali2_3b_docci pali2_3b_pt pali2_10b_docci pali2_10b_pt pali_mix pali_ocrvqa
  pali_pt pali_refcoco_seg
vit_so400m_patch14_siglip_gap_896: pali2_3b_pt pali2_10b_pt pali_ocrvqa pali_pt pali_refcoco_seg
vit_so400m_patch16_siglip_256: v2_webli webli_i18n
vit_so400m_patch16_siglip_384: v2_webli
vit_so400m_patch16_siglip_512: v2_webli
vit_so400m_patch16_siglip_gap_256: v2_webli webli_i18n
vit_so400m_patch16_siglip_gap_384: v2_webli
vit_so400m_patch16_siglip_gap_512: v2_webli
vit_tiny_patch16_224: augreg_in21k augreg_in21k_ft_in1k
vit_tiny_patch16_384: augreg_in21k_ft_in1k
vit_wee_patch16_reg1_gap_256: sbb_in1k
vit_xsmall_patch16_clip_224: tinyclip_yfcc15m
vit_base_r50_s16_224: orig_in21k
vit_base_r50_s16_384: orig_in21k_ft_in1k
vit_large_r50_s32_224: augreg_in21k augreg_in21k_ft_in1k
vit_large_r50_s32_384: augreg_in21k_ft_in1k
vit_small_r26_s32_224: augreg_in21k augreg_in21k_ft_in1k
vit_small_r26_s32_384: augreg_in21k_ft_in1k
vit_tiny_r_s16_p8_224: augreg_in21k augreg_in21k_ft_in1k
vit_tiny_r_s16_p8_384: augreg_in21k_ft_in1k
deit3_base_patch16_224: fb_in1k fb_in22k_ft_in1k
deit3_base_patch16_384: fb_in1k fb_in22k_ft_in1k
deit3_huge_patch14_224: fb_in1k fb_in22k_ft_in1k
deit3_large_patch16_224: fb_in1k fb_in22k_ft_in1k
deit3_large_patch16_384: fb_in1k fb_in22k_ft_in1k
deit3_medium_patch16_224: fb_in1k fb_in22k_ft_in1k
deit3_small_patch16_224: fb_in1k fb_in22k_ft_in1k
deit3_small_patch16_384: fb_in1k fb_in22k_ft_in1k
deit_base_distilled_patch16_224: fb_in1k
deit_base_distilled_patch16_384: fb_in1k
deit_base_patch16_224: fb_in1k
deit_base_patch16_384: fb_in1k
deit_small_distilled_patch16_224: fb_in1k
deit_small_patch16_224: fb_in1k
deit_tiny_distilled_patch16_224: fb_in1k
deit_tiny_patch16_224: fb_in1k
beit_base_patch16_224: in22k_ft_in22k in22k_ft_in22k_in1k
beit_base_patch16_384: in22k_ft_in22k_in1k
beit_large_patch16_224: in22k_ft_in22k in22k_ft_in22k_in1k
beit_large_patch16_384: in22k_ft_in22k_in1k
beit_large_patch16_512: in22k_ft_in22k_in1k
beitv2_base_patch16_224: in1k_ft_in1k in1k_ft_in22k in1k_ft_in22k_in1k
beitv2_large_patch16_224: in1k_ft_in1k in1k_ft_in22k in1k_ft_in22k_in1k
eva02_base_patch14_224: mim_in22k
eva02_base_patch14_448: mim_in22k_ft_in1k mim_in22k_ft_in22k mim_in22k_ft_in22k_in1k
eva02_base_patch16_clip_224: merged2b
eva02_enormous_patch14_clip_224: laion2b laion2b_plus
eva02_large_patch14_224: mim_in22k mim_m38m
eva02_large_patch14_448: mim_in22k_ft_in1k mim_in22k_ft_in22k mim_in22k_ft_in22k_in1k mim_m38m_ft_in1k
  mim_m38m_ft_in22k mim_m38m_ft_in22k_in1k
eva02_large_patch14_clip_224: merged2b
eva02_large_patch14_clip_336: merged2b
eva02_small_patch14_224: mim_in22k
eva02_small_patch14_336: mim_in22k_ft_in1k
eva02_tiny_patch14_224: mim_in22k
eva02_tiny_patch14_336: mim_in22k_ft_in1k
eva_giant_patch14_224: clip_ft_in1k
eva_giant_patch14_336: clip_ft_in1k m30m_ft_in22k_in1k
eva_giant_patch14_560: m30m_ft_in22k_in1k
eva_giant_patch14_clip_224: laion400m merged2b
vit_7b_patch16_dinov3: lvd1689m sat493m
vit_base_patch16_dinov3: lvd1689m
vit_base_patch16_dinov3_qkvb: eupe_lvd1689m lvd1689m
vit_base_patch16_lingbot: robbyant
vit_base_patch16_rope_reg1_gap_256: sbb_in1k
vit_betwixt_patch16_rope_reg4_gap_256: sbb_in1k
vit_giant_patch16_lingbot: robbyant
vit_huge_plus_patch16_dinov3: lvd1689m
vit_huge_plus_patch16_dinov3_qkvb: lvd1689m
vit_large_patch16_dinov3: lvd1689m sat493m
vit_large_patch16_dinov3_qkvb: lvd1689m sat493m
vit_large_patch16_lingbot: robbyant
vit_medium_patch16_rope_reg1_gap_256: sbb_in1k
vit_mediumd_patch16_rope_reg1_gap_256: sbb_in1k
vit_small_patch16_dinov3: lvd1689m
vit_small_patch16_dinov3_qkvb: eupe_lvd1689m lvd1689m
vit_small_patch16_lingbot: robbyant
vit_small_plus_patch16_dinov3: lvd1689m
vit_small_plus_patch16_dinov3_qkvb: lvd1689m
vit_tiny_patch16_dinov3_qkvb: eupe_lvd1689m
aimv2_1b_patch14_224: apple_pt
aimv2_1b_patch14_336: apple_pt
aimv2_1b_patch14_448: apple_pt
aimv2_3b_patch14_224: apple_pt
aimv2_3b_patch14_336: apple_pt
aimv2_3b_patch14_448: apple_pt
aimv2_huge_patch14_224: apple_pt
aimv2_huge_patch14_336: apple_pt
aimv2_huge_patch14_448: apple_pt
aimv2_large_patch14_224: apple_pt apple_pt_dist
aimv2_large_patch14_336: apple_pt apple_pt_dist
aimv2_large_patch14_448: apple_pt
test_vit: r160_in1k
test_vit2: r160_in1k
test_vit3: r160_in1k
vit_base_mci_224: apple_mclip apple_mclip2_dfndr2b apple_mclip_lt
vit_base_patch16_radio_v3: c_radio
vit_base_patch16_rpn_224: sw_in1k
vit_dlittle_patch16_reg1_gap_256: sbb_nadamuon_in1k
vit_dpwee_patch16_reg1_gap_256: sbb_in1k sbb_nadamuon_in1k
vit_dwee_patch16_reg1_gap_256: sbb_in1k sbb_nadamuon_in1k
vit_giant_patch16_radio_v3: c_radio
vit_huge_patch16_radio_v3: c_radio
vit_huge_patch16_radio_v4: c_radio
vit_intern300m_patch14_448: ogvl_2pt5 ogvl_dist
vit_large_patch16_radio_v3: c_radio
vit_pwee_patch16_reg1_gap_256: sbb_in1k
vit_so150m2_patch16_reg1_gap_256: sbb_e200_in12k sbb_e200_in12k_ft_in1k
vit_so150m2_patch16_reg1_gap_384: sbb_e200_in12k_ft_in1k
vit_so150m2_patch16_reg1_gap_448: sbb_e200_in12k_ft_in1k
vit_so150m_patch16_reg4_gap_256: sbb_e250_in12k sbb_e250_in12k_ft_in1k
vit_so150m_patch16_reg4_gap_384: sbb_e250_in12k_ft_in1k
vit_so400m_patch16_radio_v4: c_radio
vit_base_patch16_rope_224: naver_in1k
vit_base_patch16_rope_ape_224: naver_in1k
vit_base_patch16_rope_mixed_224: naver_in1k
vit_base_patch16_rope_mixed_ape_224: naver_in1k
vit_base_patch16_sapiens2: fb
vit_large_patch16_rope_224: naver_in1k
vit_large_patch16_rope_ape_224: naver_in1k
vit_large_patch16_rope_mixed_224: naver_in1k
vit_large_patch16_rope_mixed_ape_224: naver_in1k
vit_pe_core_base_patch16_224: fb
vit_pe_core_gigantic_patch14_448: fb
vit_pe_core_large_patch14_336: fb
vit_pe_core_small_patch16_384: fb
vit_pe_core_tiny_patch16_384: fb
vit_pe_lang_gigantic_patch14_448: fb fb_tiling
vit_pe_lang_large_patch14_448: fb fb_tiling
vit_pe_spatial_base_patch16_512: fb
vit_pe_spatial_gigantic_patch14_448: fb
vit_pe_spatial_large_patch14_448: fb
vit_pe_spatial_small_patch16_512: fb
vit_pe_spatial_tiny_patch16_512: fb
vit_small_patch16_rope_224: naver_in1k
vit_small_patch16_rope_ape_224: naver_in1k
vit_small_patch16_rope_mixed_224: naver_in1k
vit_small_patch16_rope_mixed_ape_224: naver_in1k
"""

# Repositories of the Hugging Face hub in transformers' layout, and files of Google's.
_OTHERS = """
google/vit-base-patch16-224 google/vit-base-patch16-224-in21k google/vit-base-patch16-384
google/vit-base-patch32-224-in21k google/vit-base-patch32-384 google/vit-large-patch16-224
google/vit-large-patch16-224-in21k google/vit-large-patch16-384 google/vit-large-patch32-224-in21k
google/vit-large-patch32-384 google/vit-huge-patch14-224-in21k facebook/deit-tiny-patch16-224
facebook/deit-small-patch16-224 facebook/deit-base-patch16-224 facebook/deit-base-patch16-384
facebook/deit-tiny-distilled-patch16-224 facebook/deit-small-distilled-patch16-224
facebook/deit-base-distilled-patch16-224 facebook/deit-base-distilled-patch16-384 facebook/vit-msn-small
facebook/vit-msn-base facebook/vit-msn-large facebook/vit-msn-base-4 facebook/vit-msn-large-7 facebook/dino-vits16
facebook/dino-vits8 facebook/dino-vitb16 facebook/dino-vitb8 facebook/dinov2-small facebook/dinov2-base
facebook/dinov2-large facebook/dinov2-giant facebook/dinov2-small-imagenet1k-1-layer
facebook/dinov2-base-imagenet1k-1-layer facebook/dinov2-large-imagenet1k-1-layer
facebook/dinov2-giant-imagenet1k-1-layer facebook/dinov2-with-registers-small facebook/dinov2-with-registers-base
facebook/dinov2-with-registers-large facebook/dinov2-with-registers-giant
facebook/dinov2-with-registers-small-imagenet1k-1-layer facebook/dinov2-with-registers-base-imagenet1k-1-layer
facebook/dinov2-with-registers-large-imagenet1k-1-layer facebook/dinov2-with-registers-giant-imagenet1k-1-layer
facebook/dinov3-vits16-pretrain-lvd1689m facebook/dinov3-vits16plus-pretrain-lvd1689m
facebook/dinov3-vitb16-pretrain-lvd1689m facebook/dinov3-vitl16-pretrain-lvd1689m
facebook/dinov3-vith16plus-pretrain-lvd1689m facebook/dinov3-vit7b16-pretrain-lvd1689m
facebook/dinov3-vitl16-pretrain-sat493m facebook/dinov3-vit7b16-pretrain-sat493m facebook/data2vec-vision-base
facebook/data2vec-vision-base-ft1k facebook/data2vec-vision-large facebook/data2vec-vision-large-ft1k
facebook/ijepa_vith14_1k facebook/ijepa_vith16_1k facebook/ijepa_vith14_22k facebook/ijepa_vitg16_22k
microsoft/beit-base-patch16-224 microsoft/beit-base-patch16-384 microsoft/beit-base-patch16-224-pt22k
microsoft/beit-base-patch16-224-pt22k-ft22k microsoft/beit-large-patch16-224 microsoft/beit-large-patch16-384
microsoft/beit-large-patch16-512 microsoft/beit-large-patch16-224-pt22k microsoft/beit-large-patch16-224-pt22k-ft22k
gs://vit_models/imagenet21k/ViT-B_16.npz gs://vit_models/imagenet21k/ViT-B_32.npz
gs://vit_models/imagenet21k/ViT-L_16.npz gs://vit_models/imagenet21k/ViT-L_32.npz
gs://vit_models/imagenet21k/ViT-H_14.npz gs://vit_models/imagenet21k/R50+ViT-B_16.npz
gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz gs://vit_models/imagenet21k+imagenet2012/ViT-B_32.npz
gs://vit_models/imagenet21k+imagenet2012/ViT-L_16.npz gs://vit_models/imagenet21k+imagenet2012/ViT-L_32.npz
gs://vit_models/imagenet21k+imagenet2012/R50+ViT-B_16.npz gs://vit_models/sam/ViT-B_16.npz
gs://vit_models/sam/ViT-B_32.npz
"""


@cache
def timm_tags() -> dict[str, tuple[str, ...]]:
    """Return the tags of each architecture that timm publishes weights of."""
    tags: dict[str, tuple[str, ...]] = {}
    for line in _TIMM.replace("\n  ", " ").split("\n"):
        if line:
            architecture, _, words = line.partition(": ")
            tags[architecture] = tuple(words.split())
    return tags


def others() -> list[str]:
    """Return the names of repositories in transformers' layout, and of Google's files."""
    return [str(name) for name in _OTHERS.split()]
