"""Options about reasoning, as variables of real chat templates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from bestiary.errors import OptionError
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.conversation import Conversations
from bestiary.generation.conversation_reasoning import EFFORTS, reasoning_variables
from bestiary.generation.conversation_variables import inputs_of
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer

DEMO = Path(__file__).parents[3] / "plugins/text/demo/src/bestiary_demo/model"
KNOWN = {
    "enable_thinking": """
        Apertus-8B-Instruct Bielik-11B-v3.0-Instruct CohereForAI-c4ai-command-r7b-12-2024-tool_use GLM-4.6 GLM-4.7-Flash
        HuggingFaceTB-SmolLM3-3B NVIDIA-Nemotron-3-Nano-30B-A3B-BF16 Qwen-QwQ-32B Qwen-Qwen3-0.6B Qwen3.5-4B Reka-Edge
        Spark2.5 deepseek-ai-DeepSeek-R1-Distill-Qwen-32B deepseek-ai-DeepSeek-V3.1 deepseek-ai-DeepSeek-V3.2
        deepseek-ai-DeepSeek-V4 deepseek-ai-DeepSeek-V4-Flash-0731 google-gemma-4-31B-it
        google-gemma-4-31B-it-interleaved inclusionai-ling-3.0-flash llama-cpp-rwkv-world openbmb-MiniCPM5-1B
        poolside-Laguna-S-2.1 poolside-Laguna-XS-2.1 poolside-Laguna-XS.2
    """,
    "thinking": """
        Kimi-K3 deepseek-ai-DeepSeek-V3.1 deepseek-ai-DeepSeek-V3.2 deepseek-ai-DeepSeek-V4
        deepseek-ai-DeepSeek-V4-Flash-0731 ibm-granite-granite-3.3-2B-Instruct
    """,
    "reasoning_effort": """
        Cohere2MoE deepseek-ai-DeepSeek-V4 deepseek-ai-DeepSeek-V4-Flash-0731 openai-gpt-oss-120b tencent-Hy3
        upstage-Solar-Open-100B
    """,
    "thinking_budget": "ByteDance-Seed-OSS",
}


@pytest.fixture(scope="module")
def chats(shared_data: Path, folder_repository: Callable[..., Any]) -> Callable[[str], Conversations]:
    tokenizer = Tokenizer.from_repository(folder_repository(DEMO))

    def of(name: str) -> Conversations:
        source = (shared_data / f"chat_templates/llama.cpp/{name}.jinja").read_text()
        template = ChatTemplate(source, source=name, special_tokens=tokenizer.special_tokens)
        return Conversations(ChatEncoder(template, tokenizer), frozenset())

    return of


def test_the_variables_of_real_templates(shared_data: Path) -> None:
    found: dict[str, set[str]] = {variable: set() for variable in KNOWN}
    for file in (shared_data / "chat_templates/llama.cpp").glob("*.jinja"):
        for variable in inputs_of(file.read_text()) & set(KNOWN):
            found[variable].add(file.stem)
    assert found == {variable: set(names.split()) for variable, names in KNOWN.items()}


def test_a_switch_changes_the_prompt_wherever_it_is_known(chats: Callable[[str], Conversations]) -> None:
    """So that no template that only seems to know it is among them."""
    for name in sorted({*KNOWN["enable_thinking"].split(), *KNOWN["thinking"].split(), KNOWN["thinking_budget"]}):
        on, off = (chats(name).render("Hi", {"enable_thinking": value}) for value in (True, False))
        assert on != off, name


def test_prompts_are_those_of_transformers(shared_data: Path, chats: Callable[[str], Conversations]) -> None:
    reference = AutoTokenizer.from_pretrained(str(DEMO))
    for name, options, variables in (
        ("Qwen-Qwen3-0.6B", {"enable_thinking": False}, {"enable_thinking": False}),
        ("Qwen-Qwen3-0.6B", {"reasoning_effort": "none"}, {"enable_thinking": False}),
        ("Qwen-Qwen3-0.6B", {"reasoning_effort": "low"}, {"enable_thinking": True}),
        ("openai-gpt-oss-120b", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ("ibm-granite-granite-3.3-2B-Instruct", {"enable_thinking": True}, {"thinking": True}),
        ("deepseek-ai-DeepSeek-V3.1", {"enable_thinking": True}, {"thinking": True}),
        ("ByteDance-Seed-OSS", {"reasoning_effort": "minimal"}, {"thinking_budget": 512}),
        ("ByteDance-Seed-OSS", {"enable_thinking": False}, {"thinking_budget": 0}),
        ("google-gemma-4-31B-it", {"enable_thinking": True}, {"enable_thinking": True}),
    ):
        source = (shared_data / f"chat_templates/llama.cpp/{name}.jinja").read_text()
        expected = reference.apply_chat_template(
            [{"role": "user", "content": "Hi"}],
            chat_template=source,
            tokenize=False,
            add_generation_prompt=True,
            **variables,
        )
        assert chats(name).render("Hi", options) == expected, name


def test_where_the_template_knows_nothing_of_it(chats: Callable[[str], Conversations]) -> None:
    with pytest.raises(OptionError, match="knows nothing of enable_thinking") as raised:
        chats("openai-gpt-oss-120b").render("Hi", {"enable_thinking": True})
    assert raised.value.where == "its variables of that kind: reasoning_effort"
    with pytest.raises(OptionError, match="knows nothing of reasoning_effort") as raised:
        chats("MiniMax-M3").render("Hi", {"reasoning_effort": "low"})
    assert "thinking_mode" in str(raised.value) and "template_variables" in str(raised.value)
    with pytest.raises(OptionError) as raised:
        chats("Qwen3-Coder").request("Hi", {"enable_thinking": False})
    assert raised.value.where == "its variables of that kind: none" and raised.value.fix == "leave it out"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"enable_thinking": "yes"}, "True or False is due"),
        ({"enable_thinking": 1}, "True or False is due"),
        ({"reasoning_effort": "hihg"}, "'hihg'"),
        ({"reasoning_effort": True}, "no reasoning_effort True"),
        ({"reasoning_effort": ["low"]}, "no reasoning_effort"),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "contradicts"),
        ({"enable_thinking": False, "reasoning_effort": "low"}, "contradicts"),
        ({"enable_thinking": True, "template_variables": {"enable_thinking": False}}, "template_variables contradict"),
    ],
)
def test_values_that_are_refused(chats: Callable[[str], Conversations], options: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        chats("Qwen-Qwen3-0.6B").request("Hi", options)


def test_both_options_and_variables_may_agree(chats: Callable[[str], Conversations]) -> None:
    agreed = {"enable_thinking": False, "reasoning_effort": "none", "template_variables": {"enable_thinking": False}}
    assert chats("Qwen-Qwen3-0.6B").render("Hi", agreed).endswith("<think>\n\n</think>\n\n")
    assert chats("Qwen-Qwen3-0.6B").render("Hi", {"enable_thinking": None}).endswith("assistant\n")


def test_every_effort_has_variables() -> None:
    known = frozenset(("enable_thinking", "thinking", "thinking_budget", "reasoning_effort"))
    for effort in EFFORTS:
        made = reasoning_variables(known, None, effort)
        assert set(made) == known and made["reasoning_effort"] == effort
        assert made["enable_thinking"] is made["thinking"] is (effort != "none")
        assert made["thinking_budget"] % 512 == 0 or made["thinking_budget"] == -1


@pytest.mark.parametrize(
    ("template", "inputs"),
    [
        ("{{ a }}{% if b is true %}{{ m.c }}{% endif %}{{ 'd' }} e", {"a", "b", "m"}),
        ("{% set a = a if a is true else b %}{{ a }}", {"a", "b"}),
        ("{% set a = 1 %}{{ a }}{% for b in c %}{{ b }}{% endfor %}", {"c"}),
        ("{{ f(a=b, c=1) | g }}{{ x is h }}", {"f", "b", "x"}),
        ("{% macro f(a, b=c) %}{% endmacro %}{{ a }}{{ d }}", {"d"}),
        ("{# a #}{% raw %}{{ b }}{% endraw %}", set()),
        ("{{ '}}' + a }}", {"a"}),
        ("{{ a", set()),
        ("{{ 9**(9**9) + a }}", {"a"}),
        ("(" * 100_000 + "{{ a }}", {"a"}),
        ("{{ " + "(" * 50_000 + "a" + ")" * 50_000 + " }}", {"a"}),
    ],
)
def test_what_a_template_reads(template: str, inputs: set[str]) -> None:
    assert inputs_of(template) - {"if", "is", "else", "in"} == inputs
