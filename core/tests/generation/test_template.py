"""ChatTemplate: where templates come from, and text equal to transformers."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bestiary import records
from bestiary.errors import OptionError, RequestError, TemplateError, TemplateRefusal
from bestiary.generation.template import RESERVED, ChatTemplate
from bestiary.generation.template_worker import TemplateWorkers

NOW = datetime(2025, 7, 10, 12, 0)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather of a "city" <now> & later: 你好',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": ["integer", "null"], "minimum": 1},
            },
            "required": ["city"],
        },
    },
}
CALL = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}
TEXT_CALL = {**CALL, "function": {"name": "get_weather", "arguments": '{"city": "Zürich"}'}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"t": 21.5}'}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [user("Hello, how are you? 你好 <b>&</b> 😀")],
    "turns": [user(" Hi "), assistant("  Hello.\n"), user("And now?")],
    "system": [SYSTEM, user("Hi"), assistant("Hello."), user("More?")],
    "call": [user("Weather?"), assistant("", tool_calls=[CALL]), ANSWER, assistant("21.5 degrees."), user("Thanks")],
    "text call": [SYSTEM, user("Weather?"), assistant("Let me see.", tool_calls=[TEXT_CALL]), ANSWER],
    "reasoning": [user("2+2?"), assistant("4", reasoning_content="Two and two."), user("3+3?")],
    "think tags": [user("2+2?"), assistant("<think>\nTwo and two.\n</think>\n\n4"), user("3+3?"), assistant("6")],
    "parts": [user([{"type": "text", "text": "What is"}, {"type": "image"}, {"type": "text", "text": "this?"}])],
    "odd": [assistant("I begin."), assistant("Twice."), {"role": "stranger", "content": "?"}],
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"add_generation_prompt": True},
    {"tools": [WEATHER], "add_generation_prompt": True},
    {"enable_thinking": False, "documents": [{"title": "A", "text": "Facts."}]},
)


@pytest.fixture(scope="module")
def workers() -> Iterator[TemplateWorkers]:
    pool = TemplateWorkers()
    yield pool
    pool.close()


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[tuple[int, int]]]]:
    """transformers' rendering of one conversation, at the time NOW."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls(*NOW.timetuple()[:6])

    monkeypatch.setattr(utils, "datetime", Clock)

    def render(jinja: str, messages: Any, **options: Any) -> tuple[str, list[tuple[int, int]]]:
        texts, spans = utils.render_jinja_template([messages], chat_template=jinja, **{**SPECIAL, **options})
        return texts[0], spans[0] if spans else []

    return render


def sources(shared_data: Path) -> Iterator[tuple[str, str]]:
    folder = shared_data / "chat_templates"
    for path in sorted(folder.rglob("*.jinja")):
        yield path.relative_to(folder).as_posix(), path.read_text("utf-8")
    for path in sorted((folder / "mistral.rs").glob("*.json")):
        yield path.relative_to(folder).as_posix(), json.loads(path.read_text("utf-8"))["chat_template"]


def test_every_template_renders_as_in_transformers(
    shared_data: Path, reference: Callable[..., Any], workers: TemplateWorkers
) -> None:
    compared = refused = 0
    for name, jinja in sources(shared_data):
        template = ChatTemplate(jinja, source=name, special_tokens=SPECIAL, now=NOW, workers=workers)
        for chat, messages in CHATS.items():
            for variant in VARIANTS if chat in ("system", "reasoning") else VARIANTS[:2]:
                try:
                    expected = reference(jinja, messages, **variant)[0]
                except Exception as error:
                    with pytest.raises(TemplateError) as caught:
                        template.render(messages, **variant)
                    if type(error).__name__ == "TemplateError":
                        assert isinstance(caught.value, TemplateRefusal) and caught.value.message == str(error)
                    refused += 1
                    continue
                assert template.render(messages, **variant) == expected, (name, chat, variant)
                compared += 1
    assert compared > 1500 and refused > 100


def test_open_messages_as_in_transformers(
    shared_data: Path, reference: Callable[..., Any], workers: TemplateWorkers
) -> None:
    compared = 0
    chats = [
        [user("Tell."), assistant("Once upon a ")],
        [user("Tell."), assistant("  x")],
        [user("Tell."), assistant([{"type": "text", "text": "Once"}, {"type": "image"}])],
        [user("Tell."), assistant("Once", reasoning_content="I should")],
    ]
    for name, jinja in sources(shared_data):
        template = ChatTemplate(jinja, source=name, special_tokens=SPECIAL, now=NOW, workers=workers)
        for messages in chats:
            for field in (True, "reasoning_content", "thinking") if "reasoning_content" in messages[-1] else (True,):
                try:
                    expected = reference(jinja, messages, continue_final_message=field)[0]
                except Exception:
                    with pytest.raises((TemplateError, RequestError)):
                        template.render(messages, continue_final_message=field)
                    continue
                assert template.render(messages, continue_final_message=field) == expected, (name, messages, field)
                compared += 1
    assert compared > 150


def test_recorded_texts(shared_data: Path, workers: TemplateWorkers) -> None:
    folder = shared_data / "chat_templates" / "expected"
    for case in json.loads((folder / "hf_jinja_e2e.json").read_text("utf-8")):
        if case["python_jinja2_agrees"]:
            data = dict(case["data"])
            rendered = workers.render(case["template"], data, where=case["name"], now=NOW)
            assert rendered.text == case["expected"], case["name"]
            messages = data.pop("messages")
            if any(value is None for message in messages for value in message.values()):
                continue  # Recorded before transformers began to drop such keys; one template asks for content = none.
            if "add_generation_prompt" not in data:
                continue  # Recorded without the variable, which transformers always passes.
            template = ChatTemplate(case["template"], source=case["name"], now=NOW, workers=workers)
            assert template.render(messages, **data) == case["expected"], case["name"]
    for case in json.loads((folder / "llama_cpp_cases.json").read_text("utf-8")):
        if case["hf_jinja2_agrees"]:
            special = {name: case[name] for name in ("bos_token", "eos_token")}
            template = ChatTemplate(case["template"], source=case["name"], special_tokens=special, workers=workers)
            text = template.render(case["messages"], add_generation_prompt=case["add_generation_prompt"])
            assert text == case["expected"], case["name"]


def test_recorded_parts_of_the_language(shared_data: Path, workers: TemplateWorkers) -> None:
    cases = json.loads((shared_data / "chat_templates" / "expected" / "hf_jinja_units.json").read_text("utf-8"))
    for case in cases:
        if case["python_jinja2_agrees"]:
            rendered = workers.render(case["template"], case["context"], where=case["name"], now=NOW)
            assert rendered.text == case["expected"], case["name"]


SPANS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}</s>{% endgeneration %}"
    "{% else %}U:{{ m.content }}\n{% endif %}{% endfor %}",
    "{%- for m in messages %}\n  {%- generation -%}\n  <{{ m.role }}> {{ m.content | trim }}\n {%- endgeneration -%}\n"
    "{% endfor %}",
    "{% macro show(m) %}{% generation %}{{ m.content }}{% endgeneration %}!{% endmacro %}"
    "{% for m in messages %}😀{{ show(m) }}{% endfor %}",
    "no blocks",
)


def test_generation_spans_as_in_transformers(reference: Callable[..., Any], workers: TemplateWorkers) -> None:
    for jinja in SPANS:
        for chat in ("one", "turns", "system"):
            template = ChatTemplate(jinja, source="spans", special_tokens=SPECIAL, workers=workers)
            text, spans = reference(jinja, CHATS[chat], return_assistant_tokens_mask=True)
            rendered = template.render_spans(CHATS[chat])
            assert (rendered.text, list(rendered.spans)) == (text, spans)
    rendered = ChatTemplate(SPANS[0], source="spans", workers=workers).render_spans(CHATS["turns"])
    assert [rendered.text[begin:end] for begin, end in rendered.spans] == ["  Hello.\n</s>"]


def test_spans_give_the_assistant_mask_of_transformers(tokenizer_folders: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folders["qwen2-qwen3"])
    expected = tokenizer.apply_chat_template(
        CHATS["system"], chat_template=SPANS[0], return_assistant_tokens_mask=True, return_dict=True
    )
    rendered = ChatTemplate(SPANS[0], source="spans").render_spans(CHATS["system"])
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [int(any(a < end and b > begin for begin, end in rendered.spans)) for a, b in encoded["offset_mapping"]]
    assert encoded["input_ids"] == expected["input_ids"] and mask == expected["assistant_masks"]


def test_json_and_clock(workers: TemplateWorkers) -> None:
    def render(jinja: str, **variables: Any) -> str:
        return ChatTemplate(jinja, source="test", now=lambda: NOW, workers=workers).render(CHATS["one"], **variables)

    value = {"b": "é<&'\"", "a": [1, 2.5, None, True]}
    assert render("{{ v | tojson }}", v=value) == json.dumps(value, ensure_ascii=False)
    assert render("{{ v | tojson(indent=2) }}", v=value) == json.dumps(value, ensure_ascii=False, indent=2)
    dense = "{{ v | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}"
    assert render(dense, v=value) == json.dumps(value, separators=(",", ":"), sort_keys=True)
    assert render("{{ strftime_now('%d %b %Y %H:%M') }}") == "10 Jul 2025 12:00"
    assert render("{{ dict(a=1).a }}{{ dict.fromkeys(['x'], 2).x }}") == "12"
    assert render("{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}") == "2"
    assert render("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    for lazy in ("wordwrap(3)", "pprint", "striptags", "urlize", "title", "escape", "filesizeformat", "urlencode"):
        render(
            "{{ (v | string | " + lazy + ") if '" + lazy + "' != 'filesizeformat' else 5 | filesizeformat }}",
            v="a b &amp;",
        )
    assert render("{{ '\\N{BULLET}\\u00e9' }}{{ lipsum(1) is string }}") == "•éTrue"
    now = datetime.now()
    year = ChatTemplate("{{ strftime_now('%Y') }}", source="test", workers=workers).render(CHATS["one"])
    assert year in (str(now.year), str(datetime.now().year))


def test_lone_surrogates_pass(workers: TemplateWorkers) -> None:
    template = ChatTemplate("{{ messages[0].content }}", source="test", workers=workers)
    assert template.render([user("a\ud800b\u2028\r\n\x00")]) == "a\ud800b\u2028\r\n\x00"


def test_messages_are_plain_and_without_nothing(workers: TemplateWorkers) -> None:
    class Image:
        secret = "x"

    template = ChatTemplate("{{ messages | tojson }}", source="test", workers=workers)
    text = template.render([{"role": "user", "content": [{"image": Image()}], "name": None}])
    assert json.loads(text) == [{"role": "user", "content": [{"image": "<Image>"}]}]
    text = template.render([{"role": "assistant", "content": "4", "reasoning": "r"}])
    assert (
        text == '[{"thinking": "r", "role": "assistant", "content": "4", "reasoning": "r", "reasoning_content": "r"}]'
    )
    original = [assistant("x", thinking="t", content_parts=(1, 2))]
    copy = json.dumps(original)
    template.render(original)
    assert json.dumps(original) == copy


@pytest.mark.parametrize("messages", [[], ["text"], [None], [{1: "x"}], "text", 5])
def test_malformed_messages(messages: Any, workers: TemplateWorkers) -> None:
    with pytest.raises(RequestError):
        ChatTemplate("x", source="test", workers=workers).render(messages)


def test_messages_nested_too_deeply_or_too_large(workers: TemplateWorkers) -> None:
    template = ChatTemplate("x", source="test", workers=workers)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RequestError):
        template.render([user(deep)])
    with pytest.raises(RequestError, match="bytes"):
        template.render([user("x" * (17 << 20))])
    endless: dict[str, Any] = {"role": "user"}
    endless["content"] = endless
    with pytest.raises(RequestError):
        template.render([endless])


def test_variables_cannot_take_the_place_of_arguments(workers: TemplateWorkers) -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ extra }}", source="test", workers=workers)
    assert template.render([user("a")], variables={"extra": "b"}) == template.render([user("a")], extra="b") == "ab"
    for name in RESERVED:
        with pytest.raises(OptionError, match=name):
            template.render([user("a")], variables={name: [user("other")]})
    for options in ({"messages": [user("other")]}, {"tokenize": True}, {"chat_template": "x"}):
        with pytest.raises(OptionError):
            template.render([user("a")], **options)
    with pytest.raises(OptionError):
        template.render([user("a"), assistant("b")], add_generation_prompt=True, continue_final_message=True)


def test_errors_say_where_and_what(workers: TemplateWorkers) -> None:
    def fail(jinja: str) -> TemplateError:
        with pytest.raises(TemplateError) as caught:
            ChatTemplate(jinja, source="model: chat_template.jinja", workers=workers).render([user("hi")])
        return caught.value

    error = fail("\n{{ raise_exception('Roles must alternate, not ' ~ messages[0].role) }}")
    assert isinstance(error, TemplateRefusal) and error.message == "Roles must alternate, not user"
    assert error.where == "model: chat_template.jinja, line 2"
    error = fail("a\nb\n{% if %}")
    assert "not valid jinja2" in error.what and error.where == "model: chat_template.jinja, line 3"
    error = fail("a\n{{ messages[5].content.text }}")
    assert "does not have" in error.what and str(error.where).endswith("line 2")
    error = fail("a\n\n{{ messages[0].content + 1 }}")
    assert "TypeError" in error.what and str(error.where).endswith("line 3")
    assert not isinstance(error, TemplateRefusal)
    assert len(str(fail("{{ raise_exception('x' * 100000) }}"))) < 3000


# Sources


@pytest.fixture
def found(tmp_path: Path, folder_repository: Callable[..., Any], workers: TemplateWorkers) -> Callable[..., Any]:
    """Writes files into a folder; returns what the template of the folder renders, and its source."""

    def render(files: dict[str, Any], tools: Any = None, **options: Any) -> tuple[str, str]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        template = ChatTemplate.from_repository(folder_repository(tmp_path), workers=workers, **options)
        return template.render([user("x")], tools=tools), template.source

    return render


def test_the_order_of_the_sources(found: Callable[..., Any]) -> None:
    fallback = records.ChatTemplate("plugin")
    with pytest.raises(TemplateError) as caught:
        found({})
    for name in ("chat_template.jinja", "additional_chat_templates", "tokenizer_config.json", "chat_template.json"):
        assert name in caught.value.what
    assert found({}, fallback=fallback) == ("plugin", "the plugin's own template")
    text, source = found({"chat_template.json": {"chat_template": "processor"}}, fallback=fallback)
    assert text == "processor" and source.endswith("chat_template.json")
    text, source = found({"tokenizer_config.json": {"chat_template": "config"}}, fallback=fallback)
    assert text == "config" and "tokenizer_config.json" in source
    text, source = found({"chat_template.jinja": "file"}, fallback=fallback)
    assert text == "file" and source.endswith("chat_template.jinja")
    text, source = found({}, template="mine {{ messages[0].content }}", fallback=fallback)
    assert text == "mine x" and "argument" in source


def test_a_template_for_tools(found: Callable[..., Any]) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    config = {"tokenizer_config.json": {"chat_template": named}}
    assert found(config)[0] == "plain"
    assert found(config, tools=[WEATHER])[0] == "tools"
    assert found(config, template="tool_use")[0] == "tools"
    files = {"chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "file tools"}
    assert found(files)[0] == "file" and found(files, tools=[])[0] == "file tools"
    files["additional_chat_templates/rag.jinja"] = "rag"
    assert found(files, template="rag")[0] == "rag"


def test_only_named_templates(found: Callable[..., Any]) -> None:
    config = {"tokenizer_config.json": {"chat_template": [{"name": "a", "template": "A"}]}}
    with pytest.raises(TemplateError, match="none is the default: a"):
        found(config)
    assert found(config, template="a")[0] == "A"


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": "{"},
        {"tokenizer_config.json": {"chat_template": 5}},
        {"tokenizer_config.json": {"chat_template": [{"name": "a"}]}},
        {"tokenizer_config.json": {"chat_template": ["a"]}},
        {"tokenizer_config.json": {"chat_template": {"a": 1}}},
        {"chat_template.json": {"chat_template": ["a"]}},
    ],
)
def test_malformed_sources(files: dict[str, Any], found: Callable[..., Any]) -> None:
    with pytest.raises(TemplateError) as caught:
        found(files)
    assert next(iter(files)) in str(caught.value)


def test_rendering_imports_no_jinja2_here() -> None:
    code = (
        "import sys; from bestiary.generation.template import ChatTemplate; "
        "print(ChatTemplate('{{ messages[0].content }}', source='x').render([{'content': 'hi'}])); "
        "print([m for m in ('torch', 'transformers', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["hi", "[]"] and done.stderr == ""
