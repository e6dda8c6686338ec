"""What the tests of adapters share: tiny models of transformers, and adapters for them made and answered by PEFT."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary.adapters.laying import Base
from bestiary.adapters.peft import PeftAdapter, read_peft
from bestiary.adapters.residency import Adapters, Generation, Lease
from bestiary.building import build_empty, make_plan
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.identity import identify, read_evidence
from bestiary.nn import CausalLM
from bestiary.records import Architecture
from bestiary.registry import default_registry
from bestiary.sources.folder import Folder
from bestiary.testing.conformance import TinyCase
from bestiary.testing.headers import HeaderList
from bestiary.testing.reference import Reference, make_reference
from bestiary.testing.tiny import decoder

_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": decoder("LlamaForCausalLM", "llama", attention_bias=True),
    "tied": decoder("LlamaForCausalLM", "llama", tie_word_embeddings=True),
    "gemma": decoder("Gemma2ForCausalLM", "gemma2", head_dim=16, sliding_window=5, query_pre_attn_scalar=16),
    "qwen": decoder("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=48, **_MOE),
    # Twice the experts' width is that of the model: gate and up together are square.
    "square": decoder("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=16, **{**_MOE, "moe_intermediate_size": 32}),
}


@dataclass(frozen=True)
class Case:
    """A tiny model: as transformers has it, and the same weights in Bestiary with its plan."""

    reference: Reference
    model: CausalLM
    base: Base
    vocabulary: int

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        random = torch.Generator().manual_seed(seed)
        return torch.randint(3, self.vocabulary, (length,), generator=random).tolist()

    def adapters(self) -> Adapters:
        return Adapters(self.base)

    def logits(
        self, prompts: Sequence[list[int]], adapters: Adapters | None = None, generations: Sequence[Any] = ()
    ) -> list[torch.Tensor]:
        """All logits of several sequences, run as one flat batch, each with its generation."""
        counts = [len(prompt) for prompt in prompts]
        batch = make_batch([SequenceCache(len(self.model.specs)) for _ in prompts], counts, "cpu", all_outputs=True)
        tokens = torch.tensor([token for prompt in prompts for token in prompt])
        step = (
            adapters.step(list(zip(generations, counts, strict=True)), None) if adapters else contextlib.nullcontext()
        )
        with torch.inference_mode(), step:
            return list(torch.split(self.model(tokens, batch).float(), counts))


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The tiny model of a name, made once."""
    made: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            reference = make_reference(CONFIGS[name], folder)
            registry = default_registry()
            architecture, _ = identify(read_evidence(Folder(folder, name), registry), registry)
            made[name] = _case(architecture, reference, name)
        return made[name]

    return make


def _case(architecture: Architecture, reference: Reference, name: str) -> Case:
    tiny = TinyCase(architecture, reference)
    headers = HeaderList.from_folder(reference.folder)
    plan = make_plan(architecture, tiny.config, build_empty(architecture, tiny.config), headers)
    base = Base(tiny.model, plan, headers.shapes, torch.device("cpu"), torch.float32, name)
    return Case(reference, tiny.model, base, tiny.config.vocab_size)


@dataclass(frozen=True)
class Trained:
    """An adapter with random weights, and the model of transformers that PEFT laid it on."""

    folder: Path
    model: Any

    def read(self) -> PeftAdapter:
        return read_peft(Folder(self.folder, self.folder.name))

    @torch.no_grad()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        return self.model(input_ids=torch.tensor([tokens])).logits[0].float()  # type: ignore[no-any-return]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """Wraps a model with PEFT, gives the adapter random weights, saves it, and lets PEFT read what it wrote."""
    from peft import LoraConfig, PeftModel, get_peft_model

    count = 0

    def make(
        case: Case, seed: int = 0, size: float = 0.1, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Trained:
        nonlocal count
        count += 1
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            # PEFT tells of patterns without a module, of tied weights and of what its dependencies will rename.
            warnings.simplefilter("ignore")
            plain = copy.deepcopy(case.reference.model).to(dtype)
            config = LoraConfig(**{"r": 4, "lora_alpha": 6, **options})
            model = get_peft_model(copy.deepcopy(plain), config, autocast_adapter_dtype=False)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_magnitude" in name:
                        parameter.mul_(1 + size * torch.randn_like(parameter))
                    elif "lora_" in name:
                        parameter.copy_(size * torch.randn_like(parameter))
            folder = tmp_path / f"adapter{count}"
            model.save_pretrained(folder)
            # PEFT sorts the patterns when it writes them, and the first that matches counts.
            model = PeftModel.from_pretrained(plain, folder, autocast_adapter_dtype=False).eval()
        return Trained(folder, model)

    return make


@pytest.fixture
def leased() -> Iterator[Callable[..., tuple[Adapters, list[Generation]]]]:
    """Loads adapters on a model and leases each; at the end all is unloaded, and no layer is changed any more."""
    used: list[tuple[Case, Adapters, list[Lease]]] = []

    def make(case: Case, named: Mapping[str, PeftAdapter]) -> tuple[Adapters, list[Generation]]:
        adapters = case.adapters()
        used.append((case, adapters, []))
        for alias, adapter in named.items():
            adapters.load(alias, adapter)
            used[-1][2].append(adapters.lease(alias))
        return adapters, [lease.generation for lease in used[-1][2]]

    yield make
    for case, adapters, leases in used:
        for lease in leases:
            lease.release()
        for info in adapters.status().adapters:
            adapters.unload(info.alias)
        assert not any(getattr(module, "adapter", None) for module in case.model.modules())
