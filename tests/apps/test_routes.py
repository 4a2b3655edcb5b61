"""What holds of every route of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kaleidoscope.apps.reference import api_document

LARGEST = 2**63 - 1  # of the database's numbers


def test_no_number_is_larger_than_the_database_takes() -> None:
    """One beyond is refused at the edge (422), and no unexpected error (500)."""
    document: Any = api_document()
    unbounded = [
        f"{method.upper()} {path}: {where}"
        for path, methods in document["paths"].items()
        for method, route in methods.items()
        for where, schema in _asked(document, route)
        if not _is_bounded(schema)
    ]
    assert unbounded == []


def _asked(document: Any, route: Any) -> Iterator[tuple[str, Any]]:
    for parameter in route.get("parameters", []):
        yield from _numbers(document, parameter["name"], parameter["schema"], ())
    for content in route.get("requestBody", {}).get("content", {}).values():
        yield from _numbers(document, "body", content["schema"], ())


def _numbers(
    document: Any, name: str, schema: Any, inside: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Every whole number in a schema, with where it stands."""
    if "$ref" in schema:
        kind = schema["$ref"].rsplit("/", 1)[1]
        if kind not in inside:
            whole = document["components"]["schemas"][kind]
            yield from _numbers(document, name, whole, (*inside, kind))
        return
    if schema.get("type") == "integer":
        yield name, schema
    for one in (*schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        yield from _numbers(document, name, one, inside)
    if isinstance(schema.get("items"), dict):
        yield from _numbers(document, f"{name}[]", schema["items"], inside)
    for key, value in schema.get("properties", {}).items():
        yield from _numbers(document, f"{name}.{key}", value, inside)


def _is_bounded(schema: Any) -> bool:
    if "enum" in schema or "const" in schema:
        return True
    below, most = schema.get("exclusiveMaximum"), schema.get("maximum")
    return (below is not None and below <= LARGEST + 1) or (most is not None and most <= LARGEST)
