"""The console in headless Chromium: what a real browser does with the link, the cookie and the pages of others."""

from __future__ import annotations

import threading

import pytest
from bed.browser import start_browser
from bed.gaps import Gap, not_run
from bed.hasura_engine import Engine
from bed.little_server import LittleServer, reply

from nself_core.hasura import reach
from nself_core.hasura.console import Job, Proxy

SECRET = "admin-s3cret"
# Another page in the same browser: it tries all that a page can send, and cannot see what comes of it.
ATTACK = """<!doctype html><title>other</title><script>
const port = new URLSearchParams(location.search).get("port"), body = '{"type": "clear_metadata", "args": {}}';
async function attack(host) {
  const base = "http://" + host + ":" + port, seen = [];
  for (const mode of ["no-cors", "cors"]) {
    for (const credentials of ["include", "omit"]) {
      const options = {method: "POST", mode, credentials, body, headers: {"content-type": "text/plain"}};
      await fetch(base + "/v1/metadata", options).then(
        async answer => seen.push(answer.type + ":" + await answer.text()), error => seen.push("failed"));
    }
  }
  await new Promise(done => {
    const socket = new WebSocket("ws://" + host + ":" + port + "/v1/graphql", "graphql-ws");
    socket.onopen = () => { seen.push("socket open"); done(); };
    socket.onerror = done;
  });
  await new Promise(done => {
    const image = new Image();
    image.onload = () => { seen.push("image"); done(); };
    image.onerror = done;
    image.src = base + "/console";
  });
  return seen;
}
</script>
<iframe name="frame"></iframe>
<form method="post" enctype="text/plain" target="frame"><input name='{"type": "clear_metadata", "args": {}, "x": "'
value='"}'></form>"""


@pytest.fixture(scope="module")
def engine(plain_server):
    """A double over a database of this module's own."""
    plain_server.drop_database("browser")
    plain_server.create_database("browser")
    with Engine(plain_server.cluster.url("browser"), SECRET) as running:
        yield running
    plain_server.drop_database("browser")


@pytest.fixture(scope="module")
def browser():
    """A Browser for the whole module: each test has a console of its own."""
    try:
        running = start_browser("--host-resolver-rules=MAP evil.example 127.0.0.1")
    except Gap as gap:
        running = not_run(gap.what, gap.reason)
    yield running
    running.close()


class Console:
    """A running proxy with what it told of each request, in `told`."""

    def __init__(self, engine):
        self.told = []
        target = reach.Engine(engine.endpoint, SECRET, None, engine.endpoint)
        self.proxy = Proxy(Job(target, 0, False, False, False, None, ""), self._tell)
        self._lock = threading.Lock()
        self.proxy.start()

    def _tell(self, text):
        with self._lock:
            self.told.append(text)

    def address(self, path, host="127.0.0.1"):
        """The address of a path of it."""
        return f"http://{host}:{self.proxy.port}{path}"


@pytest.fixture
def console(engine):
    """A Console of its own for each test."""
    running = Console(engine)
    yield running
    running.proxy.close()


def enter(browser, console):
    """Open the link and wait until the console's page has done what it does first."""
    browser.open(console.proxy.link)
    browser.wait_for("document.title === 'console'")
    browser.wait_for("document.getElementById('content').textContent === 'consistent: true'")
    browser.wait_for("document.body.dataset.socket === 'connection_ack'")


def test_the_link_opens_the_console_and_its_websocket(browser, console):
    enter(browser, console)
    assert browser.driver.current_url == console.address("/console")
    assert "POST /v1/metadata 200" in console.told
    browser.driver.refresh()
    browser.wait_for("document.body.dataset.socket === 'connection_ack'")


def test_the_link_opens_nothing_twice(browser, console):
    enter(browser, console)
    assert "does not work any more" in browser.open(console.proxy.link)
    browser.driver.delete_all_cookies()
    assert "does not work any more" in browser.open(console.proxy.link)
    assert "open the link" in browser.open(console.address("/console"))


def test_the_file_that_a_browser_is_given_leads_there(browser, console, tmp_path):
    tmp_path.chmod(0o755)
    browser.open("file://" + console.proxy.write_doorway(str(tmp_path)))
    browser.wait_for("document.body.dataset.socket === 'connection_ack'")
    assert browser.driver.current_url == console.address("/console")


def test_the_secret_is_in_nothing_that_the_browser_sees(browser, console):
    browser.network()
    enter(browser, console)
    seen = browser.run("""
        const texts = [document.documentElement.outerHTML, JSON.stringify({...localStorage}), document.cookie];
        for (const path of ["/console", "/v1/version", "/v1alpha1/config", "/healthz", "/nothing"]) {
            texts.push(await (await fetch(path)).text());
        }
        const body = '{"type": "export_metadata", "args": {}}';
        texts.push(await (await fetch("/v1/metadata", {method: "POST", body})).text());
        return texts;
    """)
    assert len(seen) == 9 and '"sources"' in seen[-1]
    assert SECRET not in str(seen) + browser.network()
    assert seen[2] == ""  # the cookie is not the page's to read


def test_a_wrong_host_is_403(browser, console):
    enter(browser, console)
    assert browser.open(console.address("/console", "evil.example")) == "this is not the name of the console"
    link = console.proxy.link.replace("127.0.0.1", "evil.example")
    assert browser.open(link) == "this is not the name of the console"
    assert "GET /console 403" in console.told


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_origin_can_do_nothing(browser, console, engine, host):
    enter(browser, console)
    other = LittleServer(reply(body=ATTACK, Content_Type="text/html"))
    try:
        before, asked = engine.ask("export_metadata", version=2), len(engine.seen)
        console.told.clear()
        browser.open(other.url(f"/?port={console.proxy.port}", host))
        for target in ("127.0.0.1", "localhost"):
            seen = browser.run("return await attack(given[0]);", target)
            assert seen == ["opaque:", "opaque:", "failed", "failed"] or seen == ["failed"] * 4
        form = "const form = document.forms[0]; form.action = given[0]; form.submit(); return 1;"
        browser.run(form, console.address("/v1/metadata"))
        browser.run("frame.location = given[0]; return 1;", console.address("/console"))
        browser.run("return await new Promise(done => setTimeout(done, 500));")
        assert len(engine.seen) == asked
        assert engine.ask("export_metadata", version=2) == before
        told = [line for line in console.told if line != "GET /v1/graphql 101"]  # the console's own, which has ended
        assert len(told) > 8 and all(line.endswith(" 403") for line in told)
    finally:
        other.close()


def test_the_console_cannot_be_framed(browser, console):
    enter(browser, console)
    assert browser.run("""
        const frame = document.createElement("iframe");
        frame.src = "/console";
        const loaded = new Promise(done => { frame.onload = done; });
        document.body.append(frame);
        await loaded;
        try { return frame.contentDocument ? frame.contentDocument.title : "blocked"; } catch { return "blocked"; }
    """) == "blocked"


def test_a_hundred_megabytes_stream_to_the_browser(browser, console, engine):
    enter(browser, console)
    found = browser.run("""
        const answer = await fetch("/api/rest/stream?size=100000000"), reader = answer.body.getReader();
        let count = 0;
        for (let part = await reader.read(); !part.done; part = await reader.read()) { count += part.value.length; }
        return count;
    """)
    assert found == 100_000_000
