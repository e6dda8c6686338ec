"""JSON schemas and grammars of other projects: what is valid is accepted, what is not is rejected.

No case is left out without a reason: a schema that is refused stands in a table with the keyword that the error names,
and an instance that is judged otherwise stands in DEPARTURES.
"""

import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar, json_schema, lark

Compilers = Callable[[str], ConstraintCompiler]
Spelled = Callable[[ConstraintCompiler, Grammar, Any], str | None]
Takes = Callable[[ConstraintCompiler, Grammar, str], bool]

REMOTE = '"$ref" leads out of the schema'
BASE = '"$ref" in a schema with an "$id" of its own'
FALSE = "Unsatisfiable schema"

# Official test suite: what the error says -> "file: case".
SUITE_REFUSED = {
    'keyword "propertyNames"': {
        "additionalProperties: additionalProperties with propertyNames",
        "propertyNames: propertyNames validation",
        "propertyNames: propertyNames validation with pattern",
        "propertyNames: propertyNames with boolean schema false",
        "propertyNames: propertyNames with const",
        "propertyNames: propertyNames with enum",
    },
    'keyword "dependentSchemas"': {
        "additionalProperties: dependentSchemas with additionalProperties",
        "dependentSchemas: single dependency",
        "dependentSchemas: boolean subschemas",
        "dependentSchemas: dependencies with escaped characters",
        "dependentSchemas: dependent subschema incompatible with root",
    },
    'keyword "if"': {
        "if-then-else: if and then without else",
        "if-then-else: if and else without then",
        "if-then-else: validate against correct branch, then vs else",
        "if-then-else: if with boolean schema true",
        "if-then-else: if with boolean schema false",
        "if-then-else: then: false fails when condition matches",
        "if-then-else: else: false fails when condition does not match",
    },
    'keyword "then"': {"if-then-else: if appears at the end when serialized (keyword processing sequence)"},
    'keyword "contains"': {
        "maxContains: maxContains with contains",
        "maxContains: maxContains with contains, value with a decimal",
        "maxContains: minContains < maxContains",
        "maxContains: maxContains = 0 with minContains = 0",
    },
    'keyword "uniqueItems"': {
        "uniqueItems: uniqueItems validation",
        "uniqueItems: uniqueItems with an array of items",
        "uniqueItems: uniqueItems with an array of items and additionalItems=false",
    },
    'keyword "unevaluatedProperties"': {"ref: ref creates new scope when adjacent to keywords"},
    'keyword "patternProperties"': {  # they must exclude each other
        "patternProperties: multiple simultaneous patternProperties are validated",
        "patternProperties: regexes are not anchored by default and are case sensitive",
        "patternProperties: patternProperties with boolean schemas",
    },
    'keyword "multipleOf"': {"multipleOf: float division = inf"},
    'format "regex"': {
        "format: regex format",
        "format/ecmascript-regex: \\a is not an ECMA 262 control escape",
        "format/ecmascript-regex: Python-specific regular expression syntax is not valid ECMA 262",
        "format/ecmascript-regex: global inline flag groups are not valid ECMA 262",
        "format/ecmascript-regex: ECMA 262 named groups and backreferences are valid",
        "format/ecmascript-regex: ECMA 262 lookbehind is valid, including variable width",
        "format/ecmascript-regex: ECMA 262 character classes and escapes",
    },
    'format "idn-email"': {"format: idn-email format"},
    'format "idn-hostname"': {"format: idn-hostname format"},
    'format "json-pointer"': {"format: json-pointer format"},
    'format "relative-json-pointer"': {"format: relative-json-pointer format"},
    'format "iri"': {"format: iri format"},
    'format "iri-reference"': {"format: iri-reference format"},
    'format "uri-reference"': {"format: uri-reference format"},
    'format "uri-template"': {"format: uri-template format"},
    REMOTE: {
        "defs: validate definition against metaschema",
        "ref: remote ref, containing refs itself",
        "ref: Recursive references between schemas",
        "ref: $id must be resolved against nearest parent, not just immediate parent",
        "ref: order of evaluation: $id and $ref",
        "ref: order of evaluation: $id and $ref on nested schema",
        "ref: URN ref with nested pointer ref",
        "ref: ref to if",
        "ref: ref to then",
        "ref: ref to else",
        "ref: ref with absolute-path-reference",
    },
    BASE: {"ref: refs with relative uris and defs", "ref: relative refs with absolute uris and defs"},
    # No value is valid here, so that there is nothing to generate.
    FALSE: {
        "allOf: allOf with boolean schemas, some false",
        "allOf: allOf with boolean schemas, all false",
        "ref: $ref to boolean schema false",
    },
    "it is false": {"boolean_schema: boolean schema 'false'"},
    "enum is empty": {"enum: empty enum"},
}

BENCH_REFUSED = {
    'format "topic"': {"Github_easy/o89604.json"},
    'format "uri-reference"': {"Github_hard/o53084.json"},
    'keyword "oneOf"': {"Github_hard/o65957.json"},
    'keyword "uniqueItems"': {
        "JsonSchemaStore/winget-pkgs-singleton-1.0.0.json",
        "JsonSchemaStore/chisel-slices.json",
    },
    'keyword "not"': {
        "JsonSchemaStore/libman.json",
        *(f"Handwritten/{name}.json" for name in ("allany1", "pnmp1", "pnmp2", "pnmp5", "mod303", "mod304")),
        *(f"Handwritten/{name}.json" for name in ("notnames1", "allOfPProp3", "oneof9")),
        *(
            f"Synthesized/draft2019_09_{name}_subschema1_not_2.json"
            for name in (
                *("nonvalid_required_id1", "valid_const_id44", "nonvalid_boolean_schema_id6", "nonvalid_allOf_id6"),
                *("nonvalid_minimum_id2", "nonvalid_pattern_id5", "nonvalid_const_id17", "valid_oneOf_id18"),
                *("valid_multipleOf_id8", "nonvalid_minProperties_id5", "valid_ref_id33", "nonvalid_multipleOf_id5"),
            )
        ),
    },
    'keyword "dependencies"': {f"Handwritten/dep{number}.json" for number in (1, 4, 5, 8, 10)},
    'keyword "contains"': {
        "Handwritten/test.json",
        *(f"Handwritten/oneofanyofitc{number}.json" for number in (1, 4, 5, 8)),
    },
    'keyword "propertyNames"': {"Handwritten/notnames10.json"},
}

# Valid instances that are not generated, by reason.
DEPARTURES = {
    "a number of an enum has one spelling": {
        "enum with 0 does not match false: float zero is valid",
        "enum with [0] does not match [false]: [0.0] is valid",
        "enum with 1 does not match true: float one is valid",
        "enum with [1] does not match [true]: [1.0] is valid",
    },
    "a format is enforced and no annotation": {
        f"{name} format: invalid {name} string is only an annotation by default"
        for name in (*("email", "ipv4", "ipv6", "hostname", "date", "date-time", "time", "uri", "uuid", "duration"),)
    },
    "no leap second is generated": {
        "validation of time strings: a valid time string with leap second, Zulu",
        *(
            f"validation of time strings: valid leap second, {kind} time-offset"
            for kind in ("zero", "positive", "large positive", "negative", "large negative")
        ),
    },
}


def _suite(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((folder / "jsonschema/test-suite/draft2020-12").rglob("*.json")):
        stem = f"format/{path.stem}" if path.parent.name == "format" else path.stem
        for case in json.loads(path.read_text()):
            yield f"{stem}: {case['description']}", case


def _bench(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for case in json.loads(lzma.decompress((folder / "jsonschema/jsonschemabench_sample.json.xz").read_bytes())):
        yield case["description"].removeprefix("sample "), case


@pytest.mark.parametrize(
    ("cases", "refused", "counts"),
    [
        (_suite, SUITE_REFUSED, {"schemas": 119, "valid": 359, "invalid": 236}),
        (_bench, BENCH_REFUSED, {"schemas": 133, "valid": 162, "invalid": 221}),
    ],
)
def test_instances_are_judged_as_the_schema_says(
    cases: Callable[[Path], Iterator[tuple[str, dict[str, Any]]]],
    refused: dict[str, set[str]],
    counts: dict[str, int],
    shared_data: Path,
    real: Compilers,
    spelled: Spelled,
) -> None:
    compiler = real("qwen2-qwen3")
    reasons = {name: reason for reason, names in refused.items() for name in names}
    departures = {name for names in DEPARTURES.values() for name in names}
    seen: Counter[str] = Counter()
    for name, case in cases(shared_data):
        try:
            grammar = json_schema(case["schema"])
            compiler.compile(grammar)
        except RequestError as error:
            reason = reasons.pop(name, None)
            assert reason is not None and reason in error.what, f"{name}: {error}"
            if reason in (FALSE, "it is false", "enum is empty"):
                assert not any(test["valid"] for test in case["tests"])
            elif "keyword" in reason or "format" in reason or "$ref" in reason:
                assert error.where is not None and error.where.startswith("#/"), f"{name}: {error}"
            continue
        seen["schemas"] += 1
        for test in case["tests"]:
            departs = f"{case['description']}: {test['description']}" in departures
            accepted = spelled(compiler, grammar, test["data"]) is not None
            assert accepted == (test["valid"] and not departs), f"{name}: {test['description']}"
            if not departs:
                seen["valid" if test["valid"] else "invalid"] += 1
    assert not reasons, f"no longer refused: {reasons}"
    assert seen == counts


# Where llama.cpp's grammars differ in purpose.
LLAMA_CPP_DEPARTURES = {
    ("min 0", "1" + "0" * 32): "llama.cpp writes integers of at most 16 digits",
    ("min 2", "12345678900000000"): "llama.cpp writes integers of at most 16 digits",
    (
        "object properties",
        '{ "number": 1600, "street_name": "Pennsylvania", "street_type":"Avenue", "direction":"NW"}',
    ): "without additionalProperties JSON Schema takes further names",
}


def test_schemas_of_llama_cpp(shared_data: Path, real: Compilers, takes: Takes) -> None:
    cases = json.loads((shared_data / "jsonschema/llama_cpp_grammar_integration.json").read_text())["schema"]
    compiler = real("qwen2-qwen3")
    seen: Counter[str] = Counter()
    for case in cases:
        if case["name"] == "required props":
            with pytest.raises(RequestError, match='"uniqueItems"'):
                json_schema(case["schema"])
            del case["schema"]["properties"]["tags"]["uniqueItems"]
        grammar = json_schema(case["schema"])
        for verdict in ("passing", "failing"):
            for text in case[verdict]:
                departs = (case["name"], text) in LLAMA_CPP_DEPARTURES
                assert takes(compiler, grammar, text) == (departs or verdict == "passing"), (case["name"], text)
                seen[verdict] += not departs
    assert seen == {"passing": 73, "failing": 70}


def test_schemas_that_llama_cpp_converts(shared_data: Path, real: Compilers) -> None:
    """Its own list of schemas, of which it converts some and refuses others."""
    cases = json.loads((shared_data / "jsonschema/llama_cpp_json_schema_to_gbnf.json").read_text())
    refused = {
        "string array": "a list is due",  # prefixItems with a schema that is no list
        "nullable string array": "a list is due",
        "array with empty items and prefixItems": "a list is due",
        "unsupported regexp in a property": 'keyword "pattern"',
    }
    for case in cases:
        if case["status"] != "SUCCESS" or case["name"] in refused:
            with pytest.raises(RequestError, match=refused.pop(case["name"], None)):
                real("qwen2-qwen3").compile(json_schema(case["schema_text"]))
        else:
            real("qwen2-qwen3").compile(json_schema(case["schema_text"]))
    assert not refused and len(cases) == 52


def test_grammars_of_llama_cpp(shared_data: Path, real: Compilers, takes: Takes) -> None:
    """In GBNF, which a module of llguidance rewrites to Lark."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    cases = json.loads((shared_data / "jsonschema/llama_cpp_grammar_integration.json").read_text())["grammar"]
    compiler = real("qwen2-qwen3")
    seen: Counter[str] = Counter()
    for case in cases:
        if case["name"] == "segfault":  # "( [x]* )*": the rewriting gives "/[x]*/*", which is no Lark
            case["gbnf"] = "root ::= [x]*"
        grammar = lark(gbnf_to_lark(case["gbnf"]))
        for verdict in ("passing", "failing"):
            for text in case[verdict]:
                assert takes(compiler, grammar, text) == (verdict == "passing"), (case["name"], text)
                seen[verdict] += 1
    assert seen == {"passing": 51, "failing": 46}
    for path in sorted((shared_data / "jsonschema/gbnf").glob("*.gbnf")):
        compiler.compile(lark(gbnf_to_lark(path.read_text())))
