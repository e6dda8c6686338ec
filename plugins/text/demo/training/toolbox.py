"""Tools under many names, the questions that need them, and what they answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from exchange import Exchange, assistant, invented_name, roughen, user
from facts import CAPITALS, CITIES, CONDITIONS, DOWNFALLS

WEATHER = ["What is the weather in {}?", "What's the weather in {}?", "How is the weather in {}?", "Weather in {}?",
           "How is the weather in {} today?", "What is the weather like in {}?", "Tell me the weather in {}.",
           "How warm is it in {}?", "What is the temperature in {}?", "Is it cold in {}?", "Check the weather in {}.",
           "Is it raining in {}?", "Look up the weather for {}.", "I am going to {}. How is the weather?",
           "Can you check the weather in {}?", "weather {}", "What's the weather like in {} now?", "And in {}?",
           "Do I need a coat in {}?", "Is it sunny in {}?", "What's the weather like in {} today?",
           "What is the current weather in {}?", "Give me the weather for {}.", "How hot is it in {}?",
           "What is the weather like in {} right now?", "Please tell me the weather in {}."]  # fmt: skip
CLOCK = ["What time is it in {}?", "What is the time in {}?", "Tell me the time in {}.", "Time in {}?",
         "How late is it in {}?", "What's the time in {}?", "Current time in {}", "Check the time in {}."]  # fmt: skip
OPERATIONS = {
    "+": ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "Add {a} and {b}.", "What is {a} plus {b}?",
          "Calculate {a} + {b}.",
          "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "{a} + {b} =", "Compute {a} + {b}"],
    "-": ["What is {a} - {b}?", "{a} - {b}", "{a} minus {b}", "What is {a} minus {b}?", "Calculate {a} - {b}.",
          "Subtract {b} from {a}."],
    "*": ["What is {a} * {b}?", "{a} * {b}", "{a} times {b}", "Multiply {a} by {b}.", "What is {a} times {b}?",
          "Calculate {a} * {b}."],
    "/": ["What is {a} / {b}?", "{a} / {b}", "Divide {a} by {b}.", "What is {a} divided by {b}?",
          "Calculate {a} / {b}."],
}  # fmt: skip
NUMBER_PAIRS = [("a", "b"), ("x", "y"), ("first", "second"), ("left", "right"), ("number1", "number2"), ("m", "n")]
BYSTANDERS = {
    "send_email": ("Send an email.", {"to": "string", "text": "string"}),
    "search": ("Search the web.", {"query": "string"}),
    "play_music": ("Play a song.", {"song": "string"}), "set_alarm": ("Set an alarm.", {"time": "string"}),
    "translate": ("Translate a text.", {"text": "string", "language": "string"}),
    "read_file": ("Read a file.", {"path": "string"}),
    "open_door": ("Open the door.", {}), "book_flight": ("Book a flight.", {"from": "string", "to": "string"}),
}  # fmt: skip


@dataclass
class Tool:
    """An offered tool; `ask` draws a question for it, or is None where no question needs it."""

    purpose: str
    schema: dict[str, Any]
    ask: Callable[[Random], Exchange] | None = None

    @property
    def name(self) -> str:
        return str(self.schema["function"]["name"])


def schema(name: str, description: str, arguments: dict[str, str], dice: Random) -> dict[str, Any]:
    """An OpenAI function schema, with the optional parts now there, now not."""
    explained = dice.random() < 0.3
    properties: dict[str, Any] = {}
    for argument, kind in arguments.items():
        properties[argument] = {"type": kind} | ({"description": f"The {argument}"} if explained else {})
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if dice.random() < 0.8:
        parameters["required"] = list(arguments)
    function: dict[str, Any] = {"name": name}
    if dice.random() < 0.85:
        function["description"] = description
    function["parameters"] = parameters
    return {"type": "function", "function": function}


def used(
    tool: str,
    key: tuple[Any, ...],
    question: str,
    arguments: dict[str, Any],
    result: str,
    answer: str,
    words: list[str],
) -> Exchange:
    """Question, call, result and answer."""
    call = {"type": "function", "function": {"name": tool, "arguments": arguments}}
    messages = [user(question), {"role": "assistant", "content": "", "tool_calls": [call]}]
    messages += [{"role": "tool", "content": result}, assistant(answer)]
    return Exchange("tool answer", key, messages, {"contains": words}, f"The {tool} tool gave the answer.")


def some_city(dice: Random) -> str:
    known = [*CAPITALS.values(), *CITIES]
    return dice.choice(known) if dice.random() < 0.55 else invented_name(dice)


def failure(dice: Random) -> tuple[str, str]:
    """A tool's error, and the answer to it."""
    reason = dice.choice(["not found", "timeout", "no connection", "unknown city", "internal error", "not available"])
    result = dice.choice([json.dumps({"error": reason}), f"error: {reason}", f"Error: {reason}"])
    return result, f"The tool failed: {reason}."


def weather_report(city: str, dice: Random) -> tuple[str, str, list[str]]:
    """A weather tool's result, the answer to it, and the words that the answer must take over."""
    if dice.random() < 0.05:
        result, answer = failure(dice)
        return result, answer, [answer.split(": ")[1].rstrip(".")]
    degrees: Any = dice.randint(-20, 45)
    if dice.random() < 0.15:
        degrees = round(degrees + dice.random(), 1)
    fall = dice.random() < 0.25
    condition = dice.choice(DOWNFALLS if fall else CONDITIONS)
    if not fall and dice.random() < 0.15:
        condition = invented_name(dice).lower()
    joined = "with" if fall else "and"
    form = dice.random()
    if form < 0.12:
        result = dice.choice([json.dumps({"temperature": degrees}), str(degrees), f"{degrees} degrees", f"{degrees}°C"])
        return result, f"It is {degrees} degrees in {city}.", [str(degrees)]
    if form < 0.2 and not fall:
        result = dice.choice([json.dumps({"condition": condition}), condition])
        return result, f"It is {condition} in {city}.", [condition]
    if form < 0.65:
        heat = dice.choice(["temperature", "temp", "degrees", "temperature_c", "celsius"])
        sky = dice.choice(["condition", "conditions", "sky", "weather", "description"])
        pairs: list[tuple[str, Any]] = [(heat, degrees), (sky, condition)]
        if dice.random() < 0.25:
            pairs.reverse()
        if dice.random() < 0.3:
            pairs.insert(0, (dice.choice(["city", "location"]), city))
        if dice.random() < 0.25:
            pairs.insert(dice.randint(1, len(pairs)), ("unit", dice.choice(["celsius", "C"])))
        if dice.random() < 0.15:
            pairs.append((dice.choice(["humidity", "wind"]), dice.randint(1, 90)))
        result = json.dumps(dict(pairs))
    else:
        forms = ["{t} degrees, {c}", "{t} degrees and {c}", "{c}, {t} degrees", "{t}°C, {c}", "{t} C and {c}",
                 "{c}, {t}°C", "{t} degrees {j} {c}", "{c} and {t} degrees", "{t}C, {c}", "{p}: {c}, {t}°C",
                 "It is {t} degrees {j} {c} in {p}.", "Weather in {p}: {t} degrees, {c}"]  # fmt: skip
        result = dice.choice(forms).format(t=degrees, c=condition, j=joined, p=city)
        if dice.random() < 0.15:
            result = f"{city}: {result}"
    return result, f"It is {degrees} degrees {joined} {condition} in {city}.", [str(degrees), condition, city]


def weather(dice: Random) -> Tool:
    common = ["get_weather", "weather", "current_weather", "get_current_weather", "weather_lookup"]
    verb = dice.choice(["get", "fetch", "check", "find", "read", "show", "query"])
    noun = dice.choice(["weather", "forecast", "temperature", "conditions", "local_weather"])
    name = dice.choice(common) if dice.random() < 0.6 else f"{verb}_{noun}"
    argument = dice.choice(["city", "city", "location", "place", "town", "city_name", "where"])
    description = dice.choice(["Get the weather in a city.", "Current weather", "Returns the weather of a place.",
                               "Look up the weather.", "Get the current weather for a location"])  # fmt: skip
    offered = schema(name, description, {argument: "string"}, dice)
    if dice.random() < 0.15:
        unit = {"type": "string", "enum": ["celsius", "fahrenheit"]}
        offered["function"]["parameters"]["properties"]["unit"] = unit
        offered["function"]["parameters"]["required"] = [argument]

    def ask(dice: Random) -> Exchange:
        city, number = some_city(dice), dice.randrange(len(WEATHER))
        result, answer, words = weather_report(city, dice)
        question = WEATHER[number].format(city)
        if dice.random() < 0.15:
            question = question.rstrip("?.")
        return used(name, ("weather", number, city), question, {argument: city}, result, answer, words)

    return Tool("weather", offered, ask)


def clock(dice: Random) -> Tool:
    name = dice.choice(["get_time", "current_time", "time", "clock", "local_time", "time_in", "get_current_time"])
    if dice.random() < 0.4:
        verb = dice.choice(["get", "fetch", "check", "find", "read", "show", "query"])
        name = f"{verb}_{dice.choice(['time', 'clock', 'hour', 'local_time', 'current_time'])}"
    argument = dice.choice(["city", "place", "location", "zone", "timezone"])
    description = dice.choice(["Get the time in a city.", "Tells the time", "Current time"])
    offered = schema(name, description, {argument: "string"}, dice)

    def ask(dice: Random) -> Exchange:
        city, number = some_city(dice), dice.randrange(len(CLOCK))
        moment = f"{dice.randint(0, 23):02}:{dice.randint(0, 59):02}"
        result = dice.choice([moment, json.dumps({"time": moment}), json.dumps({"city": city, "time": moment})])
        answer, question = f"It is {moment} in {city}.", CLOCK[number].format(city)
        return used(name, ("clock", number, city), question, {argument: city}, result, answer, [moment, city])

    return Tool("clock", offered, ask)


def numbers_for(sign: str, dice: Random) -> tuple[int, int, str]:
    """Two numbers and the result as a tool writes it."""
    largest = dice.choice([9, 99, 99, 999, 9999])
    a, b = dice.randint(0, largest), dice.randint(1, largest)
    results = {"+": a + b, "-": a - b, "*": a * b, "/": round(a / b, 2)}
    result = results[sign]
    return a, b, str(int(result) if result == int(result) else result)


def calculator(dice: Random) -> Tool:
    """One of two shapes: an expression as text, or two numbers for one operation."""
    textual = dice.random() < 0.55
    if textual:
        name = dice.choice(["calculator", "calculate", "calc", "compute", "evaluate", "math", "do_math"])
        argument = dice.choice(["expression", "expression", "expr", "formula", "input", "query"])
        descriptions = ["Calculate an expression.", "A calculator", "Evaluates arithmetic.", "Do arithmetic."]
        description = dice.choice(descriptions)
        signs, offered = list(OPERATIONS), schema(name, description, {argument: "string"}, dice)
    else:
        sign = dice.choice(["+", "+", "*", "-"])
        names = {"+": ["add", "add_numbers", "sum", "plus", "addition"], "*": ["multiply", "times", "product"],
                 "-": ["subtract", "minus", "difference"]}  # fmt: skip
        verbs = {"+": "Add two numbers.", "*": "Multiply two numbers.", "-": "Subtract two numbers."}
        name, pair = dice.choice(names[sign]), dice.choice(NUMBER_PAIRS)
        kind = dice.choice(["number", "integer"])
        signs, offered = [sign], schema(name, verbs[sign], {pair[0]: kind, pair[1]: kind}, dice)

    def ask(dice: Random) -> Exchange:
        sign = dice.choice(signs)
        a, b, outcome = numbers_for(sign, dice)
        number = dice.randrange(len(OPERATIONS[sign]))
        arguments = {argument: f"{a} {sign} {b}"} if textual else {pair[0]: a, pair[1]: b}
        result = outcome
        if dice.random() < 0.4:
            key = dice.choice(["result", "value", "answer", "sum" if sign == "+" else "result"])
            result = json.dumps({key: float(outcome) if "." in outcome else int(outcome)})
        question = roughen(OPERATIONS[sign][number].format(a=a, b=b), dice)
        return used(name, ("tool sum", sign, a, b), question, arguments, result, f"The result is {outcome}.", [outcome])

    return Tool("calculator", offered, ask)


def bystander(dice: Random) -> Tool:
    name, (description, arguments) = dice.choice(list(BYSTANDERS.items()))
    return Tool("bystander", schema(name, description, arguments, dice))


def toolbox(dice: Random) -> list[Tool]:
    """One to three tools of different names and purposes, at least one of which is of use."""
    makers = [weather, calculator] if dice.random() < 0.75 else [clock]
    tools = [dice.choice(makers)(dice)]
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2])):
        tool = dice.choice([weather, calculator, clock, bystander, bystander])(dice)
        same_purpose = tool.purpose != "bystander" and tool.purpose in {other.purpose for other in tools}
        if not same_purpose and tool.name not in {other.name for other in tools}:
            tools.append(tool)
    dice.shuffle(tools)
    return tools
