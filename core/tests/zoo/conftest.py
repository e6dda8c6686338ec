"""Three tiny models as folders, and a loader that knows what of it is still in memory."""

import json
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM

import bestiary
from bestiary.testing.tiny import decoder
from bestiary.zoo.estimate import measured

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@dataclass
class Loader:
    """`bestiary.load` that counts, notes what takes memory, and does as told before it begins."""

    loads: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda name: None
    networks: list[tuple[weakref.ref[Any], int]] = field(default_factory=list)
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, id: str, **options: Any) -> Any:
        name = Path(id).name
        with self.lock:
            self.loads.append(name)
        self.before(name)
        pipe = bestiary.load(id, progress=False, **options)
        with self.lock:
            self.networks.append((weakref.ref(pipe.model), measured(pipe) or 0))
        self.peak = max(self.peak, self.resident())
        return pipe

    def resident(self) -> int:
        """Bytes of the pipelines whose network still exists."""
        with self.lock:
            return sum(nbytes for network, nbytes in self.networks if network() is not None)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of three Llamas of one size with different random weights, over a tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = {}
    for seed, name in enumerate(("ant", "bee", "cat")):
        folder = tmp_path_factory.mktemp("zoo") / name
        torch.manual_seed(seed)
        config = decoder("LlamaForCausalLM", "llama", vocab_size=256, bos_token_id=None, eos_token_id=None)
        LlamaForCausalLM(LlamaConfig(**config, initializer_range=0.5)).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        backend.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        made[name] = str(folder)
    return made


@pytest.fixture(scope="session")
def nbytes(tiny: dict[str, str]) -> int:
    """What each of the three takes with 512 tokens of cache."""
    with bestiary.load(tiny["ant"], cache_tokens=512, progress=False) as pipe:
        found = measured(pipe)
    assert found
    return found


@pytest.fixture(scope="session")
def alone(tiny: dict[str, str]) -> Iterator[Callable[[str, str, int], tuple[int, ...]]]:
    """The greedy tokens of a model that was loaded by itself: (name, prompt, count)."""
    pipes = {name: bestiary.load(folder, cache_tokens=512, progress=False) for name, folder in tiny.items()}
    yield lambda name, prompt, count: pipes[name].generate(prompt, max_tokens=count, temperature=0.0).tokens
    for pipe in pipes.values():
        pipe.close()


@pytest.fixture
def two(tiny: dict[str, str], nbytes: int, loader: Loader) -> Iterator[bestiary.zoo.Zoo]:
    """A zoo of the three models with room for two of them."""
    from bestiary.zoo import Entry, Zoo

    entries = {name: Entry(folder, cache_tokens=512) for name, folder in tiny.items()}
    with Zoo(entries, memory=2 * nbytes + nbytes // 2, load=loader) as zoo:
        yield zoo


@pytest.fixture
def state() -> Callable[..., dict[str, str]]:
    """The state of each model of a zoo, by name."""
    return lambda zoo: {model.name: model.state for model in zoo.status()}


@pytest.fixture
def third_party() -> Path:
    """The folder with the plugin of strangers."""
    return Path(__file__).parents[3] / "tests/third_party"
