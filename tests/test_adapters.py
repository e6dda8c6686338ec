"""LoRA adapters from `load` to the answer, against PEFT."""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import bestiary
from bestiary.errors import CheckpointError, OptionError, RequestError

PROMPT = [3, 14, 15, 92, 65, 35]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, demo_tokenizer: Path) -> dict[str, Path]:
    """A tiny random Llama with the demo's tokenizer, and three adapters on it."""
    folder = tmp_path_factory.mktemp("adapters")
    torch.manual_seed(0)
    vocabulary = len(transformers.PreTrainedTokenizerFast(tokenizer_file=str(demo_tokenizer)))
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    base = folder / "base"
    transformers.LlamaForCausalLM(config).save_pretrained(base)
    (base / "tokenizer.json").write_bytes(demo_tokenizer.read_bytes())
    made = {"base": base}
    for index, name in enumerate(("one", "two", "three")):
        model = transformers.LlamaForCausalLM.from_pretrained(base)
        settings = peft.LoraConfig(
            r=2 + index, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_dora=index == 1
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PEFT asks transformers
            wrapped = peft.get_peft_model(model, settings)
        with torch.no_grad():
            for key, parameter in wrapped.named_parameters():
                if "lora_B" in key:
                    parameter.copy_(torch.randn_like(parameter) / 3)
        wrapped.save_pretrained(folder / name)
        made[name] = folder / name
    return made


@pytest.fixture(scope="module")
def demo_tokenizer() -> Path:
    import bestiary_demo

    return Path(bestiary_demo.__file__).parent / "model" / "tokenizer.json"


def expected(folders: dict[str, Path], name: str | None, count: int = 12) -> list[int]:
    """Greedy tokens of PEFT around transformers."""
    model: Any = transformers.LlamaForCausalLM.from_pretrained(folders["base"])
    if name is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(model, folders[name])
    with torch.no_grad():
        tokens = list(PROMPT)
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(PROMPT) :]


def ended_leases(pipe: Any) -> bool:
    """Whether, within a while, no request holds an adapter."""
    for _ in range(500):
        if not any(each.leases for each in pipe.adapters.status().generations):
            return True
        time.sleep(0.01)
    return False


def test_requests_of_one_batch_choose_their_adapters(folders: dict[str, Path]) -> None:
    adapters = {name: str(folders[name]) for name in ("one", "two", "three")}
    with bestiary.load(str(folders["base"]), dtype="float32", adapters=adapters) as pipe:
        for _ in range(2):  # the second time over prefixes that are in the cache: of the same adapter only
            streams = {
                name: pipe.stream(PROMPT, adapter=name, max_tokens=12, ignore_eos=True)
                for name in (None, "one", "two", "three")
            }
            for name, stream in streams.items():
                tokens = [token for chunk in stream for token in chunk.tokens]
                assert tokens == expected(folders, name), name
        assert ended_leases(pipe)


def test_adapters_come_and_go_while_requests_run(folders: dict[str, Path]) -> None:
    with bestiary.load(str(folders["base"]), dtype="float32") as pipe:
        pipe.adapters.load("mine", str(folders["one"]))
        running = pipe.stream(PROMPT, adapter="mine", max_tokens=12, ignore_eos=True)
        first = next(running)
        pipe.adapters.replace("mine", str(folders["three"]))
        later = pipe.generate(PROMPT, adapter="mine", max_tokens=12, ignore_eos=True)
        pipe.adapters.unload("mine")
        rest = [token for chunk in running for token in chunk.tokens]
        assert [*first.tokens, *rest] == expected(folders, "one")
        assert list(later.tokens) == expected(folders, "three")
        with pytest.raises(RequestError, match="no adapter"):
            pipe.generate(PROMPT, adapter="mine")
        assert list(pipe.generate(PROMPT, max_tokens=12, ignore_eos=True).tokens) == expected(folders, None)


def test_the_id_of_an_adapter_loads_its_base_with_it(folders: dict[str, Path]) -> None:
    with bestiary.load(str(folders["two"]), dtype="float32") as pipe:
        assert pipe.identified.adapter is not None
        assert list(pipe.generate(PROMPT, max_tokens=12, ignore_eos=True).tokens) == expected(folders, "two")
        base = pipe.generate(PROMPT, max_tokens=12, ignore_eos=True, adapter=None)
        assert list(base.tokens) == expected(folders, None)


def test_an_adapter_without_a_base_or_of_itself_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for base in ("", str(tmp_path)):
        (tmp_path / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": base})
        )
        with pytest.raises(CheckpointError):
            bestiary.load(str(tmp_path))


@pytest.mark.parametrize("adapters", [["one"], {"a": 3}, {"bad alias!": "x"}])
def test_malformed_options_are_refused(folders: dict[str, Path], adapters: Any) -> None:
    with pytest.raises(OptionError):
        bestiary.load(str(folders["base"]), dtype="float32", adapters=adapters)


@pytest.mark.parametrize("name", ["f32", "q8_0"])
def test_an_adapter_on_a_gguf_file_is_that_on_its_original(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The file has other names, and the rows of queries and keys in another order."""
    stories = shared_data / "weights/stories260K"
    model: Any = transformers.LlamaForCausalLM.from_pretrained(stories / "hf", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped: Any = peft.get_peft_model(
            model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj"])
        )
    with torch.no_grad():
        for key, parameter in wrapped.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key))) / 3)
    wrapped.save_pretrained(tmp_path / "adapter")
    prompt = [1, 403, 407, 261, 378]
    with torch.no_grad():
        due = wrapped(torch.tensor([prompt])).logits[0, -1]
        tokens = list(prompt)
        for _ in range(12):
            tokens.append(int(wrapped(torch.tensor([tokens])).logits[0, -1].argmax()))
    file = str(stories / f"gguf/stories260K-{name}.gguf")
    with bestiary.load(file, dtype="float32", adapters={"a": str(tmp_path / "adapter")}) as pipe:
        answer = pipe.generate(prompt, adapter="a", max_tokens=12, ignore_eos=True, logprobs=20)
        first = answer.logprobs[0]
        expected = due.log_softmax(-1)
        assert first.logprob == pytest.approx(float(expected[first.token]), abs=1e-3 if name == "f32" else 0.1)
        if name == "f32":
            assert list(answer.tokens) == tokens[len(prompt) :]
