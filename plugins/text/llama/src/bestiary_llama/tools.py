"""How the Llamas and the Mistrals write calls of tools."""

from collections.abc import Sequence

import bestiary

_LLAMA, _MISTRAL = "bestiary.generation.tools.llama", "bestiary.generation.tools.mistral"
_PARSER = f"{_MISTRAL}:MistralParser"


@bestiary.hookimpl
def bestiary_tool_formats() -> Sequence[bestiary.ToolFormat]:
    return [
        bestiary.ToolFormat(
            "llama",
            f"{_LLAMA}:LlamaParser",
            ("<|start_header_id|>", '{"name": function name, "parameters": '),
            form=f"{_LLAMA}:OBJECTS",
            priority=-20,
        ),
        bestiary.ToolFormat(
            "llama_tags",
            f"{_LLAMA}:LlamaTagParser",
            ("<function=", "</function>", "<|python_tag|>"),
            form=f"{_LLAMA}:TAGS",
            priority=-30,
        ),
        # The tokenizers of versions 2 to 7 write a list, later ones a marker for each call, some with an id.
        bestiary.ToolFormat("mistral", _PARSER, ("[TOOL_CALLS]",), ("[ARGS]",), form=f"{_MISTRAL}:LIST"),
        bestiary.ToolFormat(
            "mistral_args", _PARSER, ("[TOOL_CALLS]", "[ARGS]"), ("[CALL_ID]",), form=f"{_MISTRAL}:ARGS"
        ),
        bestiary.ToolFormat("mistral_ids", _PARSER, ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"), form=f"{_MISTRAL}:IDS"),
    ]
