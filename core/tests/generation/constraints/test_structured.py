"""From texts back to typed objects."""

import dataclasses
import datetime
import enum
import json
import uuid
from typing import Any, Literal

import pytest

from bestiary.errors import GenerationError
from bestiary.generation.constraints.structured import parse


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Shape:
    name: str
    points: list[Point]
    colour: Colour = Colour.RED
    tag: "Literal['a', 1] | None" = None
    at: datetime.datetime | None = None
    key: uuid.UUID | None = None
    pair: tuple[int, str] = (0, "")
    row: tuple[int, ...] = ()
    names: dict[str, Point] = dataclasses.field(default_factory=dict)


def test_a_dataclass() -> None:
    text = json.dumps(
        {
            "name": "n",
            "points": [{"x": 1}, {"x": 2.5, "y": 3}],
            "colour": 1,
            "tag": 1,
            "at": "2024-02-29t10:00:00z",
            "key": "123e4567-e89b-12d3-a456-426614174000",
            "pair": [1, "b"],
            "row": [1, 2],
            "names": {"p": {"x": 0}},
        }
    )
    shape = parse(text, Shape)
    assert shape == Shape(
        "n",
        [Point(1.0), Point(2.5, 3.0)],
        Colour.ONE,
        1,
        datetime.datetime(2024, 2, 29, 10, tzinfo=datetime.UTC),
        uuid.UUID("123e4567-e89b-12d3-a456-426614174000"),
        (1, "b"),
        (1, 2),
        {"p": Point(0.0)},
    )
    assert isinstance(shape.points[0].x, float)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (dict, '{"a": [1, null]}', {"a": [1, None]}),
        (None, "[1]", [1]),
        ({"type": "array"}, "[1]", [1]),
        (list[int], "[1, 2]", [1, 2]),
        (int | float, "1", 1),
        (float | int, "1", 1),
        (int | str | None, "null", None),
        (Literal[True, "a"], "true", True),
        (bool, "true", True),
        (Any, '"x"', "x"),
        (Colour, '"red"', Colour.RED),
        (datetime.date, '"2024-02-29"', datetime.date(2024, 2, 29)),
        (datetime.time, '"10:00:00Z"', datetime.time(10, tzinfo=datetime.UTC)),
    ],
)
def test_other_types(kind: Any, text: str, value: Any) -> None:
    made = parse(text, kind)
    assert made == value and type(made) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message", "where"),
    [
        (Shape, '{"name": "n", "points": [{"x": "1"}]}', "'1' stands where float is due", "#/points/0/x"),
        (Shape, '{"name": "n", "points": [', "not JSON", "character"),
        (Shape, '{"name": "n"}', "makes no Shape", "#"),
        (Shape, '{"name": "n", "points": [], "other": 1}', 'no field "other"', "#"),
        (Point, '{"x": true}', "True stands where float", "#/x"),
        (int, "true", "True stands where int", "#"),
        (bool, "1", "1 stands where bool", "#"),
        (Literal[1], "true", "True stands", "#"),
        (tuple[int, str], "[1]", "stands where", "#"),
        (list[int], '["a"]', "'a' stands where int", "#/0"),
        (datetime.date, '"2023-02-29"', "no date", "#"),
        (dict, "NaN", "not JSON", None),
        (dict, "[" * 100_000, "nested too deeply", None),
        (dict, "[1]", "stands where dict", "#"),
    ],
)
def test_what_is_no_value_of_the_type(kind: Any, text: str, message: str, where: str | None) -> None:
    with pytest.raises(GenerationError, match=message) as raised:
        parse(text, kind)
    assert where is None or str(raised.value.where).startswith(where)


def test_a_pydantic_model() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", a=(int, ...))
    assert parse('{"a": 1}', model) == model(a=1)
    for text in ('{"a": "x"}', '{"a": 1'):
        with pytest.raises(GenerationError, match="no Model"):
            parse(text, model)
