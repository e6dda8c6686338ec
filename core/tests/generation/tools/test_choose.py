"""Formats: shown by chat templates, and named."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bestiary.errors import InvalidPlugin, OptionError
from bestiary.generation.tools.choose import detect, form_of, make_parser, parser_of, tool_format
from bestiary.generation.tools.generic import GenericParser
from bestiary.generation.tools.offered import Offered
from bestiary.records import ToolFormat, resolve
from bestiary.registry import Plugin, Registry, default_registry

SPOKEN = {
    "hermes": """
        llama.cpp/Bielik-11B-v3.0-Instruct.jinja llama.cpp/MiMo-VL.jinja llama.cpp/Qwen-QwQ-32B.jinja
        llama.cpp/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja llama.cpp/Reka-Edge.jinja
        llama.cpp/NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja llama.cpp/Qwen-Qwen2.5-7B-Instruct.jinja
        llama.cpp/Qwen-Qwen3-0.6B.jinja llama.cpp/ibm-granite-granite-4.0.jinja llama.cpp/ibm-granite-granite-4.1.jinja
        mistral.rs/nousresearch_hermes2_pro_tool_use.jinja mistral.rs/nousresearch_hermes3_tool_use.jinja
        mistral.rs/smollm3.jinja
    """,
    "llama": """
        llama.cpp/meta-llama-Llama-3.1-8B-Instruct.jinja llama.cpp/meta-llama-Llama-3.2-3B-Instruct.jinja
        llama.cpp/meta-llama-Llama-3.3-70B-Instruct.jinja
        sglang/tool_chat_template_llama3.1_json.jinja
    """,
    "llama_tags": "llama.cpp/meetkai-functionary-medium-v3.1.jinja",
    "mistral": """
        llama.cpp/mistralai-Mistral-Nemo-Instruct-2407.jinja
        mistral-common/v2_spm.jinja mistral-common/v3.jinja mistral-common/v3_image.jinja mistral-common/v3_spm.jinja
        mistral-common/v7.jinja mistral-common/v7_spm.jinja
        mistral.rs/mistral_nemo_tool_call.jinja mistral.rs/mistral_small_tool_call.jinja
    """,
    "mistral_args": """
        llama.cpp/mistralai-Ministral-3-14B-Reasoning-2512.jinja llama.cpp/unsloth-mistral-Devstral-Small-2507.jinja
        mistral-common/v13.jinja mistral-common/v15_image_think.jinja
    """,
    "mistral_ids": """
        llama.cpp/Mistral-Small-3.2-24B-Instruct-2506.jinja
        mistral-common/v11.jinja mistral-common/v11_image_think.jinja
    """,
    "qwen_coder": """
        llama.cpp/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja llama.cpp/Qwen3-Coder.jinja llama.cpp/Qwen3.5-4B.jinja
        llama.cpp/StepFun3.5-Flash.jinja
    """,
    "deepseek": """
        llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja
        llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja llama.cpp/llama-cpp-deepseek-r1.jinja
        mistral.rs/deepseek_tool_call.jinja sglang/tool_chat_template_deepseekr1.jinja
        sglang/tool_chat_template_deepseekv3.jinja
    """,
    "deepseek_bare": "llama.cpp/deepseek-ai-DeepSeek-V3.1.jinja",
    "gemma4": "llama.cpp/google-gemma-4-31B-it-interleaved.jinja llama.cpp/google-gemma-4-31B-it.jinja",
    "glm": """
        llama.cpp/GLM-4.6.jinja
        llama.cpp/inclusionai-ling-3.0-flash.jinja llama.cpp/poolside-Laguna-S-2.1.jinja
        llama.cpp/poolside-Laguna-XS-2.1.jinja llama.cpp/poolside-Laguna-XS.2.jinja
    """,
    "glm_flat": "llama.cpp/GLM-4.7-Flash.jinja llama.cpp/Spark2.5.jinja",
    "harmony": "llama.cpp/openai-gpt-oss-120b.jinja",
}
"""All the templates with a format; every other one has none, or one for which there is no parser."""


RECORDS = sorted((record for record, _ in default_registry().records(ToolFormat)), key=lambda record: record.name)


def real_templates(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "chat_templates"
    return {
        file.relative_to(folder).as_posix(): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".jinja", ".json") and not {"samples", "expected"} & set(file.parts)
    }


def test_detect_on_real_templates(shared_data: Path) -> None:
    found = {name: detect(text) for name, text in real_templates(shared_data).items()}
    expected = {name: format for format, names in SPOKEN.items() for name in names.split()}
    assert {name: format.name for name, format in found.items() if format} == expected
    assert len(found) - len(expected) == 46


def test_no_two_formats_are_equal_for_a_real_template(shared_data: Path) -> None:
    """So that no name decides."""
    for name, text in real_templates(shared_data).items():
        shows = [
            record.priority
            for record in RECORDS
            if record.present
            and all(sign in text for sign in record.present)
            and not any(sign in text for sign in record.absent)
        ]
        assert shows.count(max(shows, default=0)) <= 1, name


@pytest.mark.parametrize("text", ["", "<tool_call>", "{{ messages }}", "<start_of_turn>", "\ufffd" * 9])
def test_detect_nothing(text: str) -> None:
    assert detect(text) is None


def test_function_gemma() -> None:
    assert detect("<start_function_call>call:") == tool_format("function_gemma")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_format_is_made_and_has_a_form(record: ToolFormat) -> None:
    parser = make_parser(record.name, [])
    assert isinstance(parser, resolve(record.parser))
    assert make_parser(record.name, None) is not make_parser(record.name, None)
    assert form_of(record) is resolve(record.form or "")


def test_without_a_format_calls_are_generic() -> None:
    assert isinstance(parser_of(None, []), GenericParser)
    assert form_of(None) is form_of(tool_format("generic"))


def test_unknown_format() -> None:
    with pytest.raises(OptionError, match="'hermess'") as raised:
        make_parser("hermess", None)
    assert raised.value.fix == "use 'hermes'"
    with pytest.raises(OptionError):
        make_parser(None, None)  # type: ignore[arg-type]


def brought(*formats: tuple[str, ToolFormat]) -> Registry:
    plugins = tuple(Plugin(owner, f"bestiary-{owner}", "1", owner, (format,)) for owner, format in formats)
    return replace(default_registry(), plugins=plugins)


def test_two_records_of_one_name_name_both_distributions() -> None:
    format = ToolFormat("toad", "toad:Parser", present=("croak",))
    registry = brought(("pond", format), ("lake", format))
    with pytest.raises(InvalidPlugin, match="bestiary-lake, bestiary-pond") as raised:
        tool_format("toad", registry)
    assert raised.value.fix == "pip uninstall bestiary-pond"
    with pytest.raises(InvalidPlugin, match="bestiary-lake, bestiary-pond"):
        detect("croak", registry)
    assert detect("silence", registry) is None


def test_priority_then_name_decides() -> None:
    low = ToolFormat("a", "m:P", present=("croak",), priority=-1)
    b, c = ToolFormat("b", "m:P", present=("croak",)), ToolFormat("c", "m:P", present=("croak",), absent=("hush",))
    for order in ((low, b, c), (c, b, low), (c, low, b)):
        registry = brought(*((record.name, record) for record in order))
        assert detect("croak", registry) == b
    assert detect("croak hush", brought(("c", c), ("a", low))) == low


def test_formats_are_listed_without_torch_and_without_their_parsers() -> None:
    program = (
        "import sys; from bestiary.generation.tools.choose import detect; "
        "assert detect('[TOOL_CALLS]').name == 'mistral'; "
        "assert not {'torch', 'bestiary.generation.tools.mistral'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


PROPERTIES = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "array": {"type": "array", "items": {"type": "string"}},
    "nullable": {"type": ["string", "null"]},
    "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "choice": {"enum": ["1", "2"]},
    "mixed": {"enum": ["a", None, 2]},
    "reference": {"$ref": "#/$defs/x"},
    "broken": 3,
}


@pytest.mark.parametrize(
    ("key", "text", "json_text"),
    [
        ("string", "12", '"12"'),
        ("string", "null", '"null"'),
        ("string", 'a"\n', '"a\\"\\n"'),
        ("integer", " 12\n", "12"),
        ("integer", "twelve", '"twelve"'),
        ("number", "1.50", "1.50"),
        ("number", "NaN", '"NaN"'),
        ("boolean", "True", "true"),
        ("boolean", "yes", '"yes"'),
        ("object", '{"a": [1]}', '{"a": [1]}'),
        ("object", "{'a': 1}", "\"{'a': 1}\""),
        ("array", "[1]", "[1]"),
        ("array", "[" * 200, '"' + "[" * 200 + '"'),
        ("nullable", "null", "null"),
        ("nullable", "12", '"12"'),
        ("either", "12", "12"),
        ("either", "{}", '"{}"'),
        ("either", "1.5", '"1.5"'),
        ("choice", "1", '"1"'),
        ("mixed", "null", "null"),
        ("mixed", "2", "2"),
        ("mixed", "true", '"true"'),
        ("reference", "1", "1"),
        ("broken", "x", '"x"'),
        ("unknown", "[1, 2]", "[1, 2]"),
        ("unknown", "a b", '"a b"'),
    ],
)
def test_argument_types(key: str, text: str, json_text: str) -> None:
    offered = Offered([{"type": "function", "function": {"name": "f", "parameters": {"properties": PROPERTIES}}}])
    assert offered.value("f", key, text) == json_text


def test_offered_names() -> None:
    assert Offered(None).accepts("any.name-1") and not Offered(None).names("any")
    assert not Offered(None).accepts("a b") and not Offered(None).accepts("a" * 65) and not Offered(None).accepts("a\n")
    tools: list[dict[str, object]] = [{"name": "f"}, {"function": {"name": "g"}}, {"name": "bad name"}, {"name": 3}, {}]
    offered = Offered(tools)
    assert [name for name in ("f", "g", "h", "bad name") if offered.accepts(name)] == ["f", "g"]
