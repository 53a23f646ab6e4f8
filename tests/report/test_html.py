"""The page of a report: whole, safe whatever users typed, and the same in a real browser."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.reports import picture, report_of, row_of, run_of, sweep

from crgan_cli.report import grids
from crgan_cli.report.html import build_page
from crgan_cli.report.model import Comparison, Report
from crgan_cli.report.write import write_report
from crgan_cli.runs.status import Status

BROWSERS = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
REQUIRED = "CRGAN_TEST_BROWSER"
"""Set to "required" where a missing browser is a failure and not a reason to skip."""

VOID = {"img", "meta"}
"""Elements that hold nothing and are never closed."""

NASTY = """<script>alert("1")</script> & 'a' <img src=x onerror=alert(1)>"""


class Elements(HTMLParser):
    """The elements of a page; raises AssertionError where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []  # text that is shown
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> closes itself in SVG alone"
        self.found.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag == name]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture
def full(tmp_path: Path) -> Report:
    """A report with something in every section, and nasty words wherever users have a say."""
    report = sweep(tmp_path)
    first, second, third = report.rows
    read = {"share": 0.25, "low": 0.2, "high": 0.3}
    made = {"T": "Cutout", "size": NASTY}
    body = {"transform": made, "generated": read, "floor": {"share": 0.01}}
    record = {"transforms": {"cutout": body}}
    grid = picture(tmp_path / "grids" / "step_00000200.png", 100)
    runs = [r._replace(samples=grid, artefacts={"leakage": record}) for r in first.runs]
    failed = run_of(tmp_path / NASTY, 3, (), status=Status.FAILED, error=f"a nan {NASTY}")
    return report._replace(
        title=NASTY,
        rows=(
            first._replace(
                runs=tuple(runs),
                published="18.5: ours -3.50, within our spread",
                comparable=18.5,
            ),
            second._replace(note=NASTY, runs=(*second.runs, failed)),
            third._replace(label=NASTY, settings={"lambda": 100, NASTY: NASTY}),
        ),
        comparisons=(Comparison("lambda=10", NASTY, 0.02, f"worse {NASTY}"),),
        warnings=(f"a warning {NASTY}",),
    )


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_balanced_and_its_names_are_unique(full: Report) -> None:
    found = Elements(build_page(full))
    names = [each["id"] for _, each in found.found if "id" in each]
    assert len(names) == len(set(names))
    links = [each["href"] for each in found.all("a")]
    assert len(links) == 7
    assert {link.removeprefix("#") for link in links} <= set(names)
    assert found.all("html") == [{"lang": "en"}]


def test_tables_have_headers_for_columns_and_rows_and_can_be_reached_by_keyboard(
    full: Report,
) -> None:
    found = Elements(build_page(full))
    places = [i for i, (tag, _) in enumerate(found.found) if tag == "table"]
    assert [found.found[i][1]["aria-label"] for i in places] == [
        "Results",
        "Further metrics",
        "Artefact measurements",
        "Runs",
    ]
    for i in places:
        tag, attributes = found.found[i - 1]
        assert (tag, attributes["class"], attributes["tabindex"]) == ("div", "scroll", "0")
        assert attributes["aria-label"] == found.found[i][1]["aria-label"]
        below = found.found[i : next((j for j in places if j > i), None)]
        columns = [each for tag, each in below if tag == "th" and each["scope"] == "col"]
        rows = [each for tag, each in below if tag == "th" and each["scope"] == "row"]
        cells = [each for tag, each in below if tag == "td"]
        assert len(cells) == len(rows) * (len(columns) - 1) > 0
        body = [each for each in below if each[0] == "td" or each[1].get("scope") == "row"]
        header = [tag for tag, _ in body].index("th")
        kinds = [each.get("class") for each in columns]
        assert kinds[0] == "number", "numbers first"
        del kinds[header]
        assert [each.get("class") for each in cells] == kinds * len(rows)


def test_text_is_escaped_once(full: Report) -> None:
    text = build_page(full._replace(title="a<b & \"c\" 'd'"))
    assert "<h1>a&lt;b &amp; &#34;c&#34; &#39;d&#39;</h1>" in text
    assert "&amp;lt;" not in text


def test_the_page_needs_nothing_else(full: Report) -> None:
    text = build_page(full)
    found = Elements(text)
    assert not {tag for tag, _ in found.found} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in found.found:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "srcset", "data"):
                assert value.startswith(("#", "data:image/png;base64,"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_what_users_typed_is_shown_and_never_obeyed(full: Report) -> None:
    text = build_page(full)
    assert "<script" not in text
    assert "<img src=x" not in text
    shown = Elements(text).text
    # title, warning, setting (key and value), note, comparison (twice), T, folder, error, label
    assert shown.count(NASTY) >= 10


def test_the_table_has_the_numbers_best_first(full: Report) -> None:
    shown = Elements(build_page(full)).text
    places = [shown.index(each) for each in ("15.0 ± 1.4", "20.0 ± 1.4", "25.0 ± 1.4")]
    assert places == sorted(places)
    assert "fid ↓" in shown
    assert "18.5: ours -3.50, within our spread" in shown
    assert "arXiv:0000.00000, table 1" in shown
    assert "1.00 GiB" in shown
    assert "worse <script>" in shown


def test_the_protocol_is_told_in_words_with_the_hash_of_the_extractor(full: Report) -> None:
    shown = Elements(build_page(full)).text
    assert "400 generated images, the mean over 3 such sets, against 500 real ones" in shown
    assert "ab" * 32 in shown
    assert re.search("measures.kid_subsets ?7", shown)


def test_values_are_spelled_as_they_are_typed(full: Report) -> None:
    values = {"ema.decay": None, "engine.compile": True, "regularizer.lambda_cr": 20.0}
    rows = tuple(row._replace(settings=values) for row in full.rows)
    record = {**full.protocols[0], "truncation": None, "floor": True, "scale": 77.0}
    page = Elements(build_page(full._replace(rows=rows, protocols=(record,))))
    for words in ("ema.decay=null", "engine.compile=true", "regularizer.lambda_cr=20"):
        assert words in page.text
    for words in ("None", "True", "77.0"):
        assert words not in page.text


def test_runs_that_failed_come_first_with_their_error(full: Report) -> None:
    shown = Elements(build_page(full)).text
    runs = shown[shown.rindex("Folder") :]
    assert runs.index("a nan") < runs.index("finished")
    assert "1 failed, 6 finished" in runs


def test_the_picture_is_the_file_and_the_same_seed_is_shown(tmp_path: Path) -> None:
    rows = []
    for name, seeds in (("a", (3, 2)), ("b", (1, 2)), ("c", (5,))):
        runs = [
            run_of(
                tmp_path / f"{name}{seed}",
                seed,
                samples=picture(tmp_path / f"{name}{seed}" / "step_00000200.png", 10 * seed),
            )
            for seed in seeds
        ]
        rows.append(row_of(name, runs, {"row": name}))
    found = Elements(build_page(report_of(rows)))
    alts = [each["alt"] for each in found.all("img")]
    assert [alt.partition(": ")[2] for alt in alts] == [
        "a, seed 2, step 200",
        "b, seed 2, step 200",
        "c, seed 5, step 200",
    ]
    inside = base64.b64decode(found.all("img")[0]["src"].partition(",")[2])
    assert inside == (tmp_path / "a2" / "step_00000200.png").read_bytes()
    assert "Grids of the same seed show the same latents" in found.text
    assert "All show the same latents" in Elements(build_page(report_of(rows[:2]))).text


def test_grids_of_other_priors_are_not_said_to_be_of_the_same_latents(tmp_path: Path) -> None:
    grid = picture(tmp_path / "step_00000001.png", 1)
    rows = [
        row_of(p, [run_of(tmp_path / p, 1, samples=grid, config={"architecture.prior": p})], {})
        for p in ("normal", "uniform")
    ]
    assert "Their latents differ" in Elements(build_page(report_of(rows))).text


def test_grids_that_do_not_fit_on_the_page_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = picture(tmp_path / "step_00000001.png", 1)
    rows = [row_of(n, [run_of(tmp_path / n, 1, samples=grid)], {"row": n}) for n in "abc"]
    monkeypatch.setattr(grids, "MAX_BYTES", 2 * grid.stat().st_size + 1)
    found = Elements(build_page(report_of(rows)))
    assert len(found.all("img")) == 2
    assert "2 of 3 fit on the page" in found.text


def test_runs_without_numbers_pictures_or_measurements_make_a_page(tmp_path: Path) -> None:
    run = run_of(tmp_path / "r", 1, (), status=Status.RUNNING)
    bare = run._replace(train=(), peak_memory_bytes=0, images_per_second=0.0, device="")
    report = report_of([row_of("alone", [bare], {})], protocols=())
    found = Elements(build_page(report))
    assert [each["href"] for each in found.all("a")] == ["#results", "#runs", "#made"]
    assert "alone" in found.text
    gone = bare._replace(samples=tmp_path / "gone.png")
    assert not Elements(build_page(report_of([row_of("alone", [gone], {})]))).all("img")


def test_the_page_is_of_the_time_of_its_runs_and_the_same_whenever_it_is_made(
    tmp_path: Path,
) -> None:
    report = sweep(tmp_path)
    for number, row in enumerate(report.rows):
        file = row.runs[0].path / "metrics.jsonl"
        file.parent.mkdir()
        file.touch()
        os.utime(file, (86400 * number, 86400 * number))
    first = build_page(report)
    assert "1970-01-03 00:00 UTC" in first
    assert build_page(report) == first
    assert write_report(report, tmp_path, ("html",)) == [tmp_path / "report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == first


def test_a_page_is_made_without_torch() -> None:
    code = "import sys, crgan_cli.report.html; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


# --- in a browser ---------------------------------------------------------------------------------

PROBE = """<pre id="probe"></pre><script>
const box = e => e.getBoundingClientRect(), all = q => [...document.querySelectorAll(q)];
const rgb = c => c.match(/[\\d.]+/g).map(Number);
const light = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= 0.03928 ? v / 12.92
  : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const paper = getComputedStyle(document.body).backgroundColor;
const contrast = e => { const [a, b] = [light(getComputedStyle(e).color), light(paper)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
document.getElementById("probe").textContent = JSON.stringify({
  window: innerWidth,
  reaches: document.documentElement.scrollWidth,
  mode: document.compatMode,
  images: all("img").map(e => [e.naturalWidth, box(e).width, getComputedStyle(e).imageRendering]),
  plots: all("svg").map(e => [box(e).width, box(e).height, e.querySelectorAll("path").length]),
  narrowest: Math.min(...all("td.words").map(e => box(e).width)),
  firsts: all("tbody tr > :first-child").map(e => [box(e).right, e.className]),
  missing: all("use").filter(e => !document.querySelector(e.getAttribute("xlink:href"))).length,
  tables: all("table").map(e => [e.rows.length, !!e.closest(".scroll")]),
  asked: performance.getEntriesByType("resource").map(e => e.name)
    .filter(name => !name.startsWith("data:")),
  paper: light(paper),
  faintest: Math.min(...all("h1, p, td, th, figcaption, a, dt, summary").map(contrast)),
});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    """The command of a browser that runs without a screen."""
    found = next((name for name in BROWSERS if shutil.which(name)), None)
    if found is None:
        message = f"no browser: install one of {', '.join(BROWSERS)}"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(message)
        pytest.skip(message)
    return found


def browse(browser: str, file: Path, *options: str) -> str:
    """What the browser prints of a file with these options."""
    answer = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",  # it refuses to run as root otherwise, and opens this file alone
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={file.parent / 'profile'}",
            *options,
            file.as_uri(),
        ],
        capture_output=True,
        timeout=300,
        check=True,
    )
    return answer.stdout.decode()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_browser_shows_the_page(
    full: Report, tmp_path: Path, browser: str, width: int, scheme: str
) -> None:
    copy = tmp_path / "probed.html"
    guarded = build_page(full)
    guard = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', guarded)
    assert guard is not None
    copy.write_text(
        guarded.replace(guard[0], "").replace("</body>", f"{PROBE}</body>"), encoding="utf-8"
    )
    dumped = browse(
        browser,
        copy,
        f"--window-size={width},2000",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        "--dump-dom",
    )
    probe = re.search(r'<pre id="probe">(.+?)</pre>', dumped, re.S)
    assert probe is not None, "the page ran no script of ours"
    seen = json.loads(probe[1].replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<"))
    assert seen["mode"] == "CSS1Compat"
    assert seen["reaches"] <= seen["window"], "only tables and figures scroll sideways"
    assert seen["narrowest"] >= 120, "some words on each line"
    assert seen["firsts"]
    assert all(right < seen["window"] and kind == "number" for right, kind in seen["firsts"])
    assert seen["images"]
    assert all(w > 0 and shown > w and how == "pixelated" for w, shown, how in seen["images"])
    assert len(seen["plots"]) == 5
    assert all(w > 300 and h > 100 and paths > 10 for w, h, paths in seen["plots"])
    assert seen["missing"] == 0
    assert seen["tables"]
    assert all(rows > 1 and scrolls for rows, scrolls in seen["tables"])
    assert seen["asked"] == []
    assert (seen["paper"] > 0.5) == (scheme == "light")
    assert seen["faintest"] >= 4.5, "the contrast that WCAG 2 asks of text"


def test_a_browser_draws_the_page_and_obeys_its_guard(
    full: Report, tmp_path: Path, browser: str
) -> None:
    guarded = tmp_path / "guarded.html"
    sneaked = '<script>document.title = "obeyed"</script></body>'
    guarded.write_text(build_page(full).replace("</body>", sneaked), encoding="utf-8")
    assert "<title>obeyed</title>" not in browse(browser, guarded, "--dump-dom")
    (path,) = write_report(full, tmp_path, ("html",))
    shot = tmp_path / "shot.png"
    browse(browser, path, "--window-size=900,1400", f"--screenshot={shot}")
    with Image.open(shot) as image:
        assert image.size == (900, 1400)
        colours = image.convert("RGB").getcolors(maxcolors=2**20)
    assert colours is not None
    assert len(colours) > 50, "text and plots, not a blank page"
