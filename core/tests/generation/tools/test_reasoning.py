"""ReasoningSplit: what was thought, and what was said."""

import pytest

from bestiary.generation.tools.choose import make_parser
from bestiary.generation.tools.events import Message, Reasoning, Text, assemble
from bestiary.generation.tools.reasoning import Reasoned, ReasoningSplit, reasoning_markers


def read(text: str, started: bool = False, breaks: tuple[str, ...] = ()) -> Message:
    split = ReasoningSplit(started=started, breaks=breaks)
    return assemble([*split.push(text), *split.finish()])


@pytest.mark.parametrize(
    ("text", "started", "message"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", False, Message("Yes.", "Hm.")),
        ("Hm.\n</think>\n\nYes.", True, Message("Yes.", "Hm.")),
        ("<think>Hm.</think>Yes.", True, Message("Yes.", "Hm.")),
        (" \n<think>Hm.", False, Message("", "Hm.")),
        ("Yes.", False, Message("Yes.")),
        ("Hm.", True, Message("", "Hm.")),
        ("  Yes. <think>no</think>", False, Message("  Yes. <think>no</think>")),
        ("<think></think>Yes </think> <think>.", False, Message("Yes </think> <think>.")),
        ("<think>\n a\n\n b \n</think>", False, Message("", "a\n\n b")),
        ("\n", False, Message("\n")),
        ("", True, Message()),
    ],
)
def test_split(text: str, started: bool, message: Message) -> None:
    assert read(text, started) == message


def test_breaks() -> None:
    text = "I look.\n<tool_call>x"
    assert read(text, started=True, breaks=("<tool_call>",)) == Message("<tool_call>x", "I look.")
    assert read(text, started=True) == Message("", text)
    assert read(text, breaks=("<tool_call>",)) == Message(text)


def test_it_streams() -> None:
    split = ReasoningSplit()
    assert split.push("<thi") == []
    assert split.push("nk>\nLet me") == [Reasoning("Let me")]
    assert split.push(" see.\n</th") == [Reasoning(" see.")]
    assert split.push("ink>\n") == []
    assert split.push("Yes.") == [Text("Yes.")]
    assert split.finish() == []


def test_calls_in_reasoning_are_reasoning() -> None:
    call = '<tool_call>{"name": "g"}</tool_call>'
    parser = Reasoned(ReasoningSplit(), make_parser("hermes", None))
    message = assemble([*parser.push(f"<think>{call}</think>{call}"), *parser.finish()])
    assert message.reasoning == call and message.content == "" and len(message.tool_calls) == 1


def test_markers_of_templates() -> None:
    assert reasoning_markers("{{ '<think>' + x + '</think>' }}") == ("<think>", "</think>")
    assert reasoning_markers("{{ '[THINK]' }}{{ '[/THINK]' }}") == ("[THINK]", "[/THINK]")
    assert reasoning_markers("plain") is None


@pytest.mark.parametrize(
    ("text", "reasoning"), [(" so.</think>Yes.", " so."), ("\nso.\n</think>\n\nYes.", "\nso."), ("</think>Yes.", "")]
)
def test_reasoning_that_is_continued_keeps_its_first_space(text: str, reasoning: str) -> None:
    for parts in ([text], list(text)):
        split = ReasoningSplit(started=True, continued=True)
        events = [event for part in parts for event in split.push(part)]
        assert assemble([*events, *split.finish()]) == Message("Yes.", reasoning)
