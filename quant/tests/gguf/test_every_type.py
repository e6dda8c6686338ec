"""A model in blocks of each type answers as transformers does with the same numbers in float32.

Here products are taken with plain activations, so that nothing but the order of sums differs; code that quantises
activations too has to state how far it may be from this.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.nn import Linear
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.blocks.types import TYPES

PROMPT = list(range(3, 40))
CONFIG = decoder(
    "Qwen3ForCausalLM",
    "qwen3",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    head_dim=64,
    tie_word_embeddings=False,
)
SCALES = {  # where the 16-bit scales of a block lie, of the types that the gguf package does not make
    **dict.fromkeys(("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"), (0,)),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
WITHOUT_REFERENCE = ("Q1_0", "Q8_1", "Q8_K")
"""Types of activations, and one that the gguf package does not read."""
KINDS = [kind.name for kind in TYPES.values() if kind.packed and kind.name not in WITHOUT_REFERENCE]


def blocks(values: numpy.ndarray, kind: Type) -> numpy.ndarray:
    """Rows in blocks of a type: of these values where gguf makes them, else of random codes about as large."""
    if kind.name not in SCALES and kind not in (Type.IQ1_M, Type.NVFP4):
        return gguf.quants.quantize(values, kind)
    length, nbytes = gguf.GGML_QUANT_SIZES[kind]
    choice = numpy.random.default_rng(len(values))
    data = choice.integers(0, 256, (values.size // length, nbytes), dtype=numpy.uint8)
    for place in SCALES.get(kind.name, ()):
        scales = (choice.standard_normal(len(data)) * 1e-3).astype(numpy.float16)
        data[:, place : place + 2] = scales.view(numpy.uint8).reshape(-1, 2)
    if kind == Type.IQ1_M:  # the four high bits of these bytes are one 16-bit float: exponents in the middle
        data[:, 55] = data[:, 55] & 0x0F | 0x10
    if kind == Type.NVFP4:  # four scales in 8 bits, small ones
        data[:, :4] = data[:, :4] % 0x20
    return data.reshape(len(values), -1)


@pytest.fixture
def whole(tmp_path: Path) -> Reference:
    return make_reference(CONFIG, tmp_path / "hf")


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_the_numbers(
    name: str, whole: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converting: ModuleType
) -> None:
    kind, plain = Type[name], {}
    add: Callable[..., None] = converting.add

    def packed(writer: gguf.GGUFWriter, stored: str, values: numpy.ndarray, wanted: Type) -> None:
        if values.ndim < 2:
            add(writer, stored, values, Type.F32)
            return
        data = blocks(numpy.ascontiguousarray(values), wanted)
        plain[stored] = torch.from_numpy(gguf.quants.dequantize(data, wanted)).view(values.shape)
        writer.add_tensor(stored, data, raw_dtype=wanted)

    monkeypatch.setattr(converting, "add", packed)
    (tmp_path / "gguf").mkdir()
    path = converting.convert(whole, tmp_path / "gguf/model.gguf", kind)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, CONFIG["num_hidden_layers"])
    with torch.no_grad():
        for parameter, tensor in whole.model.named_parameters():
            if (stored := table.get_name(parameter, try_suffixes=(".weight",))) in plain:
                assert bool(plain[stored].isfinite().all())
                tensor.copy_(plain[stored])
    expected = whole.logits(PROMPT)

    registry = default_registry()
    model: Any = load_weights(identify_model(str(path), SourceOptions(), registry), registry, dtype="float32").model
    linear = {part.packed.kind.name for part in model.modules() if isinstance(part, Linear)}
    assert linear == {name} and model.model.embed_tokens.packed.kind.name == name
    with torch.no_grad():
        batch = make_batch([SequenceCache(len(model.specs))], [len(PROMPT)], "cpu", all_outputs=True)
        made = model(torch.tensor(PROMPT), batch)
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
