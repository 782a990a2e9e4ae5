"""Joined segments in a real browser: Debian's Chromium by Playwright, headless. `make test-app` runs this."""

import os

import pytest
from app_server import CHROMIUM, lacking
from media import write_video
from test_segments import RATE, SIZE, write_segments

from musepose.media.segments import SegmentJoiner

if absent := lacking("playwright", browser=True):
    pytest.skip(absent, allow_module_level=True)
from playwright.sync_api import sync_playwright

CUTS = [0, 17, 18, 40]
PAGE = "<video muted></video><canvas></canvas>"
# The number that a frame shows, see media.frame_number, at each of the given seconds.
NUMBERS = """async (seconds) => {
    const video = document.querySelector("video"), canvas = document.querySelector("canvas");
    const happens = (name) => new Promise((done, failed) => {
        video.addEventListener(name, done, {once: true});
        video.addEventListener("error", () => failed(video.error.message), {once: true});
    });
    const loaded = happens("loadeddata");
    video.src = URL.createObjectURL(await (await fetch("joined.mp4")).blob());  // in which it can seek
    await loaded;
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext("2d", {willReadFrequently: true}), numbers = [];
    for (const second of seconds) {
        // "seeked" alone comes before the frame: on busy cores the canvas then gets the one before.
        const shown = new Promise((presented, failed) => {
            video.requestVideoFrameCallback(presented);
            setTimeout(() => failed(`no frame is shown at ${second} s`), 60000);
        });
        const seeked = happens("seeked");
        video.currentTime = second;
        await Promise.all([seeked, shown]);
        context.drawImage(video, 0, 0);
        const row = context.getImageData(0, canvas.height / 2, canvas.width, 1).data;
        let number = 0;
        for (let bit = 0; bit < 8; bit++)
            number |= (row[4 * Math.round((bit + 0.5) * canvas.width / 8 - 0.5)] > 128) << bit;
        numbers.push(number);
    }
    return numbers;
}"""
PLAY = """async () => {
    const video = document.querySelector("video");
    video.currentTime = 0;
    const ended = new Promise((done, failed) => {
        video.addEventListener("ended", done);
        video.addEventListener("error", () => failed(video.error.message));
    });
    await video.play();
    await ended;
    const quality = video.getVideoPlaybackQuality();
    return [video.duration, video.webkitAudioDecodedByteCount > 0, quality.corruptedVideoFrames];
}"""


def test_chromium_plays_and_seeks_joined_segments(tmp_path):
    assert CHROMIUM, "no Chromium: apt-get install --no-install-recommends chromium, or set CHROMIUM to its path"
    source, joined = write_video(tmp_path / "source.mp4", 60, sound=2), tmp_path / "joined.mp4"
    with SegmentJoiner(joined, write_segments(tmp_path, CUTS), *SIZE, RATE, audio_from=source) as joiner:
        joiner.copy()
    wanted = [0, 1, 16, 17, 18, 19, 39, 18, 17, 16]
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.route("**/*", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        page.route("**/joined.mp4", lambda route: route.fulfill(path=joined, content_type="video/mp4"))
        page.goto("http://127.0.0.1/")
        shown = page.evaluate(NUMBERS, [float((number + 0.5) / RATE) for number in wanted])
        seconds, sound, corrupted = page.evaluate(PLAY)
        browser.close()
    assert shown == wanted
    assert abs(seconds - 40 / RATE) < 0.03 and sound and corrupted == 0
