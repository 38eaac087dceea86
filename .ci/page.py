"""Drives the page of `bitnet serve` in a browser.

Usage: page.py BITNET CHROMIUM [--only SCENE] [--screenshot FILE]

Most is done with the keyboard. A valve between browser and server holds streams back, so that what an answer
looks like on its way can be seen whatever the speed of either; nothing here waits for a time.
"""

import argparse
import re

from page_tools import CONTRAST, Server, Tab, Valve, until
from playwright.sync_api import expect, sync_playwright

TALE = "Once upon a time"


def conversation(browser, bitnet):
    """An answer is there before it is whole, can be stopped and gone on from."""
    with Server(bitnet) as server:
        valve = Valve(server)
        tab = Tab(browser, valve.url)
        kernels = server.props()["kernels"]
        kernel = " ".join([kernels["isa"], *kernels["layouts"]])
        expect(tab.state).to_contain_text(kernel)
        hint = tab.page.get_by_text("Write a message")
        expect(hint).to_be_visible()
        log = tab.page.get_by_role("log")
        expect(log).to_have_attribute("aria-live", "off")
        news = tab.page.locator("#news")

        valve.let(6)
        tab.box.press_sequentially("Once upon")
        tab.press("Shift+Enter")
        expect(tab.box).to_have_value("Once upon\n")
        tab.press("Backspace")
        tab.say(" a time")
        expect(tab.answer).to_have_text(re.compile(r"\w"))
        expect(tab.stop).to_be_visible()
        expect(tab.send).to_be_hidden()
        expect(hint).to_be_hidden()
        expect(tab.box).to_have_value("")
        expect(news).to_have_text("The model answers.")
        begun = tab.answer.inner_text()
        valve.let(20)
        expect(tab.answer).to_have_text(re.compile("^" + re.escape(begun) + ".{20}"))
        # What is sent while an answer comes waits in the box.
        tab.say("and then")
        expect(tab.box).to_have_value("and then")
        tab.press("Escape")
        tab.done(2)
        expect(tab.note).to_have_text("stopped · " + kernel)
        expect(tab.box).to_be_focused()
        kept = tab.answer.inner_text()
        assert len(kept) >= len(begun) + 20, kept
        expect(news).to_have_text("Stopped. " + kept)
        expect(tab.alert).to_have_count(0)

        valve.is_left(1)
        valve.let(None)
        tab.press("Enter")
        tab.done(4)
        figures = r"[\d.]+ tok/s · 40 tokens · token limit reached · prompt \d+ tokens, \d+ cached"
        expect(tab.note).to_have_text(re.compile(rf"^{figures} · first token after \d+ ms · {kernel}$"))
        expect(news).to_have_text(tab.answer.inner_text())
        first, second = tab.bodies()
        assert first == {
            "messages": [{"role": "user", "content": TALE}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }, first
        roles = [message["role"] for message in second["messages"]]
        assert roles == ["user", "assistant", "user"], second
        assert second["messages"][1]["content"].strip() == kept, second

        # The button does as Escape does; the keyboard is not lost where it goes.
        valve.let(6)
        tab.say("The king")
        expect(tab.answer).to_have_text(re.compile(r"\w"))
        tab.press("Tab")
        assert tab.focused() == "stop", tab.focused()
        tab.press("Space")
        tab.done(6)
        expect(tab.box).to_be_focused()
        valve.is_left(2)
        # Nothing of an answer: what was said goes back to who said it.
        valve.let(1)
        tab.say("The queen")
        expect(tab.stop).to_be_visible()
        tab.press("Escape")
        tab.done(6)
        expect(tab.box).to_have_value("The queen")
        tab.close()


def regenerate(browser, bitnet):
    with Server(bitnet) as server:
        valve = Valve(server)
        tab = Tab(browser, valve.url)
        tab.tell("Once upon a time there was a king who had three sons, and the youngest of them was")
        question = tab.bodies()[0]["messages"]
        for _ in range(2):
            tab.press("Shift+Tab")
            expect(tab.again).to_be_focused()
            tab.press("Enter")
            tab.done(2)
            expect(tab.box).to_be_focused()
            expect(tab.note).to_have_text(re.compile("prompt [0-9]+ tokens, [1-9][0-9]* cached"))
        bodies = tab.bodies()
        assert all(body["messages"] == question for body in bodies), bodies
        assert len(bodies) == 3 and bodies[1]["seed"] != bodies[2]["seed"], bodies

        # Stopped before there is another answer, the one before stays.
        valve.let(1)
        was = tab.answer.inner_text(), tab.note.inner_text()
        tab.again.click()
        expect(tab.answer).to_have_text("")
        tab.press("Escape")
        tab.done(2)
        assert (tab.answer.inner_text(), tab.note.inner_text()) == was
        # A seed that is set makes the same again.
        valve.let(None)
        tab.set(Seed="7")
        tab.again.click()
        tab.done(2)
        expect(tab.note).to_have_text(re.compile("tok/s"))
        seventh = tab.answer.inner_text()
        tab.again.click()
        tab.done(2)
        expect(tab.answer).to_have_text(seventh)
        assert [body["seed"] for body in tab.bodies()[-2:]] == [7, 7]

        # A new chat begins anew, while an answer comes, too.
        valve.let(6)
        tab.say("The king")
        expect(tab.answer).to_have_text(re.compile(r"\w"))
        left = valve.left
        tab.page.get_by_role("button", name="New chat").focus()
        tab.press("Enter")
        tab.done(0)
        expect(tab.page.get_by_text("Write a message")).to_be_visible()
        valve.is_left(left + 1)
        valve.let(None)
        tab.tell("The queen")
        assert tab.bodies()[-1]["messages"] == [{"role": "user", "content": "The queen"}]
        tab.close()


def settings(browser, bitnet):
    with Server(bitnet, "--temp", "0.65", "--top-k", "33", "--min-p", "0.02") as server:
        valve = Valve(server)
        tab = Tab(browser, valve.url)
        defaults = {"Temperature": "0.65", "Top-k": "33", "Top-p": "0.95", "Min-p": "0.02", "Repeat penalty": "1"}
        for label, default in defaults.items():
            expect(tab.page.get_by_label(label)).to_have_attribute("placeholder", default)
        values = {"System prompt": "A tale.", "Temperature": "0.5", "Top-k": "10", "Top-p": "0.9", "Min-p": "0.1"}
        values |= {"Repeat penalty": "1.1", "Tokens at most": "12", "Seed": "3"}
        tab.set(**values)
        tab.tell(TALE)
        expect(tab.note).to_have_text(re.compile(" 12 tokens "))
        body = tab.bodies()[-1]
        assert body == {
            "messages": [{"role": "system", "content": "A tale."}, {"role": "user", "content": TALE}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **{"temperature": 0.5, "top_k": 10, "top_p": 0.9, "min_p": 0.1, "repeat_penalty": 1.1},
            **{"max_tokens": 12, "seed": 3},
        }, body

        # Escape closes them, and stops nothing.
        valve.let(6)
        tab.say("The king")
        expect(tab.answer).to_have_text(re.compile(r"\w"))
        tab.set(Seed="4")
        expect(tab.stop).to_be_visible()
        valve.let(None)
        tab.done(4)

        # They outlive that the page is loaded again; another tab has its own.
        tab.set(API_key="secret")
        tab.page.reload()
        expect(tab.page.get_by_label("Seed")).to_have_value("4")
        kept = tab.page.evaluate("[sessionStorage.getItem('key'), localStorage.length, document.cookie]")
        assert kept == ["secret", 0, ""], kept
        other = tab.open()
        expect(other.get_by_label("API key")).to_have_value("")
        expect(other.get_by_label("Seed")).to_have_value("")
        tab.close()


def refused(browser, bitnet):
    """The server says what is wrong, and the conversation goes on."""
    with Server(bitnet) as server:
        tab = Tab(browser, server.url)
        tab.tell(TALE)
        for label, value, why in [
            ("Top-p", "7", "top_p: 7 is not a number from 0 to 1"),
            ("Temperature", "<img src=x>", 'temperature: invalid type: string "<img src=x>"'),
            ("Seed", "12345678901234567890", "seed: invalid type: string"),
        ]:
            tab.set(**{label: value})
            tab.say("The king")
            expect(tab.alert).to_contain_text(why)
            tab.done(2)
            expect(tab.box).to_have_value("The king")
            # There is still what could be made again: nothing of it is lost where that fails.
            was = tab.answer.inner_text(), tab.note.inner_text()
            tab.again.click()
            expect(tab.alert).to_have_count(1)
            tab.done(2)
            assert (tab.answer.inner_text(), tab.note.inner_text()) == was
            tab.set(**{label: ""})
            tab.box.fill("")
        tab.box.fill("Once upon a time " * 200)
        tab.press("Enter")
        expect(tab.alert).to_contain_text("do not fit the context of 512")
        expect(tab.alert).to_contain_text("A new chat")
        tab.box.fill("")
        tab.tell("The king", 4)
        roles = [message["role"] for message in tab.bodies()[-1]["messages"]]
        assert roles == ["user", "assistant", "user"], roles
        tab.close("400 (Bad Request)")


def key(browser, bitnet):
    with Server(bitnet, "--api-key", "right") as server:
        tab = Tab(browser, server.url)
        field, why = tab.page.get_by_label("API key"), "the API key is missing or wrong"
        expect(field).to_be_focused()
        expect(tab.settings).to_contain_text(why)
        expect(tab.state).to_contain_text(why)
        tab.press("Escape")
        expect(tab.settings).to_be_hidden()
        tab.box.focus()
        tab.say(TALE)
        expect(tab.alert).to_contain_text(why)
        expect(field).to_be_focused()
        tab.page.keyboard.type("wrong")
        tab.press("Enter")
        expect(field).to_be_focused()
        tab.press("Control+A")
        tab.page.keyboard.type("right")
        tab.press("Enter")
        expect(tab.settings).to_be_hidden()
        expect(tab.state).to_contain_text("512 tokens of context")
        tab.box.focus()
        expect(tab.box).to_have_value(TALE)
        tab.press("Enter")
        tab.done(2)
        expect(tab.alert).to_have_count(0)
        expect(tab.note).to_have_text(re.compile("tok/s"))
        assert tab.requests[-1].headers["authorization"] == "Bearer right"
        assert not any("right" in request.url for request in tab.requests)
        tab.close("401 (Unauthorized)")


def text(browser, bitnet):
    """Nothing that is said becomes HTML, whoever says it; and where it did, the browser would not run it."""
    attack = "<img src=x onerror=alert(1)>"
    with Server(bitnet, "--alias", "<b>model</b>") as server:
        tab = Tab(browser, server.url)
        # The model says nothing else.
        grammar = lambda request: request.post_data_json | {"grammar": f'root ::= "{attack}"'}
        tab.page.route("**/completions", lambda route: route.continue_(post_data=grammar(route.request)))
        expect(tab.state).to_contain_text("<b>model</b>")
        tab.tell(attack + "<script>alert(1)</script>")
        expect(tab.answer).to_have_text(attack)
        expect(tab.page.locator("article.user p")).to_have_text(attack + "<script>alert(1)</script>")
        expect(tab.page.locator("img, b, article script")).to_have_count(0)

        headers = tab.response.headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        for name in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
            assert policy.pop(name) == "'none'", headers
        for name in ("script-src", "style-src"):
            assert re.fullmatch("'sha256-[A-Za-z0-9+/]{43}='", policy.pop(name)), headers
        rest = {"connect-src": "'self'", "img-src": "data:", "require-trusted-types-for": "'script'"}
        assert policy == rest, policy
        tab.close()

        tab = Tab(browser, server.url)
        for attempt in ("document.body.innerHTML = 'x'", "document.body.setAttribute('onclick', 'x')"):
            failed = tab.page.evaluate(f"() => {{ try {{ {attempt}; return false }} catch {{ return true }} }}")
            assert failed, attempt
        tab.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
        tab.page.evaluate("document.body.append(Object.assign(new Image(), { src: '/x.png' }))")
        expect(tab.page.locator("img")).to_have_count(1)
        policies = [f"policy: {name}" for name in ("connect-src", "img-src", "require-trusted-types-for")]
        tab.close(*policies, "violates the", "requires 'Trusted")


def looks(browser, bitnet):
    with Server(bitnet) as server:
        backs = {}
        for scheme in ("light", "dark"):
            tab = Tab(browser, server.url, color_scheme=scheme)
            tab.tell(TALE)
            tab.set(**{"Top-p": "7"})
            tab.say("The king")
            expect(tab.alert).to_be_visible()
            before = tab.page.evaluate(CONTRAST)
            tab.page.get_by_role("button", name="Settings").click()
            within = tab.page.evaluate(CONTRAST)
            assert before["least"][0] >= 4.5 and within["least"][0] >= 4.5, (scheme, before, within)
            assert before["texts"] >= 12 and within["texts"] >= before["texts"] + 9, (before, within)
            backs[scheme] = before["back"]
            tab.close("400 (Bad Request)")
        assert backs["light"] > 0.8 and backs["dark"] < 0.05, backs


def keyboard(browser, bitnet):
    """All that can be done can be reached, has a name, and shows that it is reached."""
    focus = """() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return outlineStyle === 'solid' && parseFloat(outlineWidth) >= 2;
    }"""
    with Server(bitnet) as server:
        tab = Tab(browser, server.url)
        tab.tell(TALE)
        order = []
        for _ in range(6):
            order.append(tab.focused())
            assert tab.page.evaluate(focus), order
            tab.press("Tab")
            # The next after the last is outside of the page.
            if tab.page.evaluate("document.activeElement === document.body"):
                tab.press("Tab")
        assert order == ["text", "send", "open", "new", "scroll", "again"], order
        tree = tab.page.locator("body").aria_snapshot()
        headings = ['heading "bitnet" [level=1]', 'heading "You" [level=2]', 'heading "Model" [level=2]']
        named = ['button "New chat"', 'main "Conversation"', 'textbox "Message"', 'button "Send"']
        for part in ["banner", "status", "log", "article", *headings, *named]:
            assert f"- {part}" in tree, (part, tree)
        tab.page.get_by_role("button", name="Settings").focus()
        tab.press("Enter")
        names = ["System prompt", "Temperature", "Top-k", "Top-p", "Min-p", "Repeat penalty", "Seed", "Tokens at most"]
        for name in [*names, "API key, kept until this tab is closed"]:
            expect(tab.settings.get_by_role("textbox", name=name, exact=True)).to_be_focused()
            assert tab.page.evaluate(focus), name
            tab.press("Tab")
        assert tab.focused() == "done" and tab.page.evaluate(focus)
        tab.press("Enter")
        expect(tab.settings).to_be_hidden()
        assert tab.focused() == "open", tab.focused()
        tab.close()


def phone(browser, bitnet):
    with Server(bitnet, "--alias", "a-model-with-a-name-" * 5) as server:
        tab = Tab(browser, server.url, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
        tab.box.focus()
        tab.say("W" * 80)
        tab.done(2)
        expect(tab.note).to_have_text(re.compile("tok/s"))
        wide = """() => [document.documentElement, document.querySelector('main'), document.querySelector('dialog')]
          .map((element) => element.scrollWidth - element.clientWidth)"""
        tab.page.get_by_role("button", name="Settings").tap()
        assert tab.page.evaluate(wide) == [0, 0, 0], tab.page.evaluate(wide)
        done = tab.page.get_by_role("button", name="Done")
        done.scroll_into_view_if_needed()
        shown = [done.bounding_box()]
        done.tap()
        shown += [part.bounding_box() for part in (tab.box, tab.send, tab.page.get_by_role("button", name="New chat"))]
        for box in shown:
            assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["height"] >= 24, shown
            assert box["y"] >= 0 and box["y"] + box["height"] <= 640, shown
        tab.close()


def scrolling(browser, bitnet):
    """The end of an answer stays in view, unless somebody reads what is above."""
    place = "(({ scrollTop, scrollHeight, clientHeight }) => [scrollTop, scrollHeight - scrollTop - clientHeight])"
    with Server(bitnet, "--predict", "400") as server:
        valve = Valve(server)
        tab = Tab(browser, valve.url, viewport={"width": 360, "height": 480})
        where = lambda: tab.page.evaluate(place + "(document.querySelector('main'))")
        text = lambda n: expect(tab.answer).to_have_text(re.compile("[^$]{%d}" % n))
        valve.let(200)
        tab.say(TALE)
        text(500)
        top, below = where()
        assert top > 0 and below < 2, (top, below)
        tab.page.locator("main").focus()
        tab.press("Home")
        until(lambda: where()[0] == 0)
        valve.let(300)
        text(800)
        top, below = where()
        assert top == 0 and below > 100, (top, below)
        # The end moves on while there is more to draw.
        until(lambda: tab.press("End") or where()[1] < 2)
        valve.let(None)
        tab.done(2)
        assert where()[1] < 2, where()
        tab.close()


def gone(browser, bitnet):
    """A server that is not there any more, is there again, or loads."""
    with Server(bitnet) as server:
        tab = Tab(browser, server.url)
        tab.tell(TALE)
        server.kill()
        tab.say("The king")
        expect(tab.alert).to_contain_text("cannot be reached")
        expect(tab.state).to_contain_text("cannot be reached")
        tab.done(2)
        with Server(bitnet, port=server.port):
            expect(tab.state).to_contain_text("512 tokens of context")
            expect(tab.box).to_have_value("The king")
            tab.press("Enter")
            tab.done(4)
            expect(tab.alert).to_have_count(0)
            assert len(tab.bodies()[-1]["messages"]) == 3
        tab.close("ERR_CONNECTION_REFUSED")

    # In the midst of an answer: what there is of it stays.
    with Server(bitnet) as server:
        valve = Valve(server)
        tab = Tab(browser, valve.url)
        valve.let(6)
        tab.say(TALE)
        expect(tab.answer).to_have_text(re.compile(r"\w"))
        half = tab.answer.inner_text()
        valve.cut()
        expect(tab.alert).to_contain_text("broke before the answer was whole")
        tab.done(2)
        assert tab.answer.inner_text().startswith(half)
        expect(tab.note).to_have_text(re.compile("broke off"))
        expect(tab.state).to_contain_text("cannot be reached")
        with Server(bitnet) as valve.server:
            valve.let(None)
            expect(tab.state).to_contain_text("512 tokens of context")
            tab.again.click()
            tab.done(2)
            expect(tab.note).to_have_text(re.compile("tok/s"))

            loads = {"message": "Loading model", "type": "unavailable_error", "param": None, "code": "loading"}
            tab.page.route("**/props", lambda route: route.fulfill(status=503, json={"error": loads}))
            tab.page.reload()
            expect(tab.state).to_have_text("Loading model")
            tab.page.unroute("**/props")
            expect(tab.state).to_contain_text("512 tokens of context")
        tab.close("net::ERR_", "503 (Service Unavailable)")


def screenshot(browser, bitnet, path):
    """A picture of a conversation, which is the same each time but for the figures."""
    with Server(bitnet, "--predict", "56") as server:
        tab = Tab(browser, server.url, color_scheme="light", viewport={"width": 960, "height": 680})
        tab.set(Temperature="0.7", Repeat_penalty="1.15", Seed="1")
        tab.tell(TALE)
        tab.tell("One evening there came a knock at the door, and", 4)
        tab.page.screenshot(path=path)
        tab.close()


SCENES = [conversation, regenerate, settings, refused, key, text, looks, keyboard, phone, scrolling, gone]

arguments = argparse.ArgumentParser()
arguments.add_argument("bitnet")
arguments.add_argument("chromium")
arguments.add_argument("--only", choices=[scene.__name__ for scene in SCENES])
arguments.add_argument("--screenshot")
arguments = arguments.parse_args()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=arguments.chromium)
    for scene in SCENES:
        if arguments.only in (None, scene.__name__):
            scene(browser, arguments.bitnet)
            print(f"{scene.__name__}: as it should be", flush=True)
    if arguments.screenshot:
        screenshot(browser, arguments.bitnet, arguments.screenshot)
    browser.close()
