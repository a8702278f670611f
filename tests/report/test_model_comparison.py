import pytest

from tests.comparison import made
from tests.helpers.browser import Tab, chromium
from tests.report.pages import Page, check_accessible, check_self_contained

pytestmark = pytest.mark.same_on_every_backend


def test_the_page_shows_the_figures_and_the_advice():
    _, found, source = made.page()
    page = Page(source)
    check_self_contained(page)
    check_accessible(page)
    assert found["advice"].replace("<i>", "") in page.text.replace("<i>", "")
    for text in ("288,550", "12.20 M", "1.20 G", "0.6", "all 320", "my <images>", "<b>&'\""):
        assert text in page.text
    for row in found["table"]:
        assert f"{100 * row['accuracy']['mean']:.1f} %" in page.text


def test_a_page_of_one_training():
    _, found, source = made.page(models=("cnn",), numbers=("all",), repeats=1)
    page = Page(source)
    assert found["verdict"] == "one kind"
    assert "Take the cnn <i>" in page.text


@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_in_a_browser(tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(made.page()[2], encoding="utf-8")
    with chromium() as browser:
        tab = Tab(browser, width=width)
        tab.page.goto(path.as_uri())
        assert tab.page.locator("#advice").is_visible()
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for link in tab.page.locator("nav a").all():
            link.click()
            target = link.get_attribute("href")
            assert tab.page.evaluate(f"document.querySelector('{target}').getBoundingClientRect().top") < 900
        for image in tab.page.locator("img").all():
            assert image.evaluate("image => image.complete && image.naturalWidth > 0")
        assert tab.errors == []
