"""What a seed states about a database, row by row, and PostgreSQL's catalogue in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

# A seed's type by PostgreSQL's name. An event is an instant: "timezone-aware if needed" (seed 002).
EQUIVALENTS = {
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
    "DATETIME": "timestamp with time zone",
    "DECIMAL": "numeric",
    "INT": "integer",
    "JSON": "jsonb",
    "JSONB": "jsonb",
    "TEXT": "text",
    "TIMESTAMP": "timestamp with time zone",
    "TIMESTAMP of a wall clock": "timestamp without time zone",
    "UUID": "uuid",
    "BLOB": "bytea",
}


@dataclass(frozen=True)
class Column:
    """A column that a seed states; None and False where it says nothing.

    `of` names the ledger's column behind a view's; `says` a word of the purpose.
    """

    table: str
    name: str
    type: str | None = None
    null: bool | None = None
    default: str | None = None
    generated: bool = False
    key: bool = False
    unique: bool = False
    indexed: bool = False
    references: str | None = None
    of: str | None = None
    says: str = ""

    def facts(self) -> Iterator[tuple[str, str]]:
        """Each thing that is stated: what about, and what."""
        if self.type is not None:
            yield "type", self.type
        if self.null is not None:
            yield "null", "yes" if self.null else "no"
        if self.default is not None:
            yield "default", self.default
        if self.generated:
            yield "default", "generated"
        if self.key:
            yield "key", "primary"
        if self.unique:
            yield "unique", "yes"
        if self.indexed:
            yield "indexed", "yes"
        if self.references is not None:
            yield "references", self.references
        if self.of is not None:
            yield "of", self.of
        if self.says:
            yield "comment", self.says


@dataclass(frozen=True)
class Index:
    """An index that a seed names, and the columns it begins with."""

    table: str
    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """A primary key of several columns."""

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Only:
    """All there is of a kind on a table: its unique keys, its foreign keys."""

    table: str
    kind: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """Values that a column is limited to; `words` all stand in one check constraint."""

    table: str
    column: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Trigger:
    """A function that runs at every update of a table's rows."""

    table: str
    function: str


Row = Column | Index | Key | Only | Check | Trigger


@dataclass(frozen=True)
class Fact:
    """One statement: `photos.path`, `type`, `VARCHAR(1024)`."""

    seed: str
    subject: str
    aspect: str
    stated: str

    def __str__(self) -> str:
        return f"{self.seed}: {self.subject} {self.aspect}"


def facts(seed: str, rows: list[Row]) -> list[Fact]:
    """Every statement of a seed, one by one."""
    found = []
    for row in rows:
        match row:
            case Column():
                subject = f"{row.table}.{row.name}"
                found += [Fact(seed, subject, aspect, value) for aspect, value in row.facts()]
            case Index():
                found.append(Fact(seed, row.name, "index", f"{row.table} ({_list(row.columns)})"))
            case Key():
                found.append(Fact(seed, row.table, "key", f"({_list(row.columns)})"))
            case Only():
                found.append(Fact(seed, row.table, row.kind, f"({_list(row.columns)})"))
            case Check():
                subject = f"{row.table}.{row.column}"
                found.append(Fact(seed, subject, "check", ", ".join(row.words)))
            case Trigger():
                found.append(Fact(seed, row.table, "trigger", row.function))
    return found


@dataclass
class Catalogue:
    """PostgreSQL's own answers. A view's rules are those of the column behind it."""

    columns: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    behind: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    constraints: list[dict[str, Any]] = field(default_factory=list)
    indexes: list[dict[str, Any]] = field(default_factory=list)
    triggers: set[tuple[str, str]] = field(default_factory=set)
    tables: dict[str, str | None] = field(default_factory=dict)

    def answer(self, fact: Fact) -> str:
        """What PostgreSQL has where the seed states something, in the seed's words."""
        table, _, column = fact.subject.partition(".")
        if fact.aspect == "index":
            return self._index(fact.subject, fact.stated.split(" ")[0])
        if fact.aspect == "key" and not column:
            return self._key(table)
        if fact.aspect in ("unique keys", "foreign keys"):
            return self._only(table, "u" if fact.aspect == "unique keys" else "f")
        if fact.aspect == "trigger":
            base = self._base(table)
            return ", ".join(sorted(f for t, f in self.triggers if t == base)) or "none"
        if (table, column) not in self.columns:
            return "no such column"
        return str(getattr(self, f"_{fact.aspect}")((table, column), fact.stated))

    def _type(self, place: tuple[str, str], stated: str) -> str:
        found = self.columns[place]
        if found["labels"]:
            return "ENUM(" + ",".join(f"'{label}'" for label in found["labels"]) + ")"
        kind = str(found["type"])
        if EQUIVALENTS.get(stated) == kind:
            return stated
        if stated == "VARCHAR" and kind.startswith("character varying"):
            return stated  # of any length
        return re.sub("^character varying", "VARCHAR", kind)

    def _null(self, place: tuple[str, str], stated: str) -> str:
        return "no" if self._behind(place)["notnull"] else "yes"

    def _default(self, place: tuple[str, str], stated: str) -> str:
        found = self._behind(place)
        if found["identity"]:
            return "generated"
        default = re.sub(r"::[\w ]+$", "", found["expression"] or "none")
        return "generated" if default == "gen_random_uuid()" else default

    def _key(self, place: tuple[str, str] | str, stated: str = "") -> str:
        if isinstance(place, str):
            keys = [
                c["columns"] for c in self.constraints if (c["table"], c["kind"]) == (place, "p")
            ]
            return f"({_list(keys[0])})" if keys else "none"
        table, column = self.behind.get(place, place)
        kinds = [
            c["kind"] for c in self.constraints if c["table"] == table and c["columns"] == [column]
        ]
        return "primary" if "p" in kinds else "unique" if "u" in kinds else "none"

    def _unique(self, place: tuple[str, str], stated: str) -> str:
        table, column = self.behind.get(place, place)
        for index in self.indexes:
            if index["table"] == table and index["columns"] == [column] and index["unique"]:
                return f"where {index['where']}" if index["where"] else "yes"
        return "no"

    def _indexed(self, place: tuple[str, str], stated: str) -> str:
        table, column = self.behind.get(place, place)
        whole = [i for i in self.indexes if i["table"] == table and not i["where"]]
        return "yes" if any(i["columns"][:1] == [column] for i in whole) else "no"

    def _references(self, place: tuple[str, str], stated: str) -> str:
        table, column = self.behind.get(place, place)
        for c in self.constraints:
            if c["kind"] == "f" and c["table"] == table and c["columns"] == [column]:
                return f"{c['other']}.{c['other_columns'][0]}"
        return "nothing"

    def _of(self, place: tuple[str, str], stated: str) -> str:
        return self.behind.get(place, ("", "nothing"))[1]

    def _comment(self, place: tuple[str, str], stated: str) -> str:
        comment = self._behind(place)["comment"] or "none"
        return stated if stated.lower() in comment.lower() else comment

    def _check(self, place: tuple[str, str], stated: str) -> str:
        table, column = self.behind.get(place, place)
        for c in self.constraints:
            if c["kind"] == "c" and c["table"] == table and column in c["columns"]:
                words = stated.split(", ")
                if all(word in c["definition"] for word in words):
                    return stated
        return "none"

    def _index(self, name: str, table: str) -> str:
        for index in self.indexes:
            if index["name"] == name and index["table"] == self._base(table):
                ours = {v: k[1] for k, v in self.behind.items() if k[0] == table}
                columns = [ours.get((index["table"], c), c) for c in index["columns"]]
                where = f" WHERE {index['where']}" if index["where"] else ""
                return f"{table} ({_list(columns)}){where}"
        return "none"

    def _only(self, table: str, kind: str) -> str:
        found = [c["columns"] for c in self.constraints if (c["table"], c["kind"]) == (table, kind)]
        if kind == "u":
            found += [
                i["columns"]
                for i in self.indexes
                if i["table"] == table and i["unique"] and i["where"]
            ]
        return f"({_list(sorted(c for columns in found for c in columns))})"

    def _base(self, table: str) -> str:
        return next((base for (view, _), (base, _) in self.behind.items() if view == table), table)

    def _behind(self, place: tuple[str, str]) -> dict[str, Any]:
        return self.columns[self.behind.get(place, place)]


def _list(columns: Any) -> str:
    return ", ".join(columns)


COLUMNS = """
    SELECT c.relname AS table, c.relkind = 'v' AS view, a.attname AS column,
           format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS notnull,
           a.attidentity <> '' AS identity, pg_get_expr(d.adbin, d.adrelid) AS expression,
           col_description(c.oid, a.attnum) AS comment,
           (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum
            WHERE enumtypid = a.atttypid) AS labels
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
      AND NOT a.attisdropped
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text AS table, contype::text AS kind, conname AS name,
           confrelid::regclass::text AS other, pg_get_constraintdef(oid) AS definition,
           coalesce((SELECT array_agg(attname::text ORDER BY n) FROM unnest(conkey)
              WITH ORDINALITY AS k (num, n) JOIN pg_attribute
              ON attrelid = conrelid AND attnum = num), '{}') AS columns,
           (SELECT array_agg(attname::text ORDER BY n) FROM unnest(confkey)
              WITH ORDINALITY AS k (num, n) JOIN pg_attribute
              ON attrelid = confrelid AND attnum = num) AS other_columns
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""
INDEXES = """
    SELECT indrelid::regclass::text AS table, indexrelid::regclass::text AS name,
           indisunique AS unique, pg_get_expr(indpred, indrelid) AS where,
           (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = indexrelid) AS columns
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE c.relnamespace = 'public'::regnamespace
"""
TRIGGERS = """
    SELECT tgrelid::regclass::text AS table, tgfoid::regproc::text AS function
    FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 16 = 16 AND tgattr = ''
"""
TABLES = """
    SELECT relname AS table, obj_description(oid) AS comment FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
"""
VIEWS = """
    SELECT viewname AS view, pg_get_viewdef(viewname::regclass, true) AS definition
    FROM pg_views WHERE schemaname = 'public'
"""


def read_catalogue(connection: psycopg.Connection[Any]) -> Catalogue:
    """The catalogue of a database's schema `public`."""
    cursor = connection.cursor(row_factory=dict_row)
    found = Catalogue()
    for row in cursor.execute(COLUMNS):
        found.columns[row["table"], row["column"]] = row
    found.constraints = cursor.execute(CONSTRAINTS).fetchall()
    found.indexes = cursor.execute(INDEXES).fetchall()
    found.triggers = {(r["table"], r["function"]) for r in cursor.execute(TRIGGERS)}
    found.tables = {r["table"]: r["comment"] for r in cursor.execute(TABLES)}
    for row in cursor.execute(VIEWS):
        found.behind |= _behind(row["view"], row["definition"])
    return found


def _behind(view: str, definition: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Which table's column each plain column of a view is."""
    selected, _, source = definition.partition(" FROM ")
    names = dict(re.findall(r"(\w+) (\w)(?=\s|;|$)", source))  # alias by table
    aliases = {alias: table for table, alias in names.items()}
    only = re.match(r"\s*(\w+)", source)
    found = {}
    for item in selected.removeprefix(" SELECT").split(","):
        match = re.fullmatch(r"\s*(?:(\w+)\.)?(\w+)(?: AS (\w+))?\s*", item)
        if match and only:
            table = aliases.get(match[1] or "", match[1] or only[1])
            found[view, match[3] or match[2]] = (table, match[2])
    return found
