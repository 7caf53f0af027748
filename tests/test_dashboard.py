"""The dashboard, opened in a headless Chromium: what it shows is what was done, and nothing comes from elsewhere."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from playwright.async_api import Page, async_playwright

from edgecache.ops.access import AdminAccess
from edgecache.ops.dashboard import POLICY
from tests.houses import house

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt-get install chromium)")
HANG_MS = 20_000


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Page, list[str], list[str]]]:
    """A page, what its console complained of, and all that it asked for."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(color_scheme="dark")
        page.set_default_timeout(HANG_MS)
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(url)
        try:
            yield page, complaints, asked
        finally:
            await browser.close()


@needs_chromium
async def test_it_shows_what_was_done_and_asks_nobody_else() -> None:
    async with house() as here:
        for _ in range(4):
            await here.say("Good morning")
        await here.say("")
        base = f"http://127.0.0.1:{here.node.admin_port}"
        async with opened(base + "/dashboard") as (page, complaints, asked):
            await page.wait_for_selector("body[data-seen]")
            objectives = await page.locator("#slo tbody tr").all_inner_texts()
            clusters = await page.locator("#clusters tbody tr").all_inner_texts()
            errors = await page.locator("#errors tbody tr").all_inner_texts()
            saved = await page.locator("#saved tbody tr").first.inner_text()
            states = await page.locator("td.state").all_inner_texts()
            tables = await page.locator("table:not([id='']) tbody th[scope=row]").count()
            background = await page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert any(re.match(r"first byte, p95\s+hit\s", row) for row in objectives)
    assert re.match(r"c0\s+✓ up", clusters[0])
    assert "empty_text" in errors[0]
    assert re.split(r"\s+", saved) == ["syntheses", "3"]
    assert all(re.match(r"\S \w+", state) for state in states), "a sign and a word, never a colour alone"
    assert tables > 10
    assert background == "rgb(18, 22, 28)", "dark, as was asked for"
    assert complaints == []
    assert {url.removeprefix(base).partition("?")[0] for url in asked} <= {
        *("/dashboard", "/glance", "/slo", "/clusters", "/errors", "/status", "/favicon.ico"),
    }


@needs_chromium
async def test_behind_a_token_it_asks_for_it() -> None:
    async with house(admin=AdminAccess(port=0, token="a-token-of-tests")) as here:
        base = f"http://127.0.0.1:{here.node.admin_port}"
        async with opened(base + "/dashboard") as (page, _, __):
            await page.wait_for_selector("#door:not([hidden])")
            await page.fill("#token", "a-token-of-tests")
            await page.click("#door button")
            await page.wait_for_selector("body[data-seen]")
            assert await page.locator("#door").is_hidden()


async def test_its_policy_lets_nothing_in_but_its_own() -> None:
    async with (
        house() as here,
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{here.node.admin_port}/") as answer,
    ):
        page = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert answer.headers["Content-Security-Policy"] == POLICY

    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\s(style|on[a-z]+)=", page), "the policy forbids what is inline"
