"""A report's table for LaTeX."""

import re
import unicodedata

from crgan_cli.report.model import Report
from crgan_cli.report.tables import build_columns, list_remarks

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


def to_latex(report: Report) -> str:
    r"""Return a tabular for \usepackage{booktabs,adjustbox}: no wider than the text.

    The best row's primary metric is bold.
    """
    columns = [column for column in build_columns(report) if column.title != "note"]
    head, *body = zip(*(map(escape_latex, column.lines) for column in columns), strict=True)
    if body:
        label, best, *rest = body[0]
        body[0] = (label, rf"\textbf{{{best}}}", *rest)
    spec = "".join("r" if column.numeric else "l" for column in columns)
    head, *body = [f"  {' & '.join(cells)} \\\\" for cells in (head, *body)]
    lines = [
        *(f"% {' '.join(text.split())}" for text in (report.title, *list_remarks(report))),
        r"% \usepackage{booktabs,adjustbox}",
        r"\begin{adjustbox}{max width=\textwidth}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"  \toprule",
        head,
        r"  \midrule",
        *body,
        r"  \bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
    ]
    return "\n".join(lines) + "\n"


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
