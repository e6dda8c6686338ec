"""MXFP4 as gpt-oss stores its experts, and as single matrices.

    X_blocks [experts, out, groups, 16] uint8     X_scales [experts, out, groups] uint8     the weight is called X
    X.weight_packed or X.weight uint8             X.weight_scale uint8                      it is called X.weight

A stack comes as [experts, out, in], which transformers transposes (`integrations/mxfp4.py`).  What the codes stand for
is in `float4.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from bestiary_quant.checkpoints.float4 import float4_group
from bestiary_quant.checkpoints.settings import Settings
from bestiary_quant.checkpoints.stored import Group, Stored

_BLOCKS = {"_blocks": "_scales", ".blocks": ".scales"}


def groups(stored: Stored, settings: Settings) -> Iterator[Group]:
    """The packed weights.  Raises CheckpointError for tensors that do not agree."""
    for prefix, ending in stored.before(*_BLOCKS):
        name = prefix + ending
        yield float4_group(stored, prefix, name, stored.one_of([prefix + _BLOCKS[ending]], name, "scales"))
    for prefix, _ in stored.before(".weight_scale"):
        packed, plain = f"{prefix}.weight_packed", f"{prefix}.weight"
        name = packed if packed in stored else plain
        yield float4_group(stored, plain, name, f"{prefix}.weight_scale", inputs=[f"{prefix}.input_scale"])
