"""The pages in a real browser: Debian's chromium without a window, driven by selenium."""

import itertools
import random
import shutil
from pathlib import Path

import pytest
from page_tools import attacked
from record_tools import ROOT, TASK, attack, controlled

from evaluation.records import read_records
from experiments.scales import SCALES
from experiments.study import STUDY
from reporting.page import gallery, report, texts
from reporting.page.blocks import of_sub_tables, of_tables
from reporting.paper_tables import sub_tables
from reporting.summary_table import make_tables

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), "")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
]
ARABIC = "\u0641\u064a\u0644\u0645"
TEXTS = [
    ("<script>document.title = 'run'</script> a good film", "<script>x</script> a goood film"),
    (f"{ARABIC} \u0631\u0627\u0626\u0639", f"{ARABIC} \u062c\u064a\u062f"),
    ("\U0001f600 great \U0001f44d film", "\U0001f600 grand \U0001f44d film"),
    ("</script><img src=x onerror=alert(1)> film", "</script><img src=y onerror=alert(1)> film"),
]
ROWS = 300
LOOKS = [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """hard: odd texts, five seeds. study: rows that were not run. one: one record. gallery."""
    top = tmp_path_factory.mktemp("pages")
    draw = random.Random(0)
    pairs = [(f"{a} {i}", f"{b} {i}") for i, (a, b) in zip(range(ROWS), itertools.cycle(TEXTS))]
    for seed in range(1, 6):
        for name, make, right in (("ticket", controlled, 5), ("dense", attack, 3)):
            letters = "".join(draw.choice("r" * right + "f" * (8 - right) + "ww") for _ in pairs)
            record = make(seed=seed, row_outcomes=letters)
            attacked(top / "hard" / f"seed{seed}" / name, record, pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_similarities", lambda of: dict.fromkeys(of, 0.5))
        blocks = of_tables(make_tables(read_records([top / "hard"])), "Hard")
        hard = report.write(top / "hard-page", "Hard", blocks, [str(top / "hard")])
    records = ROOT / "results" / "study" / "study-records.jsonl"
    subs = [
        sub
        for task in STUDY.tasks
        for sub in sub_tables(STUDY, task, SCALES["study"], read_records([records]), "last")
    ]
    study = report.write(top / "study", "Study", of_sub_tables(subs), [str(records)])
    attacked(top / "one", attack(row_outcomes="rf" * 4), pairs[:8])
    tables = make_tables(read_records([top / "one"]))
    one = report.write(top / "one-page", "One", of_tables(tables, "One"), [])
    gallery.write(top, [str(records.parent / "tickets")], read_records([records]))
    return {"hard": hard, "study": study, "one": one, "gallery": top / "tickets.html"}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("profile")
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={folder}"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, pages):
    """Opens a page; at the end the console must be empty."""

    def open_page(name: str, width: int = 1280, scheme: str = "light"):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get(pages[name].as_uri())
        return chromium

    yield open_page
    assert not chromium.get_log("browser")


def find(driver, selector: str) -> list:
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())"
    )
    return driver.execute_script(script, selector)


def choose(driver, section: str, name: str, text: str) -> None:
    """Choose an option as a person does."""
    script = """const field = document.querySelector(arguments[0]);
        field.value = [...field.options].find((o) => o.text.startsWith(arguments[1])).value;
        field.dispatchEvent(new Event("input", { bubbles: true }));"""
    driver.execute_script(script, f'{section} select[name="{name}"]', text)


def output(driver, section: str) -> str:
    return find(driver, f"{section} output")[0].text


@pytest.mark.parametrize("name, looks", [("study", 4), ("hard", 2), ("one", 2), ("gallery", 2)])
def test_each_section_fits_a_desk_and_a_phone(opened, name, looks, tmp_path):
    for width, scheme in LOOKS[:looks]:
        driver = opened(name, width, scheme)
        root = "return document.documentElement"
        assert driver.execute_script(f"{root}.scrollWidth <= window.innerWidth"), (width, scheme)
        for number, section in enumerate(find(driver, "section")):
            driver.execute_script("arguments[0].scrollIntoView()", section)
            picture = tmp_path / f"{name}-{number}-{width}-{scheme}.png"
            assert driver.save_screenshot(str(picture)) and picture.stat().st_size > 5000


def test_the_table_sorts_and_filters(opened):
    driver = opened("study")
    run = len(find(driver, "#table tr[data-state=run]"))
    assert output(driver, "#table").startswith(f"{run} of ") and run > 10
    heading = find(driver, "th[data-column=aua] .sort")[0]
    values = "return [...document.querySelectorAll('#table tbody tr:not([hidden]) td.aua')]"
    values += ".map((cell) => cell.dataset.value)"
    for in_order in (lambda v: sorted(v, reverse=True), sorted):
        heading.click()
        shown = list(map(float, driver.execute_script(values)))
        assert shown == in_order(shown) and len(set(shown)) > 10
    choose(driver, "#table", "", "Clean")  # as on a phone, which shows no headings
    clean = list(map(float, driver.execute_script(values.replace("td.aua", "td.clean"))))
    assert clean == sorted(clean, reverse=True)
    choose(driver, "#table", "task", "sst2")
    choose(driver, "#table", "sparsity", "50 %")
    rows = find(driver, "#table tbody tr")
    assert rows and all("sst2" in row.text and "50 %" in row.text for row in rows)
    choose(driver, "#table", "state", "that are missing")
    rows = find(driver, "#table tbody tr")
    assert all("Not run." in row.text for row in rows)
    find(driver, "#table button[type=reset]")[0].click()
    assert output(driver, "#table").startswith(f"{run} of ")


def test_a_definition_opens_with_the_keyboard(opened):
    driver = opened("study")
    button = find(driver, "th[data-column=aua] .define")[0]
    assert not find(driver, "#define-aua")
    button.send_keys("\ue007")  # Enter
    assert find(driver, "#define-aua")[0].text.startswith("Aua %. Accuracy under attack")


def test_the_command_of_a_missing_row_is_copied(opened):
    driver = opened("study")
    rights = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    driver.execute_cdp_cmd("Browser.grantPermissions", rights)
    choose(driver, "#table", "state", "that are missing")
    find(driver, "#table button[data-copy]")[0].click()
    read = "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))"
    assert driver.execute_async_script(read).startswith("sh reproduce.sh study --scale study")
    assert driver.execute_script("return document.getElementById('status').textContent") == "Copied"


def test_texts_switch_and_filter_and_are_never_run(opened):
    driver = opened("hard")
    assert driver.title == "Hard" and not driver.find_elements("css selector", "#texts img")
    assert output(driver, "#texts") == f"{ROWS} of {ROWS} rows"
    articles = texts_of(driver, "article")
    assert len(articles) == 200
    assert "<script>document.title = 'run'</script> a good film 0" in articles[0]
    assert texts_of(driver, "article:nth-child(3) ins") == ["grand", "grand"]
    find(driver, "#texts .more")[0].click()
    assert len(texts_of(driver, "article")) == ROWS
    choose(driver, "#texts", "outcome", "A holds, B falls")
    words = texts_of(driver, ".answer .facts b")
    assert set(words[::2]) == {"A held"} and set(words[1::2]) == {"B fell"}
    before = output(driver, "#texts")
    choose(driver, "#texts", "a", "robust ticket, 30 %, seed 4")
    choose(driver, "#texts", "b", "robust ticket, 30 %, seed 5")
    assert output(driver, "#texts") != before
    find(driver, "#texts button[name=swap]")[0].click()
    a = "return document.querySelector('#texts select[name=a]').selectedOptions[0].text"
    assert driver.execute_script(a).startswith("robust ticket, 30 %, seed 5")


def texts_of(driver, selector: str) -> list[str]:
    """Of elements in the section of texts, also of those that are not in view."""
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return driver.execute_script(script, f"#texts {selector}")


def test_two_hundred_rows_appear_in_a_moment(opened):
    """Not timed by the clock of the machine: the number of elements bounds the work."""
    driver = opened("hard")
    count = "return document.querySelectorAll('#texts *').length"
    assert driver.execute_script(count) < 200 * 40


def test_the_code_of_a_ticket_is_copied(opened):
    driver = opened("gallery")
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    find(driver, "button[data-copy]")[0].click()
    read = "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))"
    assert driver.execute_async_script(read).startswith("from training.ticketed import load")
    assert TASK in find(driver, ".card")[0].text
