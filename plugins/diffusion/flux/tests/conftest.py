"""The names of the original release, at any size."""

from collections.abc import Callable
from typing import Any

import pytest

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="session")
def original() -> Callable[[dict[str, Any]], Shapes]:
    """Names and shapes of the tensors of the original release, by the configuration of diffusers."""
    return _original


def _original(c: dict[str, Any]) -> Shapes:
    head = c["attention_head_dim"]
    dim = c["num_attention_heads"] * head
    shapes: Shapes = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norms(name: str) -> None:
        shapes[f"{name}.query_norm.scale"] = shapes[f"{name}.key_norm.scale"] = (head,)

    linear("img_in", dim, c["in_channels"])
    linear("txt_in", dim, c["joint_attention_dim"])
    embedders = {"time_in": 256, "vector_in": c["pooled_projection_dim"]}
    for name, columns in {**embedders, **({"guidance_in": 256} if c["guidance_embeds"] else {})}.items():
        linear(f"{name}.in_layer", dim, columns)
        linear(f"{name}.out_layer", dim, dim)
    for number in range(c["num_layers"]):
        for stream in ("img", "txt"):
            block = f"double_blocks.{number}.{stream}"
            linear(f"{block}_mod.lin", 6 * dim, dim)
            linear(f"{block}_attn.qkv", 3 * dim, dim)
            linear(f"{block}_attn.proj", dim, dim)
            linear(f"{block}_mlp.0", 4 * dim, dim)
            linear(f"{block}_mlp.2", dim, 4 * dim)
            norms(f"{block}_attn.norm")
    for number in range(c["num_single_layers"]):
        block = f"single_blocks.{number}"
        linear(f"{block}.modulation.lin", 3 * dim, dim)
        linear(f"{block}.linear1", 7 * dim, dim)
        linear(f"{block}.linear2", dim, 5 * dim)
        norms(f"{block}.norm")
    linear("final_layer.linear", c.get("out_channels") or c["in_channels"], dim)
    linear("final_layer.adaLN_modulation.1", 2 * dim, dim)
    return shapes
