"""The page in a real browser: headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import failure, make, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report import write_report

pytestmark = pytest.mark.slow

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = "<script>window.pwned=1</script>\"'>]]><img src=x onerror=window.pwned=1>{{7*7}}${1}</style>"
"""Ends strings, attributes, elements, CDATA sections and templates."""
REPORTS = Path(__file__).parents[2] / "reports"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}


@dataclass
class Loaded:
    """A page, what its console says, and what it asks a network for."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(study: StudySpec, results: list[TrialResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, results, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study in which every text that a user may choose is hostile."""
    base = {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2.0}}
    space: dict[str, Any] = {
        "allocator": [{"name": "uniform"}, {"name": "static", "found": HOSTILE}, {"name": HOSTILE}],
        "model.name": ["mini", HOSTILE],
        "seed": [0, 1],
    }
    study = StudySpec(name="hostile", description=HOSTILE, base=base, space=space)
    first, *others = trials(study)
    made = [one.model_copy(update={"notes": (HOSTILE,), "environment": {"device": HOSTILE}}) for one in make(others)]
    return write_report(study, [failure(first, HOSTILE), *made], tmp_path_factory.mktemp("hostile"))


def opened(browser: Any, path: Path, **options: Any) -> Loaded:
    """A page whose figures are drawn; without JavaScript, one that is loaded."""
    context = browser.new_context(**{"viewport": DESK, **options})
    loaded = Loaded(context.new_page())
    loaded.page.on("console", lambda message: loaded.console.append(message.text))
    loaded.page.on("pageerror", lambda error: loaded.console.append(str(error)))
    loaded.page.on("request", lambda request: loaded.requests.append(request.url))
    loaded.page.goto(path.as_uri())
    if options.get("java_script_enabled", True):
        loaded.page.wait_for_function(
            "() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))"
        )
    return loaded


@pytest.fixture(scope="module")
def desk(browser: Any, report: Path) -> Iterator[Loaded]:
    loaded = opened(browser, report)
    yield loaded
    loaded.page.context.close()


def test_every_figure_is_drawn_without_a_network(desk: Loaded, report: Path) -> None:
    """Each plot has marks; the console is empty, and nothing but the file is read."""
    page = desk.page
    plots = page.locator(".plot").all()
    assert len(plots) == report.read_text(encoding="utf-8").count('class="plot"')
    assert all(
        plot.locator("svg .mark-symbol path, svg .mark-rect path, svg .mark-line path").count() for plot in plots
    )
    assert desk.console == []
    assert {url.split(":")[0] for url in desk.requests} <= {"file", "data"}


ROWS = """(table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"""


def hovered(page: Any, mark: Any) -> str:
    """The hover text at a mark."""
    page.mouse.move(0, 0)
    mark.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    return str(page.locator("#vg-tooltip-element").inner_text())


def test_hover_texts_equal_the_table(desk: Loaded) -> None:
    """Score, standard error and parameters of every point of the trade-off curve."""
    page = desk.page
    rows = page.locator("#chart-trade-off .data table").first.evaluate(ROWS)
    drawn = [mark for mark in page.locator("#plot-trade-off-1 .mark-symbol path").all() if mark.get_attribute("d")]
    assert len(rows) == len(drawn)
    hovers = [hovered(page, mark) for mark in drawn]
    for name, score, parameters, low, _ in rows:
        told = [text for text in hovers if name in text and f"{parameters} parameters" in text and score in text]
        assert told, (name, score, parameters)
        if low != "n/a":
            errors = [float(found[1]) for text in told if (found := re.search(r"± (\d\.\d+)", text))]
            assert any(error == pytest.approx(float(score) - float(low), abs=0.00101) for error in errors), told


def test_the_slider_moves_all_heat_maps_of_its_figure(
    desk: Loaded, study: StudySpec, results: list[TrialResult]
) -> None:
    """By keyboard too: at the beginning, adalora's cells are its initial ranks; at the end, those of the table."""
    page = desk.page
    figure = page.locator("#chart-ranks-1")
    slider, shown = figure.locator(".slider input"), figure.locator(".slider output")
    plot = figure.locator(".plot").first
    table = figure.locator(".data table").first
    final = [float(text) for _, *texts in table.evaluate(ROWS) for text in texts]

    def numbers() -> list[float]:
        page.wait_for_timeout(100)
        return [
            float(text)
            for text in plot.locator(".mark-text:not([class*=role-]) text, .role-mark text").all_text_contents()
        ]

    assert numbers() == pytest.approx(final, abs=0.051)
    slider.focus()
    page.keyboard.press("Home")
    assert shown.inner_text() == slider.get_attribute("aria-valuetext") == "step 0 of 300"
    first = [
        result.ranks[0].ranks
        for result in results
        if result.ranks
        and result.spec["task"]["name"] == "mini-cola"
        and result.spec["allocator"]["name"] == "adalora"
        and result.spec["budget"]["mean_rank"] == 2.0
    ]
    assert sum(numbers()) == pytest.approx(sum(map(sum, first)) / len(first), abs=0.05 * len(final))
    page.keyboard.press("End")
    assert shown.inner_text() == "after training"
    assert numbers() == pytest.approx(final, abs=0.051)


def test_everything_is_named_and_reached_by_keyboard(desk: Loaded) -> None:
    """Figures have a name, a description, a text alternative and their data; tables have captions and row heads."""
    page = desk.page
    for figure in page.locator("figure").all():
        for reference in ("aria-labelledby", "aria-describedby"):
            assert page.locator(f"#{figure.get_attribute(reference)}").text_content().strip()
        assert figure.locator(".data table").count() >= figure.locator(".plot").count()
        assert all("in the table below" in plot.get_attribute("aria-label") for plot in figure.locator(".plot").all())
    for table in page.locator("table").all():
        assert table.locator("caption").text_content().strip()
        assert table.locator("tbody tr").count() == table.locator('tbody th[scope="row"]').count()
    wanted = page.locator("a, button, input, summary").count()
    assert (
        page.locator("a, button, input, summary").evaluate_all("(all) => all.filter((o) => o.tabIndex >= 0).length")
        == wanted
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_plot(browser: Any, report: Path, scheme: str) -> None:
    """The page does not scroll sideways, and marks take most of the screen's width."""
    loaded = opened(browser, report, viewport=PHONE, color_scheme=scheme)
    page = loaded.page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    widths = {
        plot.get_attribute("id"): plot.locator("svg g.root .background").first.bounding_box()["width"]
        for plot in page.locator(".plot").all()
    }
    assert min(widths.values()) > 0.55 * PHONE["width"], widths
    loaded.page.context.close()


@pytest.mark.parametrize("name", ["quickstart", "e2e_smollm2", "benchmark_lite"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
def test_the_first_screen_answers(browser: Any, name: str, screen: dict[str, int]) -> None:
    """What was asked, the result with how sure it is, what to use and the limits end above the fold."""
    loaded = opened(browser, REPORTS / name / "index.html", viewport=screen)
    facts = loaded.page.locator(".facts div").all()
    labels = {fact.locator("dt").inner_text(): fact.bounding_box() for fact in facts}
    assert {"Asked", "Result", "What to use", "Limits"} <= set(labels)
    assert all(box["y"] + box["height"] < screen["height"] for box in labels.values()), labels
    loaded.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_names_run_no_script(browser: Any, hostile: Path, scheme: str) -> None:
    """They are shown as text, in hover texts too."""
    loaded = opened(browser, hostile, color_scheme=scheme)
    page = loaded.page
    page.locator("#plot-trade-off-1 svg .mark-symbol path").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    for button in page.locator(".legend button, th button").all():
        if button.is_visible():
            button.click()
    assert page.evaluate("window.pwned") is None
    assert HOSTILE in page.locator(".lead").inner_text()
    assert page.locator("img").count() == 0
    assert loaded.console == []
    page.context.close()


def luminance(colour: str) -> float:
    """The relative luminance of `rgb(r, g, b)`, between 0 and 1 (WCAG 2)."""
    values = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(colour: str, ground: str) -> float:
    """The contrast ratio of two colours, between 1 and 21 (WCAG 2)."""
    high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => {
  const paper = getComputedStyle(document.body).backgroundColor;
  const of = (selector, property) =>
    [...document.querySelectorAll(selector)].map((one) => getComputedStyle(one)[property]);
  const texts = ["p", "li", "h2", "h4", "figcaption", "td", "th", "a", "summary"].flatMap((name) => of(name, "color"));
  return [paper, [...new Set([...texts, ...of(".plot svg .role-axis text", "fill")])]];
}"""


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable_on_screen_and_on_paper(browser: Any, report: Path, scheme: str, media: str) -> None:
    """All texts have the contrast of WCAG's level AA, and paper is white where the screen is dark."""
    loaded = opened(browser, report, color_scheme=scheme)
    loaded.page.emulate_media(media=media, color_scheme=scheme)
    paper, colours = loaded.page.evaluate(COLOURS)
    assert (luminance(paper) > 0.5) == (media == "print" or scheme == "light")
    assert {colour: contrast(colour, paper) for colour in colours if contrast(colour, paper) < 4.5} == {}
    loaded.page.context.close()


def test_without_javascript_the_pictures_appear(browser: Any, report: Path) -> None:
    """Each figure shows its file, and has no empty frame."""
    page = opened(browser, report, java_script_enabled=False).page
    widths = page.locator("figure noscript img").evaluate_all("(all) => all.map((one) => one.naturalWidth)")
    assert len(widths) == page.locator("figure").count() > 0
    assert min(widths) > 300
    assert all(box.bounding_box() is None for box in page.locator("figure .plot, figure .legend").all())
    page.context.close()
