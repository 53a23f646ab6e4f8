"""HTML made of elements, so that what users typed cannot become a part of it unescaped."""

import html
from collections.abc import Iterable, Sequence

VOID = {"img", "meta"}
"""Elements that hold nothing and are never closed."""

INLINE = {"a", "code", "span", "strong"}
"""Elements within a line: a line break after one would be a space."""

NONE = "–"
"""In a cell that has nothing to say."""


class Markup(str):
    """Text that is HTML already; any other text is escaped where it is put inside an element."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Text as HTML."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def joined(parts: Iterable[str]) -> Markup:
    """Parts one after the other; those that are text are escaped."""
    return Markup("".join(map(escaped, parts)))


def tag(name: str, /, *inside: str, **attributes: str) -> Markup:
    """An element. `class_` is the attribute class; text inside and attributes are escaped."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    end = "" if name in INLINE else "\n"
    return Markup(f"<{name}{given}>{joined(inside)}</{name}>{end}")


def table(
    name: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Sequence[int] = (),
    note: str = "",
) -> Markup:
    """A table that scrolls within itself, and a note under it, which does not; the first cell of a
    row is its header, `numeric` columns are set to the right."""
    tone = {column: {"class_": "number"} for column in numeric}
    titles = [tag("th", cell, scope="col", **tone.get(i, {})) for i, cell in enumerate(head)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, **tone.get(i, {})) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    whole = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *body), aria_label=name)
    # one that scrolls has to be reached by keyboard too
    scrolling = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=name)
    return joined([scrolling, tag("p", note, class_="quiet")] if note else [scrolling])


def counted(count: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
