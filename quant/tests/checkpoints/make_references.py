"""Makes data/*.safetensors: small packed weights and their numbers, both by the packages that define the formats.

    python make_references.py

in an environment with torch 2.13, transformers 5.23 and the packages below; `bare` imports single modules of those
whose other parts need a GPU or an older transformers.  Each file holds several cases: tensors `case:name` as a
checkpoint has them, `case:expected` with the numbers [out, in], and in the metadata the `quantization_config` of each.

    auto-gptq 0.7.1, gptqmodel 7.7.0, autoawq 0.2.9, bitsandbytes 0.50.2, compressed-tensors 0.20.0, hqq 0.2.8.post1,
    mlx 0.32.4, nvidia-modelopt 0.47.0
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "data"
Case = tuple[str, dict[str, Any], dict[str, torch.Tensor], torch.Tensor]


def bare(module: str) -> Any:
    """A module of a package whose `__init__` files are not run."""
    parts = module.split(".")
    spec = importlib.util.find_spec(parts[0])
    assert spec is not None and spec.submodule_search_locations, module
    folder = Path(next(iter(spec.submodule_search_locations)))
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if name not in sys.modules:
            sys.modules[name] = package = types.ModuleType(name)
            package.__spec__ = spec
            package.__path__ = [str(folder.joinpath(*parts[1:depth]))]
    return importlib.import_module(module)


def affine(
    rows: int, columns: int, bits: int, groups: int, least_zero: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random codes [out, in], scales [out, groups] and zeros [out, groups]; all products are exact in 16 bits."""
    codes = torch.randint(0, 1 << bits, (rows, columns))
    scales = torch.randint(1, 8, (rows, groups)) / 128
    zeros = torch.randint(least_zero, 1 << bits, (rows, groups))
    return codes, scales.float(), zeros.float()


def linear(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, order: torch.Tensor) -> torch.nn.Linear:
    """The layer whose weight these are, where `order` [in] says which group a column is in."""
    layer = torch.nn.Linear(codes.shape[1], codes.shape[0], bias=False)
    layer.weight.data = (codes - zeros[:, order]) * scales[:, order]
    return layer


def state(layer: torch.nn.Module, *names: str) -> dict[str, torch.Tensor]:
    return {f"layer.{name}": getattr(layer, name) for name in names}


def gptq() -> Iterator[Case]:
    old = bare("auto_gptq.nn_modules.qlinear.qlinear_cuda").QuantLinear
    for bits, size, act in (
        (2, 32, False),
        (3, 32, False),
        (4, 32, False),
        (4, -1, False),
        (4, 16, True),
        (8, 32, False),
    ):
        run = 64 if size == -1 else size
        codes, scales, zeros = affine(32, 64, bits, 64 // run, least_zero=1)  # 0 overflows in AutoGPTQ's packing
        order = torch.arange(64) // run
        order = order[torch.randperm(64)] if act else order
        layer = old(bits, size, 64, 32, False, kernel_switch_threshold=False)
        layer.pack(linear(codes, scales, zeros, order), scales.clone(), zeros.clone(), order.int())
        made = state(layer, "qweight", "qzeros", "scales", "g_idx")
        expected = layer(torch.eye(64)).T
        made["layer.scales"] = made["layer.scales"].half()
        config = {"quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": act, "sym": False}
        yield f"autogptq_{bits}_{size}{'_act' if act else ''}", config, made, expected

    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import FORMAT
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    for bits in (2, 3, 4, 8):
        codes, scales, zeros = affine(32, 64, bits, 2)
        zeros[:5] = 0
        order = (torch.arange(64) // 32)[torch.randperm(64)]
        layer = TorchLinear(
            bits=bits, group_size=32, sym=False, desc_act=True, in_features=64, out_features=32, format=FORMAT.GPTQ_V2
        )
        layer.pack(linear(codes, scales, zeros, order).half(), scales.half(), zeros, order.int())
        layer.qzero_format(format=2)
        layer.scales = layer.scales.float()
        expected = layer.dequantize_weight().T
        config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": True, "sym": False}
        names = ("qweight", "qzeros", "scales", "g_idx")
        made = {name: tensor.clone() for name, tensor in state(layer, *names).items()}
        made["layer.scales"] = made["layer.scales"].half()
        yield f"gptqmodel_v2_{bits}", {**config, "checkpoint_format": "gptq_v2"}, made, expected
        convert_gptq_v2_to_v1_format_module(layer, types.SimpleNamespace(bits=bits, pack_dtype=torch.int32))
        made = {**made, "layer.qzeros": layer.qzeros}
        yield f"gptqmodel_v1_{bits}", {**config, "checkpoint_format": "gptq"}, made, expected


def marlin() -> Iterator[Case]:
    made = bare("auto_gptq.nn_modules.qlinear.qlinear_marlin").QuantLinear
    for size in (64, -1):
        run = 128 if size == -1 else size
        codes, scales, _ = affine(128, 128, 4, 128 // run)
        order = torch.arange(128) // run
        plain = linear(codes, scales, torch.full_like(scales, 8), order)
        layer = made.__new__(made)  # its __init__ wants a GPU
        torch.nn.Module.__init__(layer)
        layer.infeatures, layer.outfeatures, layer.group_size, layer.bias = 128, 128, run, None
        layer.B, layer.s = torch.zeros(8, 256, dtype=torch.int32), torch.zeros(128 // run, 128, dtype=torch.half)
        layer.pack(types.SimpleNamespace(weight=plain.weight.half()), scales.half())
        config = {"quant_method": "gptq", "bits": 4, "group_size": size, "sym": True, "checkpoint_format": "marlin"}
        yield f"marlin_{size}", config, state(layer, "B", "s"), plain.weight.data.half()


def awq() -> Iterator[Case]:
    gemm, gemv = bare("awq.modules.linear.gemm"), bare("awq.modules.linear.gemv")
    for size in (32, -1):
        run = 64 if size == -1 else size
        codes, scales, zeros = affine(32, 64, 4, 64 // run)
        plain = linear(codes, scales, zeros, torch.arange(64) // run)
        layer = gemm.WQLinear_GEMM.from_linear(plain, 4, run, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
        config = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": True}
        expected = gemm.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, run).T
        yield f"gemm_{size}", config, state(layer, "qweight", "qzeros", "scales"), expected
    codes, scales, zeros = affine(16, 96, 4, 3)
    plain = linear(codes, scales, zeros, torch.arange(96) // 32)
    layer = gemv.WQLinear_GEMV.from_linear(plain, 4, 32, scales=scales, zeros=zeros)
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv", "zero_point": True}
    yield "gemv_32", config, state(layer, "qweight", "qzeros", "scales"), plain.weight.data


def bitsandbytes() -> Iterator[Case]:
    from bitsandbytes import functional as F
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    def plain(packed: torch.Tensor, held: Any) -> torch.Tensor:
        """Not F.dequantize_4bit: its CPU kernel takes wrong scales where a block goes on in the next row."""
        absmax = F.dequantize_blockwise(held.absmax, held.state2) + held.offset if held.nested else held.absmax
        codes = packed.view(torch.uint8).flatten()
        return _dequantize_4bit_compute(codes, absmax, held.code, held.blocksize, held.shape, torch.float32)

    cases = (
        ("nf4", (16, 128), 64, False),
        ("nf4", (16, 128), 64, True),
        ("fp4", (16, 128), 64, False),
        ("fp4", (24, 96), 64, True),
        ("nf4", (6, 33), 64, False),
        ("nf4", (5, 192), 128, False),
        ("nf4", (2, 8, 64), 64, False),
    )
    for kind, shape, block, nested in cases:
        packed, held = F.quantize_4bit(torch.randn(shape), blocksize=block, compress_statistics=nested, quant_type=kind)
        made = {f"layer.weight.{name}": tensor.clone() for name, tensor in held.as_dict(packed=True).items()}
        made["layer.weight"] = packed
        config = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": kind,
            "bnb_4bit_use_double_quant": nested,
        }
        name = f"{kind}_{'x'.join(map(str, shape))}_{block}{'_nested' if nested else ''}"
        yield name, config, made, plain(packed, held)
    packed, held = F.quantize_4bit(torch.randn(16, 64), quant_type="nf4", quant_storage=torch.bfloat16)
    made = {f"layer.weight.{name}": tensor.clone() for name, tensor in held.as_dict(packed=True).items()}
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    yield "nf4_in_bfloat16", config, {**made, "layer.weight": packed}, plain(packed, held)
    codes, sizes, _ = F.int8_vectorwise_quant(torch.randn(16, 64).half())
    made = {"layer.weight": codes, "layer.SCB": sizes, "layer.weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    yield "int8", config, made, F.int8_vectorwise_dequant(codes, sizes)


def compressed_tensors() -> Iterator[Case]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.compressors.nvfp4 import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from compressed_tensors.quantization.utils import calculate_qparams

    def case(name: str, rows: int = 16, columns: int = 64, activations: bool = False, **kind: Any) -> Case:
        weights = QuantizationArgs(**kind)
        inputs = (
            QuantizationArgs(num_bits=8, type=kind["type"], dynamic=True, strategy="token") if activations else None
        )
        scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
        weight = torch.randn(rows, columns)
        size = kind.get("group_size") or columns
        held = {"weight": weight}
        if kind.get("strategy") == "tensor":
            low, high = weight.min().reshape(1), weight.max().reshape(1)
        elif kind.get("strategy") == "block":
            tall, wide = kind["block_structure"]
            padded = torch.nn.functional.pad(weight, (0, -columns % wide, 0, -rows % tall))
            blocks = padded.view(len(padded) // tall, tall, -1, wide)
            low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
        else:
            parts = weight.view(rows, -1, size)
            low, high = parts.amin(-1), parts.amax(-1)
        if kind["type"] == "float" and kind["num_bits"] == 4 and size == 16:
            held["weight_global_scale"] = (448 * 6 / weight.abs().max()).reshape(1)
            held["weight_scale"], _ = calculate_qparams(low, high, weights, global_scale=held["weight_global_scale"])
        else:
            held["weight_scale"], zero = calculate_qparams(low, high, weights)
            if not weights.symmetric:
                held["weight_zero_point"] = zero
        form = infer_module_format(torch.nn.Linear, scheme)
        compressor = BaseCompressor.get_value_from_registry(form.value)
        made = compressor.compress(held, scheme)
        plain = compressor.decompress(made, scheme)["weight"]
        if form.value.startswith("nvfp4"):  # in bfloat16, above
            codes = unpack_fp4_from_uint8(made["weight_packed"], rows, columns, torch.float32)
            scale, factor = made["weight_scale"].float(), made["weight_global_scale"]
            plain = dequantize(codes, scale, args=weights, global_scale=factor)
        config = {
            "quant_method": "compressed-tensors",
            "format": form.value,
            "quantization_status": "compressed",
            "config_groups": {"group_0": {**json.loads(scheme.model_dump_json()), "targets": ["Linear"]}},
            "ignore": ["lm_head"],
        }
        return name, config, {f"layer.{key}": value.contiguous() for key, value in made.items()}, plain

    for bits in (2, 3, 4, 5, 8):
        yield case(f"pack_{bits}_group", type="int", num_bits=bits, strategy="group", group_size=32)
    yield case("pack_4_channel", columns=72, type="int", num_bits=4, strategy="channel")
    yield case("pack_4_asymmetric", rows=20, type="int", num_bits=4, strategy="group", group_size=16, symmetric=False)
    yield case("pack_3_asymmetric", rows=20, type="int", num_bits=3, strategy="group", group_size=16, symmetric=False)
    yield case("int_8_channel", activations=True, type="int", num_bits=8, strategy="channel")
    yield case("int_8_tensor", activations=True, type="int", num_bits=8, strategy="tensor")
    yield case("int_8_asymmetric", activations=True, type="int", num_bits=8, strategy="channel", symmetric=False)
    yield case("float_8_channel", activations=True, type="float", num_bits=8, strategy="channel")
    yield case("float_8_tensor", activations=True, type="float", num_bits=8, strategy="tensor")
    yield case(
        "float_8_block", 24, 40, activations=True, type="float", num_bits=8, strategy="block", block_structure=[16, 16]
    )
    yield case("nvfp4", type="float", num_bits=4, strategy="tensor_group", group_size=16)
    for bits in (4, 6, 8):
        yield case(
            f"mxfp{bits}", type="float", num_bits=bits, strategy="group", group_size=32, scale_dtype="torch.uint8"
        )


def hqq() -> Iterator[Case]:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    cases = (
        (8, 1, 64),
        (4, 1, 64),
        (4, 0, 64),
        (3, 1, 32),
        (3, 0, 32),
        (2, 1, 16),
        (1, 1, 64),
        (4, 1, 128),
        (4, 0, 24),
    )
    for bits, axis, size in cases:
        columns = 48 if size == 24 else 64
        layer = torch.nn.Linear(columns, 32, bias=False)
        config = BaseQuantizeConfig(nbits=bits, group_size=size, axis=axis)
        held = HQQLinear(layer, quant_config=config, compute_dtype=torch.float32, device="cpu")
        made = {f"layer.{name}": value.detach().clone() for name, value in held.state_dict().items()}
        stated = {"weight_quant_params": {"nbits": bits, "group_size": size, "axis": axis}}
        config = {"quant_method": "hqq", "quant_config": stated, "skip_modules": ["lm_head"]}
        yield f"{bits}_{axis}_{size}", config, made, held.dequantize()


def mlx() -> Iterator[Case]:
    import mlx.core as mx

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(numpy.array(array))

    for bits in (2, 3, 4, 5, 6, 8):
        weight = mx.array(numpy.random.randn(8, 64).astype(numpy.float16))
        codes, scales, biases = mx.quantize(weight, group_size=32, bits=bits)
        plain = mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=32, bits=bits)
        made = {"layer.weight": tensor(codes), "layer.scales": tensor(scales), "layer.biases": tensor(biases)}
        yield f"affine_{bits}", {"group_size": 32, "bits": bits}, made, tensor(plain)
    for mode, bits, size in (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)):
        weight = mx.array(numpy.random.randn(8, 64).astype(numpy.float32))
        codes, scales = mx.quantize(weight, mode=mode)
        plain = mx.dequantize(codes, scales, mode=mode).astype(mx.float32)
        made = {"layer.weight": tensor(codes), "layer.scales": tensor(scales)}
        yield mode, {"group_size": size, "bits": bits, "mode": mode}, made, tensor(plain)


def modelopt() -> Iterator[Case]:
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    held, scale, factor = NVFP4QTensor.quantize(torch.randn(16, 64), 16)
    made = {"layer.weight": held._quantized_data, "layer.weight_scale": scale, "layer.weight_scale_2": factor}
    made["layer.input_scale"] = torch.tensor(0.5)
    plain = held.dequantize(torch.float32, scale=scale, double_scale=factor, block_sizes={-1: 16})
    yield "nvfp4", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, made, plain


def main() -> None:
    for make in (gptq, marlin, awq, bitsandbytes, compressed_tensors, hqq, mlx, modelopt):
        torch.manual_seed(0)
        numpy.random.seed(0)
        tensors, configs = {}, {}
        for name, config, made, expected in make():
            tensors.update({f"{name}:{key}": value.detach().clone().contiguous() for key, value in made.items()})
            tensors[f"{name}:expected"] = expected.detach().clone().contiguous()
            configs[name] = config
        path = HERE / f"{make.__name__}.safetensors"
        save_file(tensors, path, {"cases": json.dumps(configs)})
        print(path.name, len(configs), path.stat().st_size)


if __name__ == "__main__":
    main()
