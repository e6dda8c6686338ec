"""The Gemma generations against transformers."""

import bestiary_gemma
from bestiary.testing.conformance import ArchitectureTests

TURNS = [
    (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye"},
        ],
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    )
]


class TestGemma(ArchitectureTests):
    plugin = bestiary_gemma
    golden_chats = dict.fromkeys(("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"), TURNS)
