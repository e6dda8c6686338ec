"""What becomes of each keyword of JSON Schema.

Every keyword is enforced, known to have no effect on which values are valid, or refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

ENFORCED = frozenset(
    (
        *("type", "const", "enum", "$ref", "allOf", "anyOf", "oneOf"),
        *("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
        *("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""What llguidance holds a text to (its docs/json_schema.md)."""

ANNOTATIONS = frozenset(
    (
        *("$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment"),
        *("$defs", "definitions", "title", "description", "default", "deprecated", "readOnly", "writeOnly"),
        *("examples", "example", "contentEncoding", "contentMediaType", "contentSchema"),
        *("discriminator", "externalDocs", "xml"),  # OpenAPI
    )
)
"""They say something about a value and never make one invalid."""


def _always(value: object) -> bool:
    """A schema that every value satisfies."""
    return value is True or value == {}


REFUSED: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "not": lambda value, schema: value is False,
    "if": lambda value, schema: "then" not in schema and "else" not in schema,
    "then": lambda value, schema: "if" not in schema or _always(value),
    "else": lambda value, schema: "if" not in schema or _always(value),
    "contains": lambda value, schema: schema.get("minContains") == 0 and "maxContains" not in schema,
    "minContains": lambda value, schema: "contains" not in schema or value == 0,
    "maxContains": lambda value, schema: "contains" not in schema,
    "uniqueItems": lambda value, schema: value is False,
    "propertyNames": lambda value, schema: _always(value),
    "dependencies": lambda value, schema: value == {},
    "dependentRequired": lambda value, schema: value == {},
    "dependentSchemas": lambda value, schema: value == {},
    "unevaluatedItems": lambda value, schema: _always(value),
    "unevaluatedProperties": lambda value, schema: _always(value),
    "$dynamicRef": lambda value, schema: False,
    "$recursiveRef": lambda value, schema: False,
    "nullable": lambda value, schema: value is False,  # OpenAPI 3.0
    "x-guidance": lambda value, schema: False,  # It could tell llguidance to leave keywords out.
}
"""What llguidance does not hold a text to, each with the case in which it asks for nothing: (value, schema)."""

FIXES = {
    "nullable": 'write "type": ["...", "null"]',
    "x-guidance": "the arguments of json_schema() decide on whitespace",
    "uniqueItems": "leave it out, and check the parsed value",
    "dependencies": "write the alternatives out with anyOf",
    "dependentRequired": "write the alternatives out with anyOf",
    "if": "write the alternatives out with anyOf",
    "unevaluatedProperties": "use additionalProperties",
}

FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "byte"),
)
"""The formats of texts that are enforced, by llguidance but for those below."""

_YEARS_OF_366_DAYS = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_YEARS_OF_366_DAYS}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

OWN_FORMATS: Mapping[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[tT]{_TIME}$",
    "byte": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",  # OpenAPI: base64
}
"""Formats as patterns, the first three of RFC 3339: llguidance's own let 2023-02-29 pass, and leap seconds at any time.
No leap second passes here."""

NUMBER_FORMATS: Mapping[str, Mapping[str, int]] = {
    "int32": {"minimum": -(1 << 31), "maximum": (1 << 31) - 1},
    "int64": {},
    "float": {},
    "double": {},
}
"""OpenAPI's formats of numbers, with the bounds that they mean."""
