"""The Qwen families against transformers."""

import bestiary_qwen
from bestiary.testing.conformance import ArchitectureTests

CHATML = [
    (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    )
]


class TestQwen(ArchitectureTests):
    plugin = bestiary_qwen
    golden_chats = dict.fromkeys(
        ("Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"), CHATML
    )
