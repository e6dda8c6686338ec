"""What holds for every format, whatever the text is: how it is cut, how long it is, how broken it is."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bestiary.generation.tools
from bestiary.generation.tools.choose import make_parser, tool_format
from bestiary.generation.tools.events import CallCancel, CallEnd, CallStart, Event, Message, Text, assemble
from bestiary.generation.tools.parser import GrammarParser, Settled, ToolParser
from bestiary.generation.tools.reader import Markers
from bestiary.generation.tools.reasoning import Reasoned, ReasoningSplit
from bestiary.records import ToolFormat
from bestiary.registry import default_registry

TOOLS: list[dict[str, Any]] = [
    {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "array"}, "s": {"type": "string"}}}},
    {"name": "g", "parameters": {"type": "object", "properties": {}}},
]
F: tuple[str, dict[str, Any]] = ("f", {"a": [1, {"b": None}], "s": 'é"}</x>'})
G: tuple[str, dict[str, Any]] = ("g", {})

_F = '{"name": "f", "arguments": {"a": [1, {"b": null}], "s": "é\\"}</x>"}}'
_G = '{"name": "g", "arguments": {}}'
_ARGUMENTS = '{"a": [1, {"b": null}], "s": "é\\"}</x>"}'
_GEMMA = 'call:f{{a:[1,{{b:null}}],s:{0}é"}}</x>{0}}}'
_PYTHON = "f(a=[1, {'b': None}], s='é\"}</x>')"
_DEEPSEEK = "<｜tool▁call▁begin｜>{}<｜tool▁call▁end｜>"

TWO_CALLS = {
    "hermes": f"<tool_call>\n{_F}\n</tool_call>\n<tool_call>\n{_G}\n</tool_call>",
    "llama": f"<|python_tag|>{_F.replace('arguments', 'parameters')};{_G}",
    "llama_tags": f"<function=f>{_ARGUMENTS}</function><function=g>{{}}</function>",
    "mistral": f"[TOOL_CALLS] [{_F}, {_G}]",
    "qwen_coder": '<tool_call>\n<function=f>\n<parameter=a>\n[1, {"b": null}]\n</parameter>\n<parameter=s>\né"}</x>\n'
    "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
    "deepseek": "<｜tool▁calls▁begin｜>"
    + _DEEPSEEK.format(f"f<｜tool▁sep｜>{_ARGUMENTS}")
    + _DEEPSEEK.format("function<｜tool▁sep｜>g\n```json\n{}\n```")
    + "<｜tool▁calls▁end｜>",
    "gemma3": f"```tool_code\nprint({_PYTHON})\ng()\n```",
    "gemma4": "<|tool_call>" + _GEMMA.format('<|"|>') + "<tool_call|><|tool_call>call:g{}<tool_call|>",
    "function_gemma": "<start_function_call>"
    + _GEMMA.format("<escape>")
    + "<end_function_call><start_function_call>call:g{}<end_function_call>",
    "glm": '<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>[1, {"b": null}]</arg_value>\n<arg_key>s</arg_key>\n'
    '<arg_value>é"}</x></arg_value>\n</tool_call><tool_call>g</tool_call>',
    "harmony": f"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{_ARGUMENTS}<|call|>"
    "<|start|>assistant<|channel|>commentary to=functions.g<|message|>{}<|call|>",
    "generic": f"[{_F}, {_G}]",
}
NAMES = sorted(TWO_CALLS)

NOISE = [" ", "\n", "a", "é", "😀", '"', "\\", "{", "}", "[", "]", "<", ">", "`", ",", ":", "null", "1", "</x>", "\x00"]
# What each text is cut into for mixing: markers whole, and all the rest in short pieces.
PIECE = re.compile(r"<[^<>\s]{1,24}>|\[[A-Z_]{4,}\]|```[a-z_]*|[\w.]+|\s|.")
PIECES = {name: sorted({*PIECE.findall(text), *NOISE}) for name, text in TWO_CALLS.items()}
# Marks of channels that are read as such, and so are not in the text again.
CHANNELS = {"gemma4": ("<|channel>", "<channel|>", "thought\n"), "harmony": ("analysis", "final", "<|end|>")}


def test_every_parser_is_here() -> None:
    brought = {record.parser for record, _ in default_registry().records(ToolFormat)}
    assert {tool_format(name).parser for name in NAMES} == brought


def events_of(parser: ToolParser, parts: list[str]) -> list[Event]:
    return [*(event for part in parts for event in parser.push(part)), *parser.finish()]


def read(name: str, parts: list[str], tools: list[dict[str, Any]] | None = TOOLS) -> Message:
    return assemble(events_of(make_parser(name, tools), parts))


def mixtures(name: str, channels: bool = True) -> st.SearchStrategy[str]:
    pieces = [*PIECES[name], *(CHANNELS.get(name, ()) if channels else ())]
    mixed = st.lists(st.sampled_from(pieces), max_size=30).map("".join)
    text = TWO_CALLS[name]
    places = st.integers(0, len(text))
    broken = st.builds(lambda start, end, middle: text[:start] + middle + text[end:], places, places, mixed)
    return mixed | broken


@pytest.mark.parametrize("name", NAMES)
def test_several_calls_in_one_turn(name: str) -> None:
    message = read(name, [TWO_CALLS[name]])
    assert [(call.name, call.parsed) for call in message.tool_calls] == [F, G]
    assert message.content == message.reasoning == ""


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_cut_does_not_matter(name: str, data: st.DataObject) -> None:
    text = data.draw(mixtures(name))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(name, [text])
    assert read(name, list(text)) == whole
    assert read(name, parts) == whole


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_without_offered_tools_all_is_text(name: str, data: st.DataObject) -> None:
    text = data.draw(mixtures(name, channels=False).filter(lambda text: name != "harmony" or _calls_only(text)))
    assert read(name, [text], tools=[]) == Message(text)


def _calls_only(text: str) -> bool:
    """That no message of Harmony is one for the user, whose header is rightly taken off."""
    headers = [re.split(r"<\|[a-z]+\|>", part.replace("<|constrain|>", ""))[-1] for part in text.split("<|message|>")]
    return all(re.search(r"\sto=(?!assistant)", header) for header in headers[:-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_prefix_is_its_calls_or_its_text(name: str) -> None:
    text = TWO_CALLS[name]
    for end in range(len(text)):
        message = read(name, [text[:end]])
        found = [(call.name, call.parsed) for call in message.tool_calls]
        if found:
            assert found in ([F], [F, G])
            assert text[:end].endswith(message.content)
        else:
            assert message.content == text[:end]


@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_character_leaves_calls_or_the_text(name: str) -> None:
    text = TWO_CALLS[name]
    for place in range(len(text)):
        for wrong in (text[:place] + text[place + 1 :], text[:place] + "\x01" + text[place + 1 :]):
            message = read(name, [wrong])
            if not message.tool_calls:
                assert message.content == wrong


@pytest.mark.parametrize("name", NAMES)
def test_other_tools_are_text(name: str) -> None:
    tools = [{"name": "h", "parameters": {}}]
    assert read(name, [TWO_CALLS[name]], tools) == Message(TWO_CALLS[name])


@pytest.mark.parametrize("name", NAMES)
def test_unknown_tools_are_calls_where_none_were_named(name: str) -> None:
    message = read(name, [TWO_CALLS[name]], tools=None)
    assert [call.name for call in message.tool_calls] == ["f", "g"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_events_are_in_order(name: str, data: st.DataObject) -> None:
    """A call is started, gets arguments and is ended or cancelled, once; a cancelled one frees its index."""
    text = data.draw(mixtures(name))
    running: set[int] = set()
    next_index = 0
    for event in events_of(make_parser(name, TOOLS), list(text)):
        match event:
            case CallStart(index):
                assert index == next_index
                next_index += 1
                running.add(index)
            case CallEnd(index):
                running.remove(index)
            case CallCancel(index):
                running.remove(index)
                next_index -= 1
                assert index == next_index
            case Text(piece):
                assert piece and not running
    assert not running


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_settled_calls_are_never_cancelled(name: str, data: st.DataObject) -> None:
    text = data.draw(mixtures(name))
    events = events_of(Settled(make_parser(name, TOOLS)), list(text))
    assert not any(isinstance(event, CallCancel) for event in events)
    assert assemble(events) == read(name, [text])
    for call in assemble(events).tool_calls:
        assert isinstance(call.parsed, dict)


@pytest.mark.parametrize("name", NAMES)
@given(text=st.lists(st.sampled_from(["a", " ", "\n", "<", "<|", "<t", "<tool_cal", "[", "[TOOL_", "``", "</", "é"])))
@settings(max_examples=60, deadline=None)
def test_only_the_beginning_of_a_marker_is_held_back(name: str, text: list[str]) -> None:
    parser = make_parser(name, TOOLS)
    assert isinstance(parser, GrammarParser)
    parser.push("Plain text. ")
    held = ""
    for character in "".join(text):
        held += character
        given_out = assemble(parser.push(character)).content
        assert held.startswith(given_out)
        held = held[len(given_out) :]
        markers = parser.markers.texts if hasattr(parser, "markers") else ()
        assert not held or any(marker.startswith(held) for marker in markers)


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama", "deepseek", "harmony", "gemma4", "generic"])
def test_arguments_stream(name: str) -> None:
    """The name and the arguments so far are told before the call is whole."""
    text = TWO_CALLS[name]
    end = text.index("null") + 2
    call = assemble(make_parser(name, TOOLS).push(text[:end])).tool_calls[0]
    assert call.name == "f"
    assert call.arguments.replace(" ", "").startswith('{"a":[1,{"b":')


# Time

ADVERSARIAL = [
    *("a ", "<", "[", "{", "`", "\\", '"', "\n", "<tool_cal", "<tool_call>", "\n<tool_call>", '<tool_call>{"name":'),
    *('<tool_call>{"name": "f", "arguments": {"a": "', "<function=", "<function=f>", "<function=f><parameter=a>"),
    *("<function=" + "a" * 64, "</parameter>", "</arg_value>", "<tool_call>f<arg_key>", "<tool_call>f", "[TOOL_CALLS]"),
    *('[TOOL_CALLS]f[ARGS]{"a":', "<|python_tag|>{", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>"),
    *("<|tool_call>call:f{", "<|channel>", "<|channel>thought\n", "<start_function_call>call:f{a:", "```tool_code\nf("),
    *(
        '```json\n{"name":',
        "<|start|>",
        "<|channel|>",
        "<|channel|>commentary to=functions.f<|message|>",
        "<|message|>",
    ),
    *TWO_CALLS.values(),
]
INSIDE = {
    "hermes": '<tool_call>{"name": "f", "arguments": {"a": [',
    "llama": '{"name": "f", "parameters": {"a": [',
    "llama_tags": '<function=f>{"a": [',
    "mistral": '[TOOL_CALLS]f[ARGS]{"a": [',
    "deepseek": '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":[',
    "harmony": '<|channel|>commentary to=functions.f<|message|>{"a":[',
    "generic": '[{"name":"f","arguments":{"a":[',
    "gemma3": "```tool_code\nf(a=[",
    "gemma4": "<|tool_call>call:f{a:[",
    "function_gemma": "<start_function_call>call:f{a:[",
    "glm": "<tool_call>f<arg_key>a</arg_key><arg_value>",
    "qwen_coder": "<function=f><parameter=a>",
}
VALUES = ["1,", "[1,", "[],", '"a",', '"\\n",', "'b',", '{"a":1},', "-", "1", "true,", '"' + "\\n" * 40, "\n", '"\n']


def texts(name: str, size: int) -> Iterator[str]:
    for unit in ADVERSARIAL:
        yield (unit * (size // len(unit) + 1))[:size]
    for unit in VALUES:
        yield INSIDE[name] + (unit * (size // len(unit) + 1))[:size]
    yield INSIDE[name] + '"' + "x" * size


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts the lines of the package that are executed: a clock that a busy machine cannot slow."""
    folder = str(Path(bestiary.generation.tools.__file__).parent)
    lines = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return line

    def call(frame: FrameType, event: str, argument: object) -> Any:
        return line if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield lambda: lines
    finally:
        sys.settrace(before)


def steps(name: str, parts: list[str]) -> int:
    parser = make_parser(name, TOOLS)
    with counted() as lines:
        for part in parts:
            parser.push(part)
        parser.finish()
    return lines()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [lambda text: [text], list], ids=["whole", "characters"])
def test_steps_are_linear(name: str, cut: Callable[[str], list[str]]) -> None:
    for once, twice, four in zip(texts(name, 300), texts(name, 600), texts(name, 1200), strict=True):
        first, second, third = (steps(name, cut(text)) for text in (once, twice, four))
        assert third - second <= 2.2 * (second - first) + 600, once[:80]
        assert third <= 140 * len(four), once[:80]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_yet_read_is_short(name: str) -> None:
    """Each push copies what is unread: were it long, linear steps would not be linear time."""
    for text in texts(name, 400):
        parser = make_parser(name, TOOLS)
        assert isinstance(parser, GrammarParser)
        for character in text:
            parser.push(character)
            assert len(parser.reader.text) - parser.reader.at <= 32


@pytest.mark.parametrize("name", NAMES)
def test_a_megabyte(name: str) -> None:
    inside = INSIDE[name]
    for unit in ("{", "<tool_call>", inside, "1,", '"\n'):
        text = inside + unit * (1_000_000 // len(unit))
        assert read(name, [text]) == Message(text)


def test_no_nested_repetition_in_patterns() -> None:
    """A repeated group that repeats inside is what makes a regular expression hang."""
    found = 0
    for path in Path(bestiary.generation.tools.__file__).parent.glob("*.py"):
        module = __import__(f"bestiary.generation.tools.{path.stem}", fromlist=["*"])
        patterns = [value for value in vars(module).values() if isinstance(value, re.Pattern)]
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        values = [*vars(module).values(), *(value for each in classes for value in vars(each).values())]
        patterns += [value._pattern for value in values if isinstance(value, Markers)]
        for pattern in patterns:
            assert not _nests(re._parser.parse(pattern.pattern), inside=False), pattern.pattern  # type: ignore[attr-defined]
            found += 1
    assert found > 30


def _nests(parsed: Any, inside: bool) -> bool:
    for operation, argument in parsed:
        repeats = str(operation) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[1] > 1
        if repeats and inside:
            return True
        for part in argument if isinstance(argument, tuple) else ():
            branches = part if isinstance(part, list) else [part]
            for branch in branches:
                if isinstance(branch, re._parser.SubPattern) and _nests(branch, inside or repeats):  # type: ignore[attr-defined]
                    return True
    return False


# Reasoning


REASONING = st.lists(
    st.sampled_from([*("<think>", "</think>", "<tool_call>", "</tool_call>", _F, _G), *NOISE, "<th", "</"]), max_size=12
).map("".join)


@settings(max_examples=80, deadline=None)
@given(REASONING, st.booleans(), st.booleans())
def test_reasoning_does_not_depend_on_the_cut(text: str, started: bool, breaks: bool) -> None:
    def make() -> ToolParser:
        split = ReasoningSplit(started=started, breaks=("<tool_call>",) if breaks else ())
        return Reasoned(split, make_parser("hermes", TOOLS))

    assert assemble(events_of(make(), list(text))) == assemble(events_of(make(), [text]))


def test_reasoning_in_linear_steps() -> None:
    for unit in ("<think>", "</think>", " ", "\n", "<", "a ", "</thin"):
        counts = []
        for size in (300, 600, 1200):
            parser = Reasoned(ReasoningSplit(started=True), make_parser("hermes", TOOLS))
            with counted() as lines:
                events_of(parser, list(unit * (size // len(unit))))
            counts.append(lines())
        assert counts[2] - counts[1] <= 2.2 * (counts[1] - counts[0]) + 400


def test_samples_are_json() -> None:
    assert json.loads(_F)["arguments"] == F[1]
