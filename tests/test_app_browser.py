"""The page in a real browser: Debian's Chromium by Playwright, headless. `make test-app` runs these."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from app_server import CHROMIUM, DANCE, LIMIT, PATIENCE, PICTURE, lacking, server, write_blank  # noqa: F401
from media import truncate, write_text

import test_stage_2
from musepose.media.video_reader import read_frames
from musepose.pipelines.presets import PRESETS

if absent := lacking("gradio", "playwright", browser=True):
    pytest.skip(absent, allow_module_level=True)
from playwright.sync_api import Page, expect, sync_playwright

LONG = PATIENCE * 1000  # milliseconds
expect.set_options(timeout=20_000)  # of a busy machine
DONE, RUNNING, STOPPED = (f"[data-state={state}]" for state in ("done", "running", "stopped"))


@pytest.fixture(scope="module")
def chromium():
    assert CHROMIUM, "no Chromium: apt-get install --no-install-recommends chromium, or set CHROMIUM to its path"
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium, server):  # noqa: F811
    """Makes visitors, each with a browser profile of its own, whose network ends at this machine."""
    contexts, elsewhere, wrong = [], [], []

    def cut_off(route):
        elsewhere.append(route.request.url)
        route.abort()

    def visit(width=1280, height=900, **options) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.route(re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1[:/])"), cut_off)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#example")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert elsewhere == [], "the page asked for something from elsewhere"
    assert wrong == []


@pytest.fixture
def page(visitor) -> Page:
    return visitor()


def give(page: Page, picture: Path = PICTURE, dance: Path = DANCE) -> None:
    page.set_input_files("#picture input[type=file]", str(picture))
    page.set_input_files("#dance input[type=file]", str(dance))


def choose_part(page: Page, seconds: float = 0.4) -> None:
    """The first frames of the example dance; their number appears when the server has measured the dance."""
    expect(page.locator("#dance-note")).to_contain_text("4.0 seconds")
    expect(page.locator("#to input")).to_have_value("4")
    page.fill("#to input", str(seconds))
    page.keyboard.press("Tab")


def align(page: Page, wait: bool = True) -> None:
    """The puppets of the example, uploaded as files."""
    give(page)
    choose_part(page)
    page.get_by_label("Puppets").first.check()
    page.click("#align")
    if wait:
        page.wait_for_selector(f"#align-status {DONE}", timeout=LONG)
        expect(page.locator("#over img")).to_be_visible()
        expect(page.locator("#forecast")).to_contain_text("6 frames", timeout=LONG)


def generate(page: Page, steps: int = 2) -> None:
    page.fill("#steps input", str(steps))
    page.keyboard.press("Tab")
    page.click("#generate")


def finished(page: Page) -> None:
    page.wait_for_selector(f"#generate-status {DONE}", timeout=LONG)
    page.wait_for_selector("#result video", timeout=LONG)


def source(page: Page, selector: str) -> str:
    return page.locator(selector).first.get_attribute("src")


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path))).astype(int)


def test_from_upload_to_video_and_again_from_the_zip(page, tmp_path, monkeypatch):
    align(page)
    expect(page.locator("#picture-note")).to_contain_text("576 × 576 pixels")
    before = source(page, "#over img")
    page.locator("#frame input[type=number]").fill("7")  # another frame of the dance
    page.keyboard.press("Tab")
    expect(page.locator("#over img")).not_to_have_attribute("src", before)
    page.get_by_role("button", name="Limb lengths by hand").click()
    row = page.locator("#limb-table tr", has_text="Upper arms").locator("td")
    found = float(row.nth(1).inner_text())
    page.locator("#limb-upper-arms input[type=number]").fill("1.5")
    page.keyboard.press("Tab")
    expect(row.nth(2)).to_have_text(f"{found * 1.5:.2f}")
    generate(page, steps=4)
    page.wait_for_selector("#step-preview img", timeout=LONG)  # while it runs
    finished(page)
    video = page.locator("#result video")
    page.wait_for_function("document.querySelector('#result video').readyState >= 2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight, video.error]") == [768, 768, None]
    assert abs(video.evaluate("video => video.duration") - 0.4) < 0.1
    expect(page.locator("#slider img").first).to_be_visible()
    with page.expect_download() as download:
        page.locator("#files a[href$='musepose.zip']").click()
    download.value.save_as(tmp_path / "musepose.zip")
    with zipfile.ZipFile(tmp_path / "musepose.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert test_stage_2.main(["--config", "musepose.yaml", "--output", "again", "--device", "cpu"]) == 0
    (again,) = (one for one in Path("again").glob("*.mp4") if "_cmp" not in one.name)
    # The same frames before encoding; x264 encodes the same frames in several ways.
    assert np.abs(frames_of(again) - frames_of(tmp_path / again.name)).mean() < 1
    page.click("#again")
    expect(page.locator("#seed input")).not_to_have_value("99")
    expect(page.locator("#gallery img")).to_have_count(2, timeout=LONG)  # both results of this visit


def test_stop_in_the_middle_then_another_job(page):
    align(page)
    generate(page, steps=900)
    expect(page.locator("#generate-status")).to_contain_text(re.compile(r"denoising: [1-9]\d* of 900"), timeout=LONG)
    expect(page.locator("#generate-status")).to_contain_text("left")
    page.click("#generate-stop")
    page.wait_for_selector(f"#generate-status {STOPPED}", timeout=LONG)
    expect(page.locator("#result video")).to_have_count(0)
    generate(page)
    finished(page)


def test_files_that_are_none_are_told_beside_them(page, tmp_path):
    broken = tmp_path / "cut.png"
    broken.write_bytes(PICTURE.read_bytes())
    give(page, truncate(broken), write_text(tmp_path / "notes.mp4"))
    expect(page.locator("#picture-note .bad")).to_contain_text("cut.png is damaged or cut off")
    expect(page.locator("#dance-note .bad")).to_contain_text("notes.mp4 is damaged or not a video")
    page.click("#align")
    expect(page.locator("#align-status .bad")).to_contain_text("cut.png is damaged or cut off")
    assert "Traceback" not in page.inner_text("body") and str(tmp_path) not in page.inner_text("body")


def test_a_picture_of_nobody(page, tmp_path):
    give(page, write_blank(tmp_path / "wall.png"))
    choose_part(page)
    page.get_by_label("Puppets").first.check()
    page.click("#align")
    expect(page.locator("#align-status .bad")).to_contain_text("no person was found in wall.png", timeout=LONG)


def test_two_visitors_at_once_see_their_own_jobs_only(visitor):
    first, second = visitor(), visitor()
    align(first)
    generate(first, steps=900)
    first.wait_for_selector("#generate-status progress", timeout=LONG)
    align(second, wait=False)
    expect(second.locator("#align-status")).to_contain_text("Waiting: 1 job before this one", timeout=LONG)
    first.click("#generate-stop")
    second.wait_for_selector(f"#align-status {DONE}", timeout=LONG)
    expect(first.locator("#generate-status")).to_contain_text("Stopped")
    expect(second.locator("#generate-status")).to_have_text("")
    pictures = [source(page, "#over img") for page in (first, second)]
    assert len({picture.rsplit("/", 2)[1] for picture in pictures}) == 2  # each in its job's own folder


def test_two_tabs_of_one_visitor_at_once(page):
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#example")
    align(page, wait=False)
    align(other, wait=False)
    for tab in (page, other):
        tab.wait_for_selector(f"#align-status {DONE}", timeout=LONG)
    assert source(page, "#over img").rsplit("/", 2)[1] != source(other, "#over img").rsplit("/", 2)[1]


def test_a_job_goes_on_while_the_page_is_loaded_again(page):
    align(page)
    generate(page, steps=20)
    page.wait_for_selector("#generate-status progress", timeout=LONG)
    page.reload()
    page.wait_for_selector(f"#generate-status {RUNNING}, #generate-status {DONE}", timeout=LONG)
    finished(page)
    expect(page.locator("#over img")).to_be_visible()
    expect(page.locator("#picture img")).to_be_visible()
    page.reload()  # and its result is found again
    finished(page)


def test_a_file_above_the_limit_is_refused(page, tmp_path):
    large = tmp_path / "large.mp4"
    with open(large, "wb") as file:
        file.truncate((LIMIT + 10) * 2**20)
    page.set_input_files("#dance input[type=file]", str(large))
    expect(page.locator("body")).to_contain_text(re.compile("maximum allowed size|exceed|too large", re.I))
    give(page)  # the page still works
    expect(page.locator("#dance-note")).to_contain_text("4.0 seconds")


def test_with_the_keyboard_alone(page):
    """Tab reaches the example, Enter takes it; Tab reaches Align, Enter starts it."""

    def press_until(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"Tab does not reach {name}")

    press_until("example")
    page.keyboard.press("Enter")
    expect(page.locator("#dance-note")).to_contain_text("4.0 seconds")
    press_until("align")
    page.keyboard.press("Enter")
    page.wait_for_selector("#align-status [data-state]", timeout=LONG)
    press_until("align-stop")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#align-status {STOPPED}, #align-status {DONE}", timeout=LONG)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_its_settings(page, name):
    steps = PRESETS[name]["steps"]
    own = yaml.safe_load((Path(test_stage_2.__file__).parent / "configs/puppet/demo.yaml").read_text())["steps"]
    assert steps != own
    page.locator("#preset").get_by_label(name, exact=True).check()
    expect(page.locator("#steps input")).to_have_value(str(steps))
    page.locator("#preset").get_by_label("the model's own settings").check()
    expect(page.locator("#steps input")).to_have_value(str(own))


def test_the_browser_itself_refuses_what_is_elsewhere(page):
    asked = page.evaluate("fetch('http://192.0.2.1/').then(() => 'loaded', error => error.name)")
    assert asked == "TypeError"  # by the page's policy: the fixture would have seen the request


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_shows_everything(visitor, scheme):
    page = visitor(width=390, height=844, color_scheme=scheme)
    page.click("#example")
    expect(page.locator("#dance-note")).to_contain_text("4.0 seconds")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in ("#example", "#align", "#generate"):
        box = page.locator(button).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 24
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", background)[0]) < 128) == (scheme == "dark")
