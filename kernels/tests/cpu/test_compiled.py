"""torch.compile traces native operations whole, and what it makes is the same."""

import pytest
import torch
from packed_weights import make

from bestiary.nn import GatedMLP, RMSNorm
from bestiary.nn.operations import Operations, fit
from bestiary_kernels.cpu import operations
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.weights import PanelWeight

NATIVE = Operations(
    linear=operations.linear,
    embed=operations.embed,
    rms_norm=operations.rms_norm,
    add=operations.add,
    add_rms_norm=operations.add_rms_norm,
    gated=operations.gated,
    rotate=operations.rotate,
)


class Block(torch.nn.Module):
    """A norm and a feed-forward block, packed or plain."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.norm, self.mlp = RMSNorm(64), GatedMLP(64, 96, bias=True)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        for layer in (self.mlp.gate_proj, self.mlp.up_proj, self.mlp.down_proj):
            if packed:
                layer.hold(PanelWeight(make(library(), "Q8_0", layer.bias.numel(), layer.weight.shape[1]).panels))
        fit(self, NATIVE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total, normed = self.norm.after(x, x)
        return self.mlp.ops.add(total, self.mlp(normed))


@pytest.mark.parametrize("packed", (False, True))
@torch.no_grad()
def test_a_block_is_traced_whole(packed: bool) -> None:
    block, x = Block(packed), torch.randn(3, 64)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), block(x))


@torch.no_grad()
def test_shapes_are_known_without_computing() -> None:
    x, w = torch.randn(3, 64), torch.randn(64)
    cos = torch.randn(3, 1, 16)
    cases = {
        "rms_norm": (x, w, 1e-6, 0.0),
        "add": (x, x),
        "add_rms_norm": (x, x, w, 1e-6, 1.0),
        "gated": (x, x, "silu"),
        "rotate": (x.view(3, 4, 16), x.view(3, 4, 16), cos, cos, False),
        "plain_linear": (x, torch.randn(5, 64), None),
    }
    panels = make(library(), "Q8_0", 20, 64).panels
    told = (panels.type.number, 20)
    cases["linear"] = (x, panels.data, *told, 0, torch.randn(20))
    cases["rows"] = (torch.tensor([3, 1]), panels.data, *told, 64, 0, torch.bfloat16, 1.0)
    for name, arguments in cases.items():
        torch.library.opcheck(getattr(torch.ops.bestiary, name).default, arguments, test_utils="test_faketensor")
        torch.library.opcheck(getattr(torch.ops.bestiary, name).default, arguments, test_utils="test_schema")
