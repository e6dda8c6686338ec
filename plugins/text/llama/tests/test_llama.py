"""Llama, Mistral and Ministral against transformers."""

import bestiary_llama
from bestiary.testing.conformance import ArchitectureTests

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]
MISTRAL = [(TURNS, "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Bye [/INST]")]


class TestLlama(ArchitectureTests):
    plugin = bestiary_llama
    golden_chats = {
        "LlamaForCausalLM": [
            (
                TURNS,
                "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n",
            )
        ],
        "MistralForCausalLM": MISTRAL,
        "MinistralForCausalLM": MISTRAL,
        "Ministral3ForCausalLM": MISTRAL,
        "Mistral3ForConditionalGeneration": MISTRAL,
    }
