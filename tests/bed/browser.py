"""Debian's Chromium, headless, driven by Selenium; each Browser has a profile of its own."""

from __future__ import annotations

import json
import shutil

from .gaps import Gap


def start_browser(*arguments):
    """A running Browser. Raises Gap where Chromium or its driver is not installed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        raise Gap("headless Chromium", "chromium and chromium-driver are not installed")
    from selenium.common.exceptions import WebDriverException

    try:
        return Browser(browser, driver, arguments)
    except WebDriverException as error:
        raise Gap("headless Chromium", f"it does not start: {error.msg}") from error


class Browser:
    """A Chromium with an empty profile; `driver` is Selenium's."""

    def __init__(self, browser, driver, arguments):
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = browser
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # Run as root, and with the little shared memory of a container.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", *arguments):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options, Service(driver))
        self.driver.set_script_timeout(60)

    def open(self, address):
        """Go to an address and return what the page shows."""
        self.driver.get(address)
        return self.text()

    def text(self):
        """What the page shows now."""
        return self.driver.execute_script("return document.body ? document.body.innerText.trim() : ''")

    def wait_for(self, script, seconds=20):
        """The value of a JavaScript expression once it is true in JavaScript's sense. Fails when it stays false."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds).until(
            lambda driver: driver.execute_script(f"return {script}"), f"never: {script}\n{self.text()}"
        )

    def run(self, script, *arguments):
        """The value that an async JavaScript function body returns."""
        return self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {script} }})(...arguments).then(done, error => done('failed: ' + error));",
            *arguments,
        )

    def network(self):
        """What the network log holds since it was last asked for, as one text: headers, addresses, frames."""
        return json.dumps([entry["message"] for entry in self.driver.get_log("performance")])

    def close(self):
        """End it."""
        self.driver.quit()
