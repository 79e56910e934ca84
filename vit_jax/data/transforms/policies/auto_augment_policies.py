"""AutoAugment's searched policies: 25 pairs of operations, each with its probability and level.

One pair a line. In the policies of the paper, operations without a strength have level 0.

Reference: Cubuk et al. 2018, AutoAugment, arXiv 1805.09501.
"""

Pair = tuple[tuple[str, float, int], tuple[str, float, int]]


def _pairs(text: str) -> tuple[Pair, ...]:
    """Return what lines such as `equalize 0.8 1; shear_y 0.8 4` say."""
    pairs = []
    for line in text.strip().splitlines():
        first, second = (step.split() for step in line.split(";"))
        pairs.append(tuple((name, float(chance), int(level)) for name, chance, level in (first, second)))
    return tuple(pairs)


# Of TensorFlow's EfficientNet.
V0 = _pairs(
    """
        equalize 0.8 1; shear_y 0.8 4
        color 0.4 9; equalize 0.6 3
        color 0.4 1; rotate 0.6 8
        solarize 0.8 3; equalize 0.4 7
        solarize 0.4 2; solarize 0.6 2
        color 0.2 0; equalize 0.8 8
        equalize 0.4 8; solarize_add 0.8 3
        shear_x 0.2 9; rotate 0.6 8
        color 0.6 1; equalize 1 2
        invert 0.4 9; rotate 0.6 0
        equalize 1 9; shear_y 0.6 3
        color 0.4 7; equalize 0.6 0
        posterize 0.4 6; autocontrast 0.4 7
        solarize 0.6 8; color 0.6 9
        solarize 0.2 4; rotate 0.8 9
        rotate 1 7; translate_y_rel 0.8 9
        shear_x 0 0; solarize 0.8 4
        shear_y 0.8 0; color 0.6 4
        color 1 0; rotate 0.6 2
        equalize 0.8 4; equalize 0 8
        equalize 1 4; autocontrast 0.6 2
        shear_y 0.4 7; solarize_add 0.6 7
        posterize 0.8 2; solarize 0.6 10
        solarize 0.6 8; equalize 0.6 1
        color 0.8 6; rotate 0.4 5
    """
)

# For ImageNet, in the paper.
ORIGINAL = _pairs(
    """
        posterize_original 0.4 8; rotate 0.6 9
        solarize 0.6 5; autocontrast 0.6 5
        equalize 0.8 8; equalize 0.6 3
        posterize_original 0.6 7; posterize_original 0.6 6
        equalize 0.4 7; solarize 0.2 4
        equalize 0.4 4; rotate 0.8 8
        solarize 0.6 3; equalize 0.6 7
        posterize_original 0.8 5; equalize 1 2
        rotate 0.2 3; solarize 0.6 8
        equalize 0.6 8; posterize_original 0.4 6
        rotate 0.8 8; color 0.4 0
        rotate 0.4 9; equalize 0.6 2
        equalize 0 7; equalize 0.8 8
        invert 0.6 4; equalize 1 8
        color 0.6 4; contrast 1 8
        rotate 0.8 8; color 1 2
        color 0.8 8; solarize 0.8 7
        sharpness 0.4 7; invert 0.6 8
        shear_x 0.6 5; equalize 1 9
        color 0.4 0; equalize 0.6 3
        equalize 0.4 7; solarize 0.2 4
        solarize 0.6 5; autocontrast 0.6 5
        invert 0.6 4; equalize 1 8
        color 0.6 4; contrast 1 8
        equalize 0.8 8; equalize 0.6 3
    """
)

# For CIFAR-10, in the paper.
CIFAR10 = _pairs(
    """
        invert 0.1 0; contrast 0.2 6
        rotate 0.7 2; translate_x 0.3 9
        sharpness 0.8 1; sharpness 0.9 3
        shear_y 0.5 8; translate_y 0.7 9
        autocontrast 0.5 0; equalize 0.9 0
        shear_y 0.2 7; posterize 0.3 7
        color 0.4 3; brightness 0.6 7
        sharpness 0.3 9; brightness 0.7 9
        equalize 0.6 0; equalize 0.5 0
        contrast 0.6 7; sharpness 0.6 5
        color 0.7 7; translate_x 0.5 8
        equalize 0.3 0; autocontrast 0.4 0
        translate_y 0.4 3; sharpness 0.2 6
        brightness 0.9 6; color 0.2 8
        solarize 0.5 2; invert 0 0
        equalize 0.2 0; autocontrast 0.6 0
        equalize 0.2 0; equalize 0.6 0
        color 0.9 9; equalize 0.6 0
        autocontrast 0.8 0; solarize 0.2 8
        brightness 0.1 3; color 0.7 0
        solarize 0.4 5; autocontrast 0.9 0
        translate_y 0.9 9; translate_y 0.7 9
        autocontrast 0.9 0; solarize 0.8 3
        equalize 0.8 0; invert 0.1 0
        translate_y 0.7 9; autocontrast 0.9 0
    """
)

# For SVHN, in the paper.
SVHN = _pairs(
    """
        shear_x 0.9 4; invert 0.2 0
        shear_y 0.9 8; invert 0.7 0
        equalize 0.6 0; solarize 0.6 6
        invert 0.9 0; equalize 0.6 0
        equalize 0.6 0; rotate 0.9 3
        shear_x 0.9 4; autocontrast 0.8 0
        shear_y 0.9 8; invert 0.4 0
        shear_y 0.9 5; solarize 0.2 6
        invert 0.9 0; autocontrast 0.8 0
        equalize 0.6 0; rotate 0.9 3
        shear_x 0.9 4; solarize 0.3 3
        shear_y 0.8 8; invert 0.7 0
        equalize 0.9 0; translate_y 0.6 6
        invert 0.9 0; equalize 0.6 0
        contrast 0.3 3; rotate 0.8 4
        invert 0.8 0; translate_y 0 2
        shear_y 0.7 6; solarize 0.4 8
        invert 0.6 0; rotate 0.8 4
        shear_y 0.3 7; translate_x 0.9 3
        shear_x 0.1 6; invert 0.6 0
        solarize 0.7 2; translate_y 0.6 7
        shear_y 0.8 4; invert 0.8 0
        shear_x 0.7 9; translate_y 0.8 3
        shear_y 0.8 5; autocontrast 0.7 0
        shear_x 0.7 2; invert 0.1 0
    """
)
