"""X-LoRA and AnyMoE from `load` to the answer, against PEFT and against the experts alone."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import bestiary
from bestiary.adapters.anymoe_config import AnyMoeConfig, FineTuned
from bestiary.errors import OptionError, RequestError

PROMPT = [3, 14, 15, 92, 65, 35]
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def tokenizer() -> bytes:
    import bestiary_demo

    return (Path(bestiary_demo.__file__).parent / "model" / "tokenizer.json").read_bytes()


def random_llama(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=1536, **SIZES))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer())
    return folder


def greedy(model: Any, count: int = 10) -> list[int]:
    with torch.no_grad():
        tokens = list(PROMPT)
        for _ in range(count):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(PROMPT) :]


def test_an_xlora_model_answers_as_in_peft(tmp_path: Path) -> None:
    import peft

    base = random_llama(tmp_path / "base", 0)
    adapters = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PEFT asks transformers, and of options that it advises against
        for index in range(2):
            plain = transformers.LlamaForCausalLM.from_pretrained(base)
            lora = peft.get_peft_model(plain, peft.LoraConfig(r=4, lora_alpha=9, target_modules=["q_proj", "up_proj"]))
            with torch.no_grad():
                for key, parameter in lora.named_parameters():
                    if "lora_" in key:
                        parameter.copy_(torch.randn_like(parameter) / 3)
            lora.save_pretrained(tmp_path / f"adapter{index}")
            adapters[str(index)] = str(tmp_path / f"adapter{index}")
        plain = transformers.LlamaForCausalLM.from_pretrained(base, use_cache=False)
        config = peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=48, adapters=adapters, layerwise_scalings=True)
        mixed = peft.get_peft_model(plain, config, autocast_adapter_dtype=False).eval()
        with torch.no_grad():
            for key, parameter in mixed.named_parameters():
                if "classifier" in key:
                    parameter.normal_().mul_(0.3)
        folder = tmp_path / "xlora"
        mixed.save_pretrained(folder)
    for name, adapter in adapters.items():
        shutil.copytree(adapter, folder / name, dirs_exist_ok=True)
    # PEFT 0.21 leaves out layers of the classifier that are called as an adapter is.
    tensors = {key: value for key, value in mixed.state_dict().items() if "internal_xlora_classifier" in key}
    save_file(tensors, folder / "adapter_model.safetensors")
    for source, options in ((str(folder), {}), (str(base), {"xlora": str(folder)})):
        with bestiary.load(source, dtype="float32", **options) as pipe:
            streams = [pipe.stream(PROMPT, max_tokens=10, ignore_eos=True) for _ in range(3)]
            answers = [[token for chunk in stream for token in chunk.tokens] for stream in streams]
            assert answers == [greedy(mixed)] * 3
            with pytest.raises(RequestError, match="by itself"):
                pipe.generate(PROMPT, adapter="other")


def test_an_anymoe_model_learns_who_answers(tmp_path: Path) -> None:
    """Two experts, told apart by the prompts: afterwards each prompt is answered by its own."""
    base, other = random_llama(tmp_path / "base", 0), tmp_path / "other"
    torch.manual_seed(5)
    changed = transformers.LlamaForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for layer in changed.model.layers:
            layer.mlp.down_proj.weight.copy_(torch.randn_like(layer.mlp.down_proj.weight) / 4)
    changed.save_pretrained(other)
    (other / "tokenizer.json").write_bytes(tokenizer())
    sums = [f"What is {first} + {second}?" for first in range(3, 9) for second in (11, 27)]
    towns = [f"What is the capital of {land}?" for land in ("France", "Spain", "Italy", "Norway", "Peru", "Japan")]
    rows = [{"prompt": text, "expert": 0} for text in sums] + [{"prompt": text, "expert": 1} for text in towns]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    config = AnyMoeConfig(
        hidden_size=48,
        dataset_json=str(tmp_path / "rows.json"),
        prefix="model.layers",
        mlp="mlp",
        model_ids=(str(other),),
        expert_type=FineTuned(),
        lr=0.05,
        epochs=60,
        gate_model_id=str(tmp_path / "gates"),
    )
    options = {"max_tokens": 8, "ignore_eos": True}
    with (
        bestiary.load(str(base), dtype="float32", anymoe=config, progress=False) as mixed,
        bestiary.load(str(base), dtype="float32") as first,
        bestiary.load(str(other), dtype="float32") as second,
    ):
        for text, alone in (("What is 4 + 19?", first), ("What is the capital of Chile?", second)):
            tokens = mixed.tokenize(text)
            found = mixed.engine.score(tokens)[-1]
            near, far = (
                other.engine.score(tokens)[-1] for other in ((first, second) if alone is first else (second, first))
            )
            assert float((found - near).abs().max()) < float((found - far).abs().max())
        answer = mixed.generate("What is 4 + 19?", **options).tokens
    again = AnyMoeConfig(**{**vars(config), "training": False, "dataset_json": None})
    with bestiary.load(str(base), dtype="float32", anymoe=again) as loaded:
        assert loaded.generate("What is 4 + 19?", **options).tokens == answer


@pytest.mark.parametrize("options", [{"xlora": "a", "adapters": {"b": "c"}}, {"anymoe": {"layers": 3}}], ids=str)
def test_mixtures_that_do_not_go_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        bestiary.load("demo", progress=False, **options)
