"""Both generations with pictures against transformers."""

from functools import partial
from typing import Any

from qwen_vl_reference import save

from bestiary.testing.seeing import SeeingCase, SeeingTests
from bestiary_qwen_vl.tiny import QWEN2_5_VL, QWEN2_VL

SIZES = ((30, 56), (64, 64), (17, 91))


def case(place: int, config: dict[str, Any]) -> SeeingCase:
    first = (50, 40) if config["vision_config"].get("temporal_patch_size") == 3 else (40, 30)
    return SeeingCase(
        f"{config['model_type']}-{place}",
        config,
        partial(save, config, min_pixels=500, max_pixels=4000),
        "<|vision_start|><|image_pad|><|vision_end|>",
        (first, *SIZES),
    )


class TestSeeing(SeeingTests):
    cases = [case(place, config) for those in (QWEN2_VL, QWEN2_5_VL) for place, config in enumerate(those)]
    tolerance = 1e-5
