"""Whole tiny models: networks built from packed checkpoints answer as transformers does with the same numbers."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.building import build_empty, make_plan, resident_bytes
from bestiary.checkpoints import safetensors_checkpoint
from bestiary.errors import ConfigError, MissingPlugin, OptionError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identified import identify_model
from bestiary.loading import load_weights
from bestiary.nn import CausalLM, Embedding, Experts, Linear
from bestiary.pulling import Puller, pull
from bestiary.records import PackingRequest, SourceOptions
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder
from bestiary_quant.checkpoints.checkpoint import QuantizedCheckpoint
from bestiary_quant.checkpoints.coded import CodedMatrix
from bestiary_quant.checkpoints.loading import load

PROMPT = [1, 5, 87, 3, 44, 130, 9]
GROUP = {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}, "targets": ["Linear"]}
METHODS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False, "lm_head": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
    "fp8": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [16, 16],
        "modules_to_not_convert": ["lm_head"],
    },
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int4": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": GROUP},
        "ignore": ["lm_head", "re:.*(a+)+$"],
        "kv_cache_scheme": None,
    },
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    "mlx": {"group_size": 32, "bits": 4},
}


LLAMA = decoder("LlamaForCausalLM", "llama")
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
MODELS = {
    **dict.fromkeys(METHODS, LLAMA),
    "mlx": {**LLAMA, "tie_word_embeddings": True},
    "gptq of experts": decoder("Qwen3MoeForCausalLM", "qwen3_moe", **EXPERTS),
}


@dataclass(frozen=True)
class Case:
    method: str
    folder: Path
    checkpoint: QuantizedCheckpoint
    plain: Mapping[str, torch.Tensor]
    """The numbers of all weights."""
    reference: Reference
    """transformers' model of these numbers."""


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path: Path, packing: ModuleType) -> Iterator[Case]:
    """A model whose projections are packed, in MLX its embedding too."""
    method = request.param.split()[0]
    folder, plain_folder = tmp_path / "packed", tmp_path / "plain"
    made = make_reference(MODELS[request.param], folder)
    stored: dict[str, torch.Tensor] = {}
    plain = load_file(folder / "model.safetensors")
    for name, tensor in plain.items():
        if "proj" not in name and (method != "mlx" or "embed" not in name):
            stored[name] = tensor
            continue
        tensors, plain[name] = getattr(packing, method)(tensor)
        stored.update({f"{name.removesuffix('weight')}{part}": value for part, value in tensors.items()})
    made.model.save_pretrained(plain_folder)
    save_file(plain, plain_folder / "model.safetensors", {"format": "pt"})
    save_file(stored, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": METHODS[method]}))
    reference = Reference(plain_folder, type(made.model).from_pretrained(plain_folder).eval())
    checkpoint = load(safetensors_checkpoint.open(Folder(folder, "test"), ("model.safetensors",)), METHODS[method])
    yield Case(method, folder, checkpoint, plain, reference)
    checkpoint.close()


def logits(model: CausalLM) -> torch.Tensor:
    caches = [SequenceCache(len(model.specs))]
    with torch.no_grad():
        return model.head(
            model.hidden(torch.tensor(PROMPT), make_batch(caches, [len(PROMPT)], "cpu", all_outputs=True))
        )


def test_a_packed_model_gives_the_logits_of_its_numbers(case: Case) -> None:
    identified = identify_model(str(case.folder), SourceOptions(), default_registry())
    model = build_empty(identified.architecture, identified.config)
    plan = make_plan(identified.architecture, identified.config, model, case.checkpoint)
    pull(Puller(model, plan, case.checkpoint, device=torch.device("cpu"), dtype=torch.float32))
    case.checkpoint.close()
    assert isinstance(model, CausalLM)
    plain = {
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and not isinstance(module.packed, CodedMatrix)
    }
    assert plain == (set() if case.method == "mlx" else {"lm_head"})
    held = [len(module.packed) for module in model.modules() if isinstance(module, Experts)]
    assert held == [3] * ("moe" in identified.config.model_type) * identified.config.num_hidden_layers
    embeddings = [module for module in model.modules() if isinstance(module, Embedding)]
    assert [module.packed is not None for module in embeddings] == [case.method == "mlx"]
    expected = case.reference.logits(PROMPT)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert resident_bytes(model) < 0.5 * sum(tensor.nbytes for tensor in case.plain.values())


def test_the_same_weights_as_plain_numbers(case: Case) -> None:
    assert set(case.checkpoint.names()) == set(case.plain)
    for name, expected in case.plain.items():
        assert torch.equal(case.checkpoint.read(name), expected), name
    assert {case.checkpoint.dtype(name) for name in case.plain} == {
        "F32",
        {"gptq": "GPTQ4", "awq": "AWQ4", "fp8": "FP8", "mlx": "AFQ4"}.get(case.method, case.method.upper()),
    }


# From config.json alone


def opened(folder: Path, **options: Any) -> CausalLM:
    registry = default_registry()
    identified = identify_model(str(folder), SourceOptions(), registry)
    model = load_weights(identified, registry, packing=PackingRequest(**options)).model
    assert isinstance(model, CausalLM)
    return model


def stated(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_what_the_configuration_names_reads_the_weights(case: Case) -> None:
    expected = case.reference.logits(PROMPT)
    torch.testing.assert_close(logits(opened(case.folder)), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("case", ["mlx"], indirect=True)
def test_mlx_states_it_under_a_key_of_its_own(case: Case) -> None:
    def rename(config: dict[str, Any]) -> None:
        config["quantization"] = config.pop("quantization_config")

    stated(case.folder, rename)
    assert isinstance(opened(case.folder).model.layers[0].mlp.up_proj.packed, CodedMatrix)


@pytest.mark.parametrize(
    ("case", "file"), [("gptq", "quantize_config.json"), ("awq", "quant_config.json")], indirect=["case"]
)
def test_older_checkpoints_state_it_beside_the_configuration(case: Case, file: str) -> None:
    aside = {name: value for name, value in METHODS[case.method].items() if name != "quant_method"}
    if case.method == "awq":
        aside["w_bit"] = aside.pop("bits")
    (case.folder / file).write_text(json.dumps(aside))
    stated(case.folder, lambda config: config.pop("quantization_config"))
    expected = case.reference.logits(PROMPT)
    torch.testing.assert_close(logits(opened(case.folder)), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("case", ["gptq"], indirect=True)
def test_a_request_may_name_what_is_there_and_nothing_else(case: Case) -> None:
    assert isinstance(opened(case.folder, quant="marlin").model.layers[0].mlp.up_proj.packed, CodedMatrix)
    assert isinstance(opened(case.folder, quant="GPTQ4").model.layers[0].mlp.up_proj.packed, CodedMatrix)
    for wrong in ({"quant": "q4k"}, {"quant": "awq"}, {"quant": 4}, {"topology": {"0": {"isq": "q8_0"}}}):
        with pytest.raises(OptionError) as caught:
            opened(case.folder, **wrong)
        told = str(caught.value)
        assert "gptq" in told and "config.json" in told and next(iter(wrong)) in told


@pytest.mark.parametrize("case", ["gptq"], indirect=True)
def test_unknown_methods_name_those_that_are_read(case: Case) -> None:
    stated(case.folder, lambda config: config["quantization_config"].update(quant_method="gguf9"))
    with pytest.raises(MissingPlugin, match="gguf9") as caught:
        opened(case.folder)
    assert "compressed-tensors" in str(caught.value)
    stated(case.folder, lambda config: config.update(quantization_config=[1]))
    with pytest.raises(ConfigError, match="an object is due"):
        opened(case.folder)
    stated(case.folder, lambda config: config.update(quantization_config={"some": "thing"}))
    with pytest.raises(MissingPlugin, match="without quant_method"):
        opened(case.folder)
