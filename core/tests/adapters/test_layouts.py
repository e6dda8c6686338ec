"""The ways in which experts, names and weights of the model itself have been stored over the years."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.adapters.peft import read_peft
from bestiary.errors import WeightMismatch
from bestiary.sources.folder import Folder
from bestiary.testing.conformance import assert_close

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def write(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def changed(folder: Path, tensors: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], **config: Any) -> Any:
    """An adapter of PEFT with its tensors or its configuration written in another way."""
    stated = json.loads((folder / "adapter_config.json").read_text()) | config
    made = write(
        folder.with_name(f"{folder.name}-other"), tensors(load_file(folder / "adapter_model.safetensors")), stated
    )
    return read_peft(Folder(made, "it"))


def check(case: Any, adapter: Any, expected: torch.Tensor, tokens: list[int], leased: Callable) -> None:
    adapters, generations = leased(case, {"it": adapter})
    assert_close(case.logits([tokens], adapters, generations)[0], expected)
    assert not torch.allclose(expected, case.reference.logits(tokens), atol=1e-2)


@pytest.mark.filterwarnings("ignore")  # PEFT tells what it converts
def test_a_module_for_each_projection_of_each_expert(case_of: Callable, leased: Callable, tmp_path: Path) -> None:
    """As transformers 4 had it; PEFT converts such a file when it reads it, and stacks the experts when it saves."""
    from peft import PeftModel

    case = case_of("square")
    torch.manual_seed(0)
    tensors = {}
    for layer in range(3):
        for expert in range(6):
            for name, (out, inner) in {"gate_proj": (32, 64), "up_proj": (32, 64), "down_proj": (64, 32)}.items():
                path = f"base_model.model.model.layers.{layer}.mlp.experts.{expert}.{name}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(4, inner) * 0.3
                tensors[f"{path}.lora_B.weight"] = torch.randn(out, 4) * 0.3
    targets = ["gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": targets}
    folder = write(tmp_path / "old", tensors, config)
    model: Any = PeftModel.from_pretrained(copy.deepcopy(case.reference.model), str(folder)).eval()
    tokens = case.prompt(21)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens])).logits[0]
    model.save_pretrained(str(tmp_path / "new"))
    both = {alias: read_peft(Folder(tmp_path / alias, "it")) for alias in ("old", "new")}
    adapters, generations = leased(case, both)
    for logits in case.logits([tokens, tokens], adapters, generations):
        assert_close(logits, expected)


@pytest.mark.parametrize(("name", "version"), [("qwen", "0.18.1"), ("square", "0.19.0"), ("square", None)])
def test_experts_before_peft_0_19_1(
    name: str, version: str | None, case_of: Callable, train: Callable, leased: Callable
) -> None:
    """What multiplied the rows of a parameter is what multiplies its columns since, and the other way round."""
    case = case_of(name)
    trained = train(case, size=0.3, target_modules=["q_proj"], target_parameters=EXPERTS)

    def older(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = dict(tensors)
        for key, a in tensors.items():
            if "experts" in key and "lora_A" in key:
                other = key.replace("lora_A", "lora_B")
                b = tensors[other]
                factors = a.view(6, 4, a.shape[1]), b.view(b.shape[0], 4, 6)  # [expert, rank, in], [out, rank, expert]
                made[key] = factors[1].permute(2, 1, 0).reshape(24, b.shape[0])
                made[other] = factors[0].permute(2, 1, 0).reshape(a.shape[1], 24)
        return made

    adapter = changed(trained.folder, older, peft_version=version)
    tokens = case.prompt(21)
    check(case, adapter, trained.logits(tokens), tokens, leased)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
@pytest.mark.parametrize("suffix", [".weight", ".default.weight", ".other-name.weight"])
def test_names_of_tensors(prefix: str, suffix: str, case_of: Callable, train: Callable, leased: Callable) -> None:
    case = case_of("llama")
    trained = train(case, target_modules=["q_proj", "up_proj"], use_dora=True)

    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = {name: prefix + name.removeprefix("base_model.model.").removesuffix(".weight") for name in tensors}
        return {names[name] + suffix: tensor for name, tensor in tensors.items()}

    tokens = case.prompt(9)
    check(case, changed(trained.folder, renamed), trained.logits(tokens), tokens, leased)


def test_a_head_that_the_adapter_brings_along_must_be_the_model_s(
    case_of: Callable, train: Callable, leased: Callable
) -> None:
    """PEFT saves the weight of a head together with the adapter on it, and puts it into the model when it loads."""
    case = case_of("llama")
    trained = train(case, target_modules=["lm_head"])
    name = "base_model.model.lm_head.base_layer.weight"
    adapter = trained.read()
    assert torch.equal(adapter.copies["lm_head"], case.reference.model.lm_head.weight)
    leased(case, {"it": adapter})
    for other in (lambda head: head * 1.001, lambda head: head[:-1]):
        moved = changed(trained.folder, lambda tensors, other=other: tensors | {name: other(tensors[name])})
        with pytest.raises(WeightMismatch, match="weight of lm_head along, which is not that of the model"):
            case.adapters().load("it", moved)
    embedding = changed(
        trained.folder, lambda tensors: tensors | {"base_model.model.model.embed_tokens.weight": torch.ones(140, 64)}
    )
    with pytest.raises(WeightMismatch, match=r"weight of model\.embed_tokens along"):
        case.adapters().load("it", embedding)


class Bytes:
    """A weight in eight bits with a scale for each row."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.shape = (weight.shape[0], weight.shape[1])
        self.scale = weight.abs().amax(1, keepdim=True) / 127
        self.bytes = (weight / self.scale).round().to(torch.int8)
        self.nbytes = self.bytes.nbytes + self.scale.nbytes

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return (x.float() @ self.bytes.float().T * self.scale.T).to(x.dtype)

    def dequantize(self) -> torch.Tensor:
        return self.bytes * self.scale


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_packed(dora: bool, case_of: Callable, train: Callable, leased: Callable) -> None:
    """On packed weights an adapter does what PEFT does on the weights that they stand for."""
    case = copy.deepcopy(case_of("llama"))
    with torch.no_grad():
        for path, module in case.model.named_modules():
            if path.endswith("_proj"):
                module.hold(Bytes(module.weight))
                case.reference.model.get_submodule(path).weight.copy_(module.packed.dequantize())
    trained = train(case, target_modules=["q_proj", "o_proj", "up_proj"], use_dora=dora)
    tokens = case.prompt(13)
    check(case, trained.read(), trained.logits(tokens), tokens, leased)
