"""Published parameters and multiply-adds, to compare ours with."""

from dataclasses import dataclass, field
from typing import Any

PAPER = "Srinivas et al. 2021"


@dataclass(frozen=True)
class PaperCosts:
    """Published costs of a model.

    Attributes:
        input_size: Side of the square image.
        parameters: Number of parameters; None if not given.
        multiply_adds: Multiply-adds for one image.
        arguments: Arguments with which our model is the one that was counted.
        source: Publication that gives the numbers.
        contradiction: Why ours differs, where the source contradicts itself.
    """

    input_size: int
    parameters: int | None
    multiply_adds: int
    arguments: dict[str, Any] = field(default_factory=dict)
    source: str = PAPER
    contradiction: str = ""


_STRIDE = (
    "The paper's multiply-adds at 224 are those of a ResNet with the stride in the first 1x1 "
    "convolution (R50: 3.86G), its 85.4G at 1024 those of one with the stride in the 3x3 "
    "(R50: 4.09G)."
)
_S1 = "4.27G cannot be: the paper's T3 has three more blocks and 7.3G, which makes this model 5.4G."
_EVERYWHERE = {"se_everywhere": True}
_BROCK = "Brock et al. 2021 (NFNets, table 3), of the paper's SENets"
_LI = "Li et al. 2021 (BossNAS), of the paper's SENets"

PAPER_COSTS: dict[str, tuple[PaperCosts, ...]] = {
    "botnet50": (
        PaperCosts(224, 20_800_000, 3_790_000_000, contradiction=_STRIDE),
        PaperCosts(1024, 20_800_000, 102_980_000_000, {"img_size": 1024}),
    ),
    "botnet50_s1": (PaperCosts(224, 20_800_000, 4_270_000_000, contradiction=_S1),),
    # The text has squeeze-and-excitation in the convolutional blocks alone; these counts have it
    # in every block.
    "botnet_t3": (PaperCosts(224, 33_500_000, 7_300_000_000, _EVERYWHERE),),
    "botnet_t4": (PaperCosts(224, 54_700_000, 10_900_000_000, _EVERYWHERE),),
    "botnet_t5": (PaperCosts(256, 75_100_000, 19_300_000_000, _EVERYWHERE),),
    "botnet_t6": (PaperCosts(320, 53_900_000, 23_300_000_000, _EVERYWHERE),),
    "botnet_t7": (PaperCosts(384, 75_100_000, 45_800_000_000, _EVERYWHERE),),
    "senet_s0": (PaperCosts(224, 28_000_000, 4_090_000_000, source=_BROCK),),
    "senet_s1": (PaperCosts(224, None, 7_800_000_000, source=_LI),),
    "senet_s3": (PaperCosts(288, 66_600_000, 19_040_000_000, source=_BROCK),),
    "senet_s5": (PaperCosts(320, 115_200_000, 52_900_000_000, source=_BROCK),),
}
"""Published costs by model, as far as known."""
