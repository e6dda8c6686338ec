"""Questions that ask for a JSON answer by themselves, without a system prompt that says so."""

import json
from random import Random
from typing import Any

from arithmetic import two_numbers
from exchange import Exchange, assistant, invented_name, plain, roughen, user
from facts import CAPITALS, COLOURS, PEOPLE
from knowledge import bare, opening, place

WRAPPERS = ["Give me {} as JSON", "Give me {} as JSON.", "{} as JSON", "{} as JSON please", "Show me {} in JSON.",
            "Write {} as JSON.", "Return {} as JSON.", "I want {} as a JSON object.", "Put {} in JSON.",
            "{} in JSON format",
            "JSON for {}", "Please give me {} as JSON.", "Can you give me {} as JSON?",
            "Answer in JSON: {}"]  # fmt: skip
FOLLOW = ["As JSON please.", "As JSON", "Give me that as JSON.", "And as JSON?", "Now in JSON.", "Same as JSON please"]
FIELDS: dict[str, list[Any]] = {
    "name": PEOPLE, "age": list(range(1, 99)), "city": list(CAPITALS.values()), "score": list(range(100)),
    "colour": sorted(set(COLOURS.values())), "id": list(range(1, 1000)), "country": [bare(c) for c in CAPITALS],
    "price": list(range(1, 500)), "user": PEOPLE, "level": list(range(1, 11)), "title": PEOPLE,
    "count": list(range(60)),
}  # fmt: skip


def subject(dice: Random) -> tuple[str, str, Any]:
    """What is asked for: its name in the key, its words in the question, and its JSON value."""
    draw = dice.random()
    country, city = dice.choice(list(CAPITALS.items()))
    if draw < 0.35:
        return city, city, {"city": city, "country": bare(country)}
    if draw < 0.60:
        return country, country, {"country": bare(country), "capital": city}
    if draw < 0.75:
        thing, shade = dice.choice(list(COLOURS.items()))
        words = dice.choice(["the colour of {}", "the color of {}"]).format(thing)
        return thing, words, {"object": bare(thing), "colour": shade}
    if draw < 0.88:
        start = dice.randint(0, 20)
        numbers = list(range(start, start + dice.randint(2, 8)))
        words = dice.choice(["the numbers from {} to {}", "the numbers {} to {}"]).format(start, numbers[-1])
        return f"{start} to {numbers[-1]}", words, {"numbers": numbers}
    a, b = two_numbers(dice)
    return f"{min(a, b)} + {max(a, b)}", f"{a} + {b}", {"a": a, "b": b, "sum": a + b}


def answer_of(kind: str, key: tuple[Any, ...], question: str, value: Any) -> Exchange:
    thought = "The user wants JSON."
    return plain(kind, key, question, json.dumps(value), {"json": value}, thought, value)


def about(dice: Random) -> Exchange:
    """A known thing as JSON. A held-out sum stays held out here too."""
    name, words, value = subject(dice)
    number = dice.randrange(len(WRAPPERS))
    key: tuple[Any, ...] = ("json", number, name)
    if "sum" in value:
        key = ("sum", min(value["a"], value["b"]), max(value["a"], value["b"]))
    question = roughen(WRAPPERS[number].format(words), dice)
    exchange = answer_of("json", key, question, value)
    exchange.key = key
    return exchange


def fields(dice: Random) -> Exchange:
    """Keys and values copied from the question."""
    names = dice.sample(list(FIELDS), dice.randint(1, 3))
    value = {name: dice.choice(FIELDS[name]) for name in names}
    for name in ("name", "city", "user", "title"):
        if name in value and dice.random() < 0.4:
            value[name] = invented_name(dice)
    listed = dice.choice([", ", " and "]).join(f"{name} {content}" for name, content in value.items())
    wording = dice.choice(
        [
            "Write a JSON object with {}.",
            "Make JSON with {}.",
            "JSON with {}",
            "As JSON: {}",
            "Give me a JSON object with {}.",
            "Turn this into JSON: {}",
            "Convert to JSON: {}",
        ]
    )
    question = wording.format(listed)
    if dice.random() < 0.3:
        question = question.rstrip(".")
    return answer_of("json", ("fields", wording, *value.items()), question, value)


def again(dice: Random) -> Exchange:
    """A capital, then the same as JSON."""
    country, city = dice.choice(list(CAPITALS.items()))
    follow = dice.choice(FOLLOW)
    messages = [user(opening(country, dice)), assistant(f"The capital of {country} is {city}.")]
    messages += [user(roughen(follow, dice)), assistant(json.dumps(place(country)))]
    key, check = ("again", follow, country), {"json": place(country)}
    return Exchange("json", key, messages, check, "The user wants JSON.", place(country))


def json_answer(dice: Random) -> Exchange:
    draw = dice.random()
    return about(dice) if draw < 0.6 else fields(dice) if draw < 0.85 else again(dice)
