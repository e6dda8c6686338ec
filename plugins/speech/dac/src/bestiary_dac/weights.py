"""How checkpoints name and store the tensors: as transformers does, or as Descript's own code.

Parameters have transformers' names and are plain.  Descript's layout numbers the layers of each block, and stores every
convolution with weight norm (Salimans and Kingma 2016), a direction `weight_v` and a length `weight_g` for each row;
torch's newer spelling of that is `parametrizations.weight.original1` and `.original0`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import bestiary
from bestiary.weights import Rule
from bestiary_dac.settings import MOST_BLOCKS

if TYPE_CHECKING:
    import torch

    Kernel = Callable[[Any], int]
    """From a configuration to how many taps a convolution has."""

_UNIT = ("snake1", "conv1", "snake2", "conv2")
_KINDS = ("weight", "weight_g", "weight_v", "bias")
_KERNELS = {
    "**.res_unit*.conv1": 7,
    "**.res_unit*.conv2": 1,
    "encoder.conv1": 7,
    "encoder.conv2": 3,
    "decoder.conv1": 7,
    "decoder.conv2": 7,
    "**.in_proj": 1,
    "**.out_proj": 1,
}


def rules() -> tuple[Rule, ...]:
    """The weight map, of any number of blocks."""
    return (
        bestiary.rename("**.parametrizations.weight.original0", "**.weight_g"),
        bestiary.rename("**.parametrizations.weight.original1", "**.weight_v"),
        # The encoder is a list: a convolution, the blocks, Snake, a convolution.
        bestiary.rename("encoder.block.0.*", "encoder.conv1.*"),
        bestiary.rename("encoder.block.*.alpha", "encoder.snake1.alpha"),
        *(bestiary.rename(f"encoder.block.*.{kind}", f"encoder.conv2.{kind}") for kind in _KINDS),
        # So is the decoder.
        bestiary.rename("decoder.model.0.*", "decoder.conv1.*"),
        bestiary.rename("decoder.model.*.alpha", "decoder.snake1.alpha"),
        *(bestiary.rename(f"decoder.model.*.{kind}", f"decoder.conv2.{kind}") for kind in _KINDS),
        *(rule for index in range(MOST_BLOCKS) for rule in _block(index)),
        *(
            bestiary.rename(f"**.res_unit*.block.{place}.**", f"**.res_unit*.{name}.**")
            for place, name in enumerate(_UNIT)
        ),
        *(rule for path, taps in _KERNELS.items() for rule in _joined(path, _fixed(taps))),
        *(
            rule
            for index in range(MOST_BLOCKS)
            for way, layer in (("encoder", "conv1"), ("decoder", "conv_t1"))
            for rule in _joined(f"{way}.block.{index}.{layer}", _resampling(way, index))
        ),
        bestiary.map("**.weight_gv", _folded),
        bestiary.rename("**.weight_gv", "**.weight"),
    )


def _block(index: int) -> tuple[Rule, ...]:
    """Lists count their blocks from one, after the first convolution."""
    old, new = f"encoder.block.{index + 1}.block", f"encoder.block.{index}"
    up, made = f"decoder.model.{index + 1}.block", f"decoder.block.{index}"
    return (
        *(bestiary.rename(f"{old}.{unit}.block.**", f"{new}.res_unit{unit + 1}.block.**") for unit in range(3)),
        bestiary.rename(f"{old}.3.**", f"{new}.snake1.**"),
        bestiary.rename(f"{old}.4.**", f"{new}.conv1.**"),
        bestiary.rename(f"{up}.0.**", f"{made}.snake1.**"),
        bestiary.rename(f"{up}.1.**", f"{made}.conv_t1.**"),
        *(bestiary.rename(f"{up}.{unit + 2}.block.**", f"{made}.res_unit{unit + 1}.block.**") for unit in range(3)),
    )


def _fixed(taps: int) -> Kernel:
    return lambda config: taps


def _resampling(way: str, index: int) -> Kernel:
    def taps(config: Any) -> int:
        down = tuple(config.downsampling_ratios)
        ratios = down if way == "encoder" else tuple(config.get("upsampling_ratios") or down[::-1])
        return 2 * int(ratios[index])

    return taps


def _joined(path: str, taps: Kernel) -> tuple[Rule, ...]:
    """Directions [O, I, K] and lengths [O, 1, 1] of a convolution as one tensor [I + 1, K, O]."""

    def spread(lengths: torch.Tensor, config: Any) -> torch.Tensor:
        return lengths.squeeze((1, 2))[None, None].expand(1, taps(config), -1)

    return (
        bestiary.map(f"{path}.weight_v", lambda directions, config: directions.permute(1, 2, 0)),
        bestiary.map(f"{path}.weight_g", spread),
        bestiary.cat(f"{path}.weight_gv", f"{path}.weight_v", f"{path}.weight_g"),
    )


def _folded(joined: torch.Tensor, config: Any) -> torch.Tensor:
    """What `_joined` made as the plain weight [O, I, K], in float32."""
    directions, lengths = joined[:-1].float(), joined[-1, 0].float()
    scale = lengths / directions.square().sum((0, 1)).sqrt()
    return (directions * scale).permute(2, 0, 1)
