"""Writes docs/dashboard.png: the dashboard of a demo edge that is being used. Run it with `python docs/dashboard.py`.

It starts `edgecache demo`, asks for some things often, some once and some at the same time, and looks with a headless
Chromium (Debian's `chromium`, through Playwright).
"""

import json
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

TARGET = Path(__file__).with_suffix(".png")
USED_S = 45.0
CALLERS = 6


def asked(url: str, text: str) -> None:
    """One request, heard to its end."""
    body = json.dumps({"text": text, "demo": {"refuse": True}} if not text else {"text": text}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/tts", body), timeout=20) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.read()


def used(url: str) -> None:
    """Callers who repeat what is often said, and now and then say something new, together or alone."""
    until_s = time.monotonic() + USED_S

    def call(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < until_s:
            kind = chance.random()
            if kind < 0.86:
                asked(url, f"Welcome, caller number {int(chance.paretovariate(1.1)) % 60}.")
            elif kind < 0.95:  # callers of the same second say the same
                asked(url, f"It is {int(time.time()) % 1000} seconds past the hour.")
            elif kind < 0.99:
                asked(url, f"Your code is {chance.randrange(10**6)}.")
            else:
                asked(url, "")
            time.sleep(chance.expovariate(8.0))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def main() -> None:
    """Starts, uses, looks."""
    command = [sys.executable, "-m", "edgecache", "demo", "--port", "0", "--voice", "tone"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert demo.stdout is not None
        urls: dict[str, str] = {}
        for line in demo.stdout:
            if found := re.search(r"(Listening|Admin)\s+(http\S+)", line):
                urls[found[1]] = found[2]
            if "Ready in" in line:
                break
        used(urls["Listening"])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
            page.goto(urls["Admin"] + "/dashboard")
            page.wait_for_selector("body[data-seen]")
            page.screenshot(path=TARGET, full_page=True)
            browser.close()
    finally:
        demo.terminate()
        demo.wait(20)


if __name__ == "__main__":
    main()
