"""Bad grammars are the error of their request, within a second, and never the end of the process."""

import json
import string
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import BestiaryError, GenerationError, RequestError
from bestiary.generation.constraints import compiler as compiler_module
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar, as_grammar, choices, json_schema, lark, raw, regex
from bestiary.generation.constraints.grammar import tool_call as calls


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def _chain(count: int, link: Callable[[str], Any]) -> dict[str, Any]:
    definitions = {f"d{place}": link(f"#/$defs/d{place + 1}") for place in range(count)}
    return {"$defs": {**definitions, f"d{count}": {}}, "$ref": "#/$defs/d0"}


def _rules(count: int, name: Callable[[int], str]) -> str:
    return "\n".join(
        ["start: " + name(0), *(f'{name(n)}: {name(n + 1)} "x"' for n in range(count)), f'{name(count)}: "a"']
    )


def _terminal(number: int) -> str:
    return "T" + "".join(string.ascii_uppercase[int(digit)] for digit in str(number))


def _cycle() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    return schema


BAD: dict[str, tuple[Callable[[], Grammar | None], str]] = {
    "5000 levels": (lambda: json_schema(_nested(5000)), "nested too deeply"),
    "5000 levels of text": (lambda: json_schema('{"items":' * 5000 + "{}" + "}" * 5000), "nested too deeply"),
    "200 000 brackets": (lambda: json_schema("[" * 200_000), "nested too deeply"),
    "a schema in itself": (lambda: json_schema(_cycle()), "nested too deeply"),
    "remote reference": (lambda: json_schema({"items": {"$ref": "https://example.com/a"}}), "nothing is fetched"),
    "reference to a file": (lambda: json_schema({"$ref": "file:///etc/passwd"}), "nothing is fetched"),
    "reference to nothing": (lambda: json_schema({"$ref": "#/$defs/a"}), "not there"),
    "reference to itself": (lambda: json_schema({"$ref": "#"}), "No text satisfies"),
    "long chain": (lambda: json_schema(_chain(5000, lambda to: {"items": {"$ref": to}})), "levels"),
    "huge minLength": (lambda: json_schema({"type": "string", "minLength": 10**18}), "whole number"),
    "negative maxLength": (lambda: json_schema({"type": "string", "maxLength": -1}), "whole number"),
    "true as maxLength": (lambda: json_schema({"type": "string", "maxLength": True}), "whole number"),
    "minLength of a pattern": (lambda: json_schema({"pattern": "^(ab)*$", "minLength": 10**6}), "Unable to determine"),
    "infinite number": (lambda: json_schema('{"maximum": 1e400}'), "not finite"),
    "NaN": (lambda: json_schema('{"maximum": NaN}'), "not JSON"),
    "number without float64": (lambda: json_schema({"const": 2**53 + 1}), "no exact float64"),
    "5000 digits": (lambda: json_schema('{"maximum": ' + "9" * 5000 + "}"), "not JSON"),
    "divisor": (lambda: json_schema({"type": "integer", "multipleOf": 123456789}), "multipleOf"),
    "divisors": (lambda: json_schema({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}), "multipleOf"),
    "divisor 0": (lambda: json_schema({"multipleOf": 0}), "above 0"),
    "lone surrogate": (lambda: json_schema({"const": "\ud800"}), "lone surrogate"),
    "lone surrogate as name": (lambda: json_schema({"properties": {"\ud800": {}}}), "lone surrogate"),
    "no JSON value": (lambda: json_schema({"const": {1, 2}}), "no JSON"),
    "million values": (lambda: json_schema({"enum": list(range(10**6))}), "values"),
    "5000 properties": (lambda: json_schema({"properties": {str(n): {} for n in range(5000)}}), "properties"),
    "many objects": (lambda: json_schema({"enum": [{"a": n, "b": [n]} for n in range(5000)]}), "too complex"),
    "explosion": (
        lambda: json_schema(
            {"allOf": [{"anyOf": [{"properties": {f"{n}{m}": {}}} for n in range(9)]} for m in range(6)]}
        ),
        "too large",
    ),
    "no value": (lambda: json_schema({"type": "string", "const": 3}), "Unsatisfiable"),
    "false": (lambda: json_schema(False), "false"),
    "a number as schema": (lambda: json_schema(3), "A schema is an object"),
    "long text": (lambda: json_schema(" " * (2 << 20)), "characters"),
    "loose": (lambda: json_schema({"x-guidance": {"lenient": True}, "not": {}}), "x-guidance"),
    "loose in Lark": (lambda: lark('start: %json {"x-guidance": {"lenient": true}, "not": {}}'), "Unimplemented"),
    "loose in raw": (
        lambda: raw({"grammars": [{"json_schema": {"x-guidance": {"coerce_one_of": True}}}]}),
        "x-guidance",
    ),
    "repetition": (lambda: regex("a{1000000000}"), "too complex"),
    "nested repetition": (lambda: regex("(a{1000}){1000}"), "too complex"),
    "huge repetition": (lambda: regex("a{4294967296}"), "refused"),
    "brackets": (lambda: regex("(" * 5000 + "a" + ")" * 5000), "refused"),
    "open bracket": (lambda: regex("((("), "unclosed group"),
    "lookahead": (lambda: regex("(?=a)b"), "look-around"),
    "reference back": (lambda: regex(r"(a)\1"), "backreferences"),
    "end of a regex": (lambda: regex("a\\"), "refused"),
    "lookahead in a pattern": (lambda: json_schema({"pattern": "^(?!a)"}), "look-around"),
    "wrong Lark": (lambda: lark('start: "a'), "refused"),
    "Lark without start": (lambda: lark('foo: "a"'), "no start rule"),
    "Lark with an unknown name": (lambda: lark("start: foo"), "unknown name"),
    "Lark without an end": (lambda: lark('start: a\na: "x" a'), "too complex"),
    "Lark without a text": (lambda: lark("start: a\na: a"), "No text"),
    "Lark doubled 40 times": (
        lambda: lark("start: r0\n" + "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(40)) + '\nr40: "a"'),
        "too complex",
    ),
    "Lark in 100 000 brackets": (lambda: lark("start: " + "(" * 100_000 + '"a"' + ")" * 100_000), "nested"),
    "long chain of rules": (lambda: lark(_rules(20_000, lambda n: f"r{n}")), "definitions|characters"),
    "special token of others": (lambda: lark("start: <|nobody|>"), "unknown special token"),
    "token out of range": (lambda: lark("start: <[99999999]>"), "too large"),
    "Lark remote reference": (lambda: lark('start: %json {"$ref": "https://example.com/a"}'), "not fetch"),
    "Lark with NUL": (lambda: lark("\0"), "refused"),
    "Lark with a lone surrogate": (lambda: lark('start: "\ud800"'), "surrogate"),
    "empty": (lambda: lark("  \n"), "empty"),
    "raw without grammars": (lambda: raw("{}"), "grammars"),
    "raw of no kind": (lambda: raw({"grammars": [{"nodes": []}]}), "lark_grammar"),
    "no choices": (lambda: choices([]), "choices"),
    "choices of numbers": (lambda: choices([1, 2]), "text"),  # type: ignore[list-item]
    "too many choices": (lambda: choices(map(str, range(10**5))), "choices"),
    "no tools": (lambda: calls([]), "tools"),
    "tool without a name": (lambda: calls([{"type": "function", "function": {}}]), "name"),
    "tool with quotes": (lambda: calls([{"name": '"} {"'}]), "name"),
    "tools of one name": (lambda: calls([{"name": "a"}, {"name": "a"}]), "Two tools"),
    "tool with a bad schema": (lambda: calls([{"name": "a", "parameters": {"not": {}}}]), '"not"'),
    "no format": (lambda: as_grammar({"type": "json_shema"}), "no response format"),
    "a number": (lambda: as_grammar(3), "no grammar"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_grammars_are_request_errors_within_a_second(demo: ConstraintCompiler, name: str) -> None:
    make, message = BAD[name]
    begin = time.process_time()
    with pytest.raises(RequestError, match=message):
        grammar = make()
        assert grammar is not None
        demo.compile(grammar)
    seconds = time.process_time() - begin
    assert seconds < 1.0 or seconds < 20 * _pace()


def _pace() -> float:
    """Processor seconds of a fixed loop, here and now: 0.13 on a machine where the slowest case takes 1.0 to 1.5."""
    begin, count = time.process_time(), 0
    for number in range(3_000_000):
        count += number & 7
    return time.process_time() - begin


HARMLESS: dict[str, Callable[[], Grammar]] = {
    "maxLength": lambda: json_schema({"type": "string", "maxLength": 10**8}),
    "minItems": lambda: json_schema({"type": "array", "minItems": 10**8, "items": {"const": "a"}}),
    "backtracking": lambda: regex("(a|a)*(a|aa)+(a*)*b"),
    "many states": lambda: regex(".*a.{500}"),
    "200 alternations": lambda: regex("|".join("(a|b)*" + str(number) for number in range(200))),
    "10 000 choices": lambda: choices([f"value {number * 7919 % 104729}" for number in range(10_000)]),
    "largest divisor": lambda: json_schema({"type": "integer", "multipleOf": 65_536}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_large_numbers_alone_cost_nothing(demo: ConstraintCompiler, name: str) -> None:
    begin = time.process_time()
    state = demo.compile(HARMLESS[name]())
    for _ in range(5):
        if state.is_finished:
            break
        state.advance(int(state.allowed().nonzero()[0][-1]))
    assert time.process_time() - begin < 1.0


CHAINS: dict[str, Grammar] = {
    "properties": json_schema(_chain(1900, lambda to: {"properties": {"a": {"$ref": to}}})),
    "items": json_schema(_chain(1900, lambda to: {"items": {"$ref": to}})),
    "allOf": json_schema(_chain(1900, lambda to: {"allOf": [{"$ref": to}]})),
    "rules": lark(_rules(1990, lambda number: f"r{number}")),
    "terminals": lark(_rules(1990, _terminal)),
    "schema in Lark": lark("start: %json " + json.dumps(_chain(4000, lambda to: {"items": {"$ref": to}}))),
}

_CHILD = """
import sys
from tokenizers import Tokenizer as Backend
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar
from bestiary.generation.tokenizer import Tokenizer
tokenizer = Tokenizer(Backend.from_file(sys.argv[1]))
state = ConstraintCompiler(tokenizer, tokenizer.vocab_size, [2]).compile(Grammar(sys.stdin.read(), "test"))
for _ in range(20):
    state.advance(int(state.allowed().nonzero()[0][0]))
other = state.copy()
other.rollback(10)
del state, other
"""


@pytest.mark.parametrize("name", CHAINS)
def test_the_longest_chains_do_not_end_the_process(name: str, demo: ConstraintCompiler) -> None:
    """On a thread with the usual stack llguidance 1.9.1 overflows it from about 1500 levels, which is a SIGSEGV."""
    path = f"{demo.vocabulary.tokenizer.origin}/tokenizer.json"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, path],
        input=CHAINS[name].text,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


class PanicException(BaseException):
    """As pyo3 has it."""


def test_a_panic_is_the_error_of_its_request(demo: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise PanicException("called `Option::unwrap()` on a `None` value")

    fresh = ConstraintCompiler(demo.vocabulary.tokenizer, demo.vocabulary.rows, [2])
    state = fresh.compile(regex("[ab]+"))
    monkeypatch.setattr(compiler_module, "import_llguidance", Broken)
    with pytest.raises((RequestError, GenerationError), match="unwrap"):
        fresh.compile(regex("[abc]+"))
    monkeypatch.undo()
    monkeypatch.setattr(state, "_matcher", Broken())
    with pytest.raises(BestiaryError, match="unwrap"):
        state.mask()
    fresh.compile(regex("[abc]+"))  # neither is kept


def test_an_interrupt_is_no_error_of_a_request(demo: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(compiler_module, "import_llguidance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.compile(regex("[a-f]+"))
    monkeypatch.undo()
    demo.compile(regex("[a-f]+"))


def test_without_llguidance_the_command_is_named(demo: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    compiler = ConstraintCompiler(demo.vocabulary.tokenizer, demo.vocabulary.rows, [2])
    with pytest.raises(BestiaryError, match="needs llguidance") as raised:
        compiler.compile(regex("[ab]+"))
    assert raised.value.fix is not None and "pip install" in raised.value.fix


def test_nothing_heavy_is_imported_before_use() -> None:
    modules = "grammar", "compiler", "state", "masks", "structured"
    imports = "; ".join(f"import bestiary.generation.constraints.{name}" for name in modules)
    code = (
        f"{imports}; import sys; print([name for name in ('torch', 'llguidance', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
