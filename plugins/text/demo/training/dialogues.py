"""Dialogues from a seed: exchanges of all kinds, put together under system prompts and tools."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from arithmetic import addition, counting, difference, product
from exchange import Exchange, Message, assistant
from knowledge import capital, colour, next_capital
from structured import json_answer
from talk import courtesy, library, name, no_weather, unknown
from toolbox import Tool, some_city, toolbox

Maker = Callable[[Random], Exchange]


def weather_without_tool(dice: Random) -> Exchange:
    return no_weather(dice, some_city(dice))


# How often each kind of exchange is drawn: the rules take more practice than the facts.
WEIGHTS: dict[Maker, float] = {
    addition: 24, counting: 28, difference: 10, product: 4, capital: 10, next_capital: 2, colour: 11, json_answer: 16,
    courtesy: 6, library: 11, name: 9, unknown: 8, weather_without_tool: 1,
}  # fmt: skip
CALCULATING = {"sum", "difference", "product"}
SYSTEMS = ["You are a helpful assistant.", "You are the Bestiary demo.", "Be brief.", "You are a friendly assistant.",
           "Answer the question.", "You are a small language model.", "Help the user.", "Be kind and short.",
           "You are a tiny demo model.", "Answer in one sentence."]  # fmt: skip
JSON_SYSTEMS = ["Answer in JSON.", "Always answer in JSON.", "Answer in JSON", "Reply with JSON only.",
                "You are a helpful assistant. Answer in JSON.", "Respond in JSON.", "Output JSON.",
                "All answers must be valid JSON."]  # fmt: skip


@dataclass
class Dialogue:
    """A whole conversation whose last message is the assistant's; `check` judges that message."""

    kind: str
    messages: list[Message]
    check: dict[str, Any]
    thought: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)


def draw(dice: Random, held_out: bool, wanted: Callable[[Exchange], bool], makers: list[Maker]) -> Exchange:
    weights = [WEIGHTS.get(maker, 1) for maker in makers]
    while True:
        exchange = dice.choices(makers, weights)[0](dice)
        if exchange.held_out == held_out and wanted(exchange):
            return exchange


def anything(exchange: Exchange) -> bool:
    return True


def draw_with_tools(dice: Random, held_out: bool, tools: list[Tool], needed: bool) -> Exchange:
    """An exchange that uses a tool, or one that needs none of those offered."""
    if needed:
        return draw(dice, held_out, anything, [tool.ask for tool in tools if tool.ask])
    purposes = {tool.purpose for tool in tools}

    def wanted(exchange: Exchange) -> bool:
        if exchange.key[1] == "no weather":
            return "weather" not in purposes
        return not ("calculator" in purposes and exchange.kind in CALCULATING)

    return draw(dice, held_out, wanted, list(WEIGHTS))


def cut_at_call(exchange: Exchange) -> Exchange:
    """The exchange up to the tool call, which becomes the answer that is checked."""
    call = exchange.messages[1]["tool_calls"][0]["function"]
    thought = f"I need the {call['name']} tool."
    check = {"tool_call": {"name": call["name"], "arguments": call["arguments"]}}
    return Exchange("tool call", exchange.key, exchange.messages[:2], check, thought)


def in_json(exchange: Exchange) -> Exchange:
    """The exchange as an assistant answers it that was told to answer in JSON."""
    exchange = deepcopy(exchange)
    exchange.messages[-1] = assistant(json.dumps(exchange.structured))
    exchange.kind, exchange.check = "json system", {"json": exchange.structured}
    exchange.thought = "The system wants JSON."
    return exchange


def dialogue(dice: Random, held_out: bool = False) -> Dialogue:
    """One dialogue; with `held_out` its last exchange, and only that, is one that training never sees."""
    turns = dice.choices([1, 2, 3], [0.5, 0.3, 0.2])[0]
    flags = [False] * (turns - 1) + [held_out]
    style = dice.choices(["plain", "json", "tools"], [0.67, 0.10, 0.23])[0]
    tools: list[Tool] = []
    if style == "json":
        system = dice.choice(JSON_SYSTEMS)
        simple = [maker for maker in WEIGHTS if maker not in (next_capital, name, json_answer)]
        exchanges = [in_json(draw(dice, flag, anything, simple)) for flag in flags]
    elif style == "tools":
        system = dice.choice(SYSTEMS) if dice.random() < 0.3 else ""
        tools = toolbox(dice)
        exchanges = [draw_with_tools(dice, flag, tools, dice.random() < 0.7) for flag in flags]
        last = exchanges[-1]
        if last.kind == "tool answer":
            exchanges[-1] = cut_at_call(last) if dice.random() < (0.5 if held_out else 0.1) else last
        else:
            last.kind = "plain with tools"
    else:
        system = dice.choice(SYSTEMS) if dice.random() < 0.25 else ""
        exchanges = [draw(dice, flag, anything, list(WEIGHTS)) for flag in flags]
    last = exchanges[-1]
    messages = [{"role": "system", "content": system}] if system else []
    messages += [message for exchange in exchanges for message in exchange.messages]
    thinking = dice.random() < (0.25 if last.kind == "sum" else 0.06)
    kind = "thinking" if thinking else last.kind
    schemas = [tool.schema for tool in tools]
    return Dialogue(kind, messages, last.check, last.thought if thinking else "", schemas)
