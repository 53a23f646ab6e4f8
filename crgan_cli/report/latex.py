"""A report's table for LaTeX."""

import re
import unicodedata
from collections.abc import Sequence

from crgan_cli.report.model import Report
from crgan_cli.report.tables import (
    build_columns,
    format_metric_title,
    list_remarks,
    list_shown_metrics,
)
from crgan_cli.runs.metric_names import find_metric

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "[": "{[}",  # after a line's end it would begin a length
    "]": "{]}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}

UPPER_GREEK = (
    *("GAMMA", "DELTA", "THETA", "LAMBDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"),
)
"""The capital letters that LaTeX has; the others look like Latin ones."""

ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u"},
    **{"\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}
"""A combining accent -> LaTeX's."""


ABBREVIATIONS = ("fid", "fd", "kid", "is", "ppl", "psnr", "ssim", "swd", "ms")
"""Words of metrics' names that are written in capitals."""


def to_latex(report: Report) -> str:
    r"""Return a tabular for \usepackage{booktabs,adjustbox}: no wider than its column.

    The best row's primary metric is bold. Long names of metrics stand below the table.
    """
    short = shorten_metrics(list_shown_metrics(report))
    titles = {
        format_metric_title(name): format_metric_title(name).replace(name, head)
        for name, head in short.items()
    }
    columns = [
        column._replace(title=titles.get(column.title, column.title))
        for column in build_columns(report)
        if column.title != "note"
    ]
    notes = [escape_latex(f"{head}: {name}") for name, head in short.items() if head != name]
    head, *body = zip(*(map(escape_latex, column.lines) for column in columns), strict=True)
    if body:
        label, best, *rest = body[0]
        body[0] = (label, rf"\textbf{{{best}}}", *rest)
    spec = "".join("r" if column.numeric else "l" for column in columns)
    head, *body = [f"  {' & '.join(cells)} \\\\" for cells in (head, *body)]
    lines = [
        *(f"% {make_comment(text)}" for text in (report.title, *list_remarks(report))),
        r"% \usepackage{booktabs,adjustbox}",
        r"\begin{adjustbox}{max width=\linewidth}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"  \toprule",
        head,
        r"  \midrule",
        *body,
        r"  \bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        *([rf"\par\smallskip{{\footnotesize {'; '.join(notes)}\par}}"] if notes else []),
    ]
    return "\n".join(lines) + "\n"


def shorten_metrics(names: Sequence[str]) -> dict[str, str]:
    """Return a short head for each number: its metric, with a number if several are of one.

    A name that says no more than its metric stays.
    """
    metrics = [find_metric(name) for name in names]
    heads = {}
    for number, (name, metric) in enumerate(zip(names, metrics, strict=True)):
        words = (w.upper() if w in ABBREVIATIONS else w for w in metric.split("_"))
        which = f" {metrics[:number].count(metric) + 1}" if metrics.count(metric) > 1 else ""
        heads[name] = name if name == metric else " ".join(words) + which
    return heads


def make_comment(text: str) -> str:
    """Return a text as one ASCII line, for a comment: only what ASCII lacks is escaped."""
    words = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(sign if sign.isascii() else escape_latex_sign(sign) for sign in words)


def escape_latex(text: str) -> str:
    """Return a text as ASCII that LaTeX sets as it is; signs that it lacks as U+ and a number."""
    return "".join(map(escape_latex_sign, unicodedata.normalize("NFC", text)))


def escape_latex_sign(sign: str) -> str:
    """Return a sign for LaTeX."""
    if sign in LATEX or sign.isascii():
        return LATEX.get(sign, sign)
    base, *accents = unicodedata.normalize("NFD", sign)
    if base.isascii() and len(accents) == 1 and accents[0] in ACCENTS:
        return f"\\{ACCENTS[accents[0]]}{{{base}}}"
    greek = re.fullmatch("GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", unicodedata.name(sign, ""))
    if greek and greek[2] != "OMICRON":
        name = greek[2].replace("LAMDA", "LAMBDA")
        if greek[1] == "SMALL":
            return f"$\\{name.lower()}$"
        if name in UPPER_GREEK:
            return f"$\\{name.title()}$"
    return f"U+{ord(sign):04X}"
