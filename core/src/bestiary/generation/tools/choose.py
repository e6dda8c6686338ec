"""Which parser reads what a model writes: told from its chat template, or named."""

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import OptionError, shown
from bestiary.generation.tools.offered import Offered
from bestiary.generation.tools.parser import ToolParser
from bestiary.nearest import nearest
from bestiary.records import resolve

_HERE = "bestiary.generation.tools"

FORMATS = {
    "deepseek": f"{_HERE}.deepseek:DeepSeekParser",
    "function_gemma": f"{_HERE}.gemma:FunctionGemmaParser",
    "gemma3": f"{_HERE}.gemma:Gemma3Parser",
    "gemma4": f"{_HERE}.gemma:Gemma4Parser",
    "generic": f"{_HERE}.generic:GenericParser",
    "glm": f"{_HERE}.glm:GlmParser",
    "harmony": f"{_HERE}.harmony:HarmonyParser",
    "hermes": f"{_HERE}.hermes:HermesParser",
    "llama": f"{_HERE}.llama:LlamaParser",
    "mistral": f"{_HERE}.mistral:MistralParser",
    "qwen_coder": f"{_HERE}.qwen_coder:QwenCoderParser",
}
"""Each format with the class of its parser, which is made from an `Offered`."""

# All of `present` and none of `absent` must be in the template; the first line that fits decides.
_SIGNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|message|>", "functions."), ()),
    ("gemma4", ("<|tool_call>", "call:"), ()),
    ("function_gemma", ("<start_function_call>", "call:"), ()),
    ("deepseek", ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"), ()),
    ("mistral", ("[TOOL_CALLS]",), ()),
    ("glm", ("<tool_call>", "<arg_key>", "<arg_value>"), ()),
    ("qwen_coder", ("<tool_call>", "<function=", "<parameter="), ()),
    ("hermes", ("<tool_call>", "</tool_call>", "name", "arguments"), ("<tool_calls>", "<invoke")),
    ("llama", ("<|start_header_id|>", '{"name": function name, "parameters": '), ()),
    ("llama", ("<function=", "</function>", "<|python_tag|>"), ()),
)


def detect(chat_template: str) -> str | None:
    """The format of `FORMATS` that a chat template speaks, or None.

    None does not mean that the model cannot call: a template may leave tools to the system prompt, as that of Gemma 3
    does, or speak a format for which there is no parser.
    """
    for name, present, absent in _SIGNS:
        if all(sign in chat_template for sign in present) and not any(sign in chat_template for sign in absent):
            return name
    return None


def make_parser(name: str, tools: Sequence[Mapping[str, Any]] | None) -> ToolParser:
    """A parser for one answer.  OptionError for a format that does not exist.

    Only calls of these tools are calls, with their argument types; of None, any call is one.
    """
    if name not in FORMATS:
        near = nearest(name, FORMATS, 1) if isinstance(name, str) else ()
        fix = f"use {near[0]!r}" if near else f"use one of {', '.join(FORMATS)}"
        raise OptionError(f"There is no tool-call format {shown(name)}.", fix=fix)
    parser: ToolParser = resolve(FORMATS[name])(Offered(tools))
    return parser
