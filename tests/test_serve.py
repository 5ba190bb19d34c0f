"""The service: what it answers is what the recommender says, over real HTTP and in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files

import pytest
import requests

from ksr_recbole import Recommender
from ksr_recbole.__main__ import main
from ksr_recbole.errors import UserError
from ksr_recbole.serve import cli
from ksr_recbole.serve.service import Forgotten, Service, States, _bytes_of
from ksr_recbole.text import clean, clean_line
from tests.test_explanation import CHROMIUM
from tests.test_inference import Trained
from tests.toy import write_toy

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
app_module = pytest.importorskip("ksr_recbole.serve.app", reason="fastapi is not installed")
make_app, MOST_BYTES = app_module.make_app, app_module.MOST_BYTES

EVIL = '</script><img src=x onerror="document.title=1"> [red] \u202e'


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    """A model with random weights; its titles want to be markup."""
    folder = write_toy(tmp_path_factory.mktemp("serve"), n_items=40)
    titles = [f"i{k}\t{'Zoë ' if k == 7 else ''}Film {k} {EVIL}" for k in range(1, 41)]
    lines = ["item_id:token\tmovie_title:token_seq", *titles]
    (folder / "toy" / "toy.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Recommender.load(Trained(folder).save(folder / "model"))


@pytest.fixture(scope="module")
def url(rec):
    """The address of a service in another thread."""
    with served(rec) as address:
        yield address


@contextmanager
def served(rec):
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    app = make_app(Service(rec), cli.HOSTS)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def ask(url: str, path: str, **body):
    answer = requests.post(f"{url}/{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_answers_what_the_recommender_says(url, rec):
    for who, query in (({"user": "u3"}, "u3"), ({"items": ["i3", "i9"]}, ["i3", "i9"])):
        found = ask(url, "recommend", k=4, **who)["recommendations"]
        got = {each["item"]["id"]: each["score"] for each in found}
        assert got == pytest.approx(dict(rec.recommend(query, 4)), rel=1e-4)
        told = json.loads(json.dumps(rec.explain(query, 4, steps=3).to_dict()))
        explained = ask(url, "explain", k=4, steps=3, **who)
        assert len(explained["steps"]) == len(told["steps"])
        for mine, theirs in zip(found, told["recommendations"], strict=True):
            assert mine["item"] == theirs["item"] and mine["sentence"] == theirs["sentence"]
            assert EVIL.strip() in mine["item"]["title"]
        assert explained["history"] == told["history"]
    one = ask(url, "explain", user="u3", explained=["i5"])["recommendations"]
    assert [each["item"]["id"] for each in one] == ["i5"]
    many = ask(url, "recommend/batch", queries=[{"user": "u3"}, {"items": []}], k=3)["results"]
    for result, query in zip(many, ("u3", []), strict=True):
        ids = [each["item"]["id"] for each in result["recommendations"]]
        assert ids == [item for item, _ in rec.recommend(query, 3)]


def test_states_go_on_and_step_back(url, rec):
    states, items = [ask(url, "update", items=[])["state"]], ["i4", "i8", "i15"]
    for item in items:
        states.append(ask(url, "update", state=states[-1], item=item)["state"])
    for n in (3, 1, 2, 0):  # earlier states stay valid
        found = ask(url, "recommend", state=states[n], k=5, reasons=False)["recommendations"]
        wanted = dict(rec.recommend(items[:n], 5))
        got = {each["item"]["id"]: each["score"] for each in found}
        assert got == pytest.approx(wanted, rel=1e-4)


def test_items_are_found_by_words_without_accents(url):
    found = requests.get(f"{url}/items", {"q": "FILM zoe"}, timeout=60).json()
    assert [each["id"] for each in found] == ["i7"]
    assert len(requests.get(f"{url}/items", {"limit": 3}, timeout=60).json()) == 3
    assert requests.get(f"{url}/items", {"q": "none such"}, timeout=60).json() == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("items?foo=1", "The address has a parameter foo, which is unknown; /openapi.json"),
        ("items?limit=3&limit=4", "The address gives limit more than once"),
        ("items?q=a&Q=b", "a parameter Q, which is unknown"),
        ("items?%1b%5b31m", r"a parameter \x1b[31m, which is unknown"),
        ("items?=", "a parameter (empty), which is unknown"),
    ],
)
def test_a_parameter_that_nothing_reads_is_refused(url, path, said):
    answer = requests.get(f"{url}/{path}", timeout=60)
    assert answer.status_code == 422 and said in answer.json()["detail"], answer.text


@pytest.mark.parametrize("path", ["recommend", "recommend/batch", "update", "explain"])
def test_a_parameter_next_to_a_body_is_refused(url, path):
    body = {"queries": []} if "batch" in path else {"items": []}
    answer = requests.post(f"{url}/{path}?k=3", json=body, timeout=60)
    assert answer.status_code == 422 and "a parameter k, which is unknown" in answer.text
    assert requests.post(f"{url}/{path}?", json=body, timeout=60).status_code == 200
    assert requests.get(f"{url}/?from=elsewhere", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("recommend", {"items": ["i3", "i999"]}, 400, "There is no item 'i999'"),
        ("recommend", {"user": "nobody"}, 400, "There is no user 'nobody'"),
        ("recommend", {}, 400, "exactly one of user, items and state"),
        ("recommend", {"user": "u1", "items": []}, 400, "exactly one of"),
        ("recommend", {"state": "x\x1b[0m"}, 404, r"no state 'x\x1b[0m'"),
        ("recommend", {"user": 3}, 422, "user: Input should be a valid string"),
        ("recommend", {"user": "u1", "k": 0}, 422, "k: Input should be greater"),
        ("recommend", {"user": "u1", "k": "3"}, 422, "k: Input should be a valid integer"),
        ("recommend", {"user": "u1", "K": 3}, 422, "K: Extra inputs"),
        ("recommend", {"items": ["\ud800"]}, 422, "items.0: "),
        ("recommend/batch", {"queries": [{"user": "u1"}, {"user": "x"}]}, 400, "no user 'x'"),
        ("update", {"items": [], "item": "i999"}, 400, "There is no item 'i999'"),
        ("explain", {"user": "u1", "steps": -1}, 422, "steps: "),
        ("explain", {"user": "u1", "explained": ["x"]}, 400, "There is no item 'x'"),
        ("nothing", {}, 404, "Not Found; /openapi.json"),
        ("items", {}, 405, "Method Not Allowed; /openapi.json"),
    ],
)
def test_a_bad_request_is_one_sentence(url, path, body, status, said):
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{url}/{path}", data=data, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert said in detail and "\n" not in detail and "\x1b" not in detail


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "data", "said"),
    [
        ({}, '{"user": "u1"}', "The body: give a JSON object, with the header Content-Type: app"),
        ({"Content-Type": "application/json"}, "[1]", "The body: give a JSON object"),
        ({"Content-Type": "application/json"}, "", "The body: give a JSON object"),
        ({"Content-Type": "application/json"}, "{bad", "The body is no JSON: Expecting .* at char"),
        (JSON, '{"user":"u1","k":1,"user":"u2"}', "The body gives user more than once; give it"),
        (JSON, '{"items": [{"a": 1, "a": 2}]}', "The body gives a more than once"),
        (
            JSON,
            json.dumps(dict.fromkeys(range(60_000)))[:-1] + ', "7": 1}',
            "The body gives 7 more",
        ),
        (JSON, '{"user": "u1", "k": ' + "1" * 5000 + "}", "The body has a number of too many digi"),
        (JSON, "[" * 500_000, "The body is nested too deeply"),
        (JSON, b'{"user": "\xff"}', "The body is not written in UTF-8"),
        (JSON, '{"\\ud800": 1}', "The body: (?!give a JSON object)"),
    ],
)
def test_a_body_that_is_no_json_object_says_what_to_send(url, headers, data, said):
    answer = requests.post(f"{url}/recommend", data=data, headers=headers, timeout=60)
    assert answer.status_code == 422 and re.match(said, answer.json()["detail"])


def test_large_and_broken_bodies_and_other_hosts_are_refused(url):
    def chunks():
        for _ in range(20):
            yield b"x" * (MOST_BYTES // 10)

    for data in (b"x" * (MOST_BYTES + 1), chunks()):
        answer = requests.post(f"{url}/recommend", data=data, timeout=60)
        assert answer.status_code == 413 and "smaller parts" in answer.json()["detail"]
    json_type = {"Content-Type": "application/json"}
    for data in (b"{", b"\xff\xfe", b"[" * 50_000, b"null", b'{"k": NaN}'):
        answer = requests.post(f"{url}/recommend", data=data, headers=json_type, timeout=60)
        assert 400 <= answer.status_code < 500 and "\n" not in answer.json()["detail"]
    assert requests.get(url, headers={"Host": "evil.example"}, timeout=60).status_code == 400
    assert requests.get(url, headers={"Host": "[::1]:8000"}, timeout=60).status_code == 200
    assert "script-src" in requests.get(url, timeout=60).headers["Content-Security-Policy"]


def _half_sent(url: str) -> socket.socket:
    """A connection that has sent the beginning of a body."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST /recommend HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: 500\r\n\r\n{{".encode())
    return connection


def _answer_on(connection: socket.socket) -> str:
    """All of an answer that is one JSON object without others in it."""
    answer = b""
    while not answer.endswith(b"}") and (some := connection.recv(4096)):
        answer += some
    return answer.decode()


def test_a_body_that_does_not_arrive_is_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(app_module, "MOST_SECONDS", 0.2)
    with _half_sent(url) as connection:
        answer = _answer_on(connection)
    assert answer.startswith("HTTP/1.1 408 ") and "did not arrive within 0.2 seconds" in answer


def test_the_service_ends_while_a_body_is_waited_for(rec, caplog):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        make_app(Service(rec)), log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with _half_sent(f"http://127.0.0.1:{listener.getsockname()[1]}") as connection:
        time.sleep(0.2)  # until its first part is there
        server.should_exit = True
        answer = _answer_on(connection)
        thread.join(20)
    assert not thread.is_alive() and answer.startswith("HTTP/1.1 503 ")
    assert "Traceback" not in caplog.text and cli._SECONDS_TO_END > 0


def test_a_model_whose_memory_is_left_unread_recommends_without_reasons(tmp_path):
    folder = write_toy(tmp_path)
    rec = Recommender.load(Trained(folder, value_matrix="exact").save(folder / "model"))
    rec.model.exact.weights.data.zero_()
    service = Service(rec)
    assert not service.explains
    [first, *_] = service.recommend("u1", 3, exclude_history=True, reasons=True)
    assert (first.item.id, first.score) == rec.recommend("u1", 1)[0] and not first.sentence
    rec.model.exact.weights.data.fill_(1.0)
    assert service.explains


def test_requests_at_once_lose_nothing(url, rec):
    start = ask(url, "update", items=["i1"])["state"]
    items = [rec.items[k % len(rec.items)] for k in range(200)]
    with ThreadPoolExecutor(50) as pool:
        states = list(pool.map(lambda i: ask(url, "update", state=start, item=i)["state"], items))
        found = list(pool.map(lambda s: ask(url, "recommend", state=s, k=1, reasons=False), states))
    assert len(set(states)) == 200
    wanted = {item: rec.recommend(["i1", item], 1)[0][0] for item in set(items)}
    got = [each["recommendations"][0]["item"]["id"] for each in found]
    assert got == [wanted[item] for item in items]


def test_old_states_are_forgotten_and_used_ones_are_not(rec):
    one = rec.start()
    states = States(2 * _bytes_of(one))
    first, second = states.put(one), states.put(one)
    states.get(first)
    states.put(one)
    assert states.get(first) is one
    with pytest.raises(Forgotten, match="give the items again"):
        states.get(second)


def test_states_take_what_their_histories_take(rec):
    """A bound on the tensors alone would keep any number of long histories."""
    short, long = rec.start(["i1"]), rec.start([f"i{1 + k % 40}" for k in range(10_000)])
    long = rec.update(long, "i2")
    assert _bytes_of(long) > _bytes_of(short) + 80_000
    states = States(3 * _bytes_of(long))
    names = [states.put(long) for _ in range(5)]
    for name in names[:2]:
        with pytest.raises(Forgotten):
            states.get(name)
    assert all(states.get(name) is long for name in names[2:])
    tight = States(1)
    assert tight.get(tight.put(long)) is long  # the latest one in any case


def test_a_small_request_with_a_large_answer_is_refused(url):
    long = {"items": ["i1"] * 10_000}
    for path, body in (
        ("recommend", {**long, "k": 1000}),
        ("explain", {**long, "k": 1000}),
        ("explain", {**long, "explained": ["i2"] * 100}),
        ("recommend/batch", {"queries": [{"items": ["i1"] * 300}] * 100, "reasons": True}),
    ):
        answer = requests.post(f"{url}/{path}", json=body, timeout=60)
        assert answer.status_code == 400 and "too much for one request" in answer.text
    for body in ({**long, "k": 1000, "reasons": False}, {"items": ["i1"] * 700, "k": 100}):
        assert ask(url, "recommend", **body)["recommendations"]
    batch = ask(url, "recommend/batch", queries=[{"items": []}] * 1000, k=100)
    assert len(batch["results"]) == 1000


def test_the_api_holds_what_it_describes(rec):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    checks = pytest.importorskip("schemathesis.specs.openapi.checks")
    from hypothesis import HealthCheck, Phase, given, settings

    app = make_app(Service(rec))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    few = settings(
        max_examples=15, deadline=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck), database=None, derandomize=True,
    )  # fmt: skip
    asked = 0

    def check(case):
        nonlocal asked
        asked += 1
        answer = case.call()
        assert answer.status_code < 500, answer.text
        # Which tokens exist no description can say.
        case.validate_response(answer, excluded_checks=[checks.positive_data_acceptance])

    for operation in schema.get_all_operations():
        few(given(case=operation.ok().as_strategy())(check))()
    assert asked > 20


# In a browser ----------------------------------------------------------------------------------


def test_typing_choosing_and_stepping_back(url):
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    expect = playwright.expect
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        for width in (1280, 390):
            view = browser.new_page(viewport={"width": width, "height": 800})
            problems, asked = [], []
            view.on("console", lambda message, to=problems: to.append(message.text))
            view.on("pageerror", lambda error, to=problems: to.append(str(error)))
            view.on("request", lambda request, to=asked: to.append(request.url))
            view.goto(url)
            chosen = view.locator("#history li")
            cards = view.locator("ol.cards > li")
            cards.nth(9).wait_for()
            before = cards.first.text_content()
            for n, words in enumerate(("zoe", "film 12"), start=1):
                view.keyboard.type(words)
                view.keyboard.press("Enter")
                chosen.nth(n - 1).wait_for()
            expect(cards.first).not_to_have_text(before)
            assert [text[:8] for text in chosen.all_inner_texts()] == ["Film 12 ", "Zoë Film"]
            assert clean_line(EVIL) in chosen.first.inner_text() and view.title() != "1"
            assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            view.focus("#back")
            view.keyboard.press("Enter")
            expect(chosen).to_have_count(1)
            view.keyboard.press("Enter")
            expect(chosen).to_have_count(0)
            expect(cards.first).to_have_text(before)
            assert problems == [] and all(each.startswith(url) for each in asked)
            view.focus("#search")
            view.route("**/recommend", lambda route: route.abort())
            view.keyboard.type("film 12")
            view.keyboard.press("Enter")
            expect(cards).to_have_count(0)  # those of another history would be wrong here
            expect(view.locator("#status")).to_contain_text("does not answer")
            view.close()
        browser.close()


def test_the_page_shows_the_hidden_characters_that_a_terminal_does():
    page = (files("ksr_recbole.serve") / "try.html").read_text(encoding="utf-8")
    [letters] = re.findall(r"const HIDDEN = /(\[.*\])/gu;", page)
    hidden = re.compile(re.sub(r"\\u\{(\w+)\}", lambda found: chr(int(found[1], 16)), letters))
    wrong = [n for n in range(0x110000) if bool(hidden.search(chr(n))) != (clean(chr(n)) != chr(n))]
    assert wrong == []


def test_the_page_of_a_model_that_knows_nothing_of_somebody_new(tmp_path):
    """It asks for a title, and shows no error before there is one."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    folder = write_toy(tmp_path, n_items=40)
    gru = Recommender.load(Trained(folder, "GRU").save(tmp_path / "model"))
    with served(gru) as url, playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        view = browser.new_page()
        cards, status = view.locator("ol.cards > li"), view.locator("#status")
        with view.expect_response("**/recommend") as answer:
            view.goto(url)
        assert answer.value.status == 400
        playwright.expect(status).to_have_text("")
        view.keyboard.type("i7")
        view.keyboard.press("Enter")
        playwright.expect(cards).to_have_count(10)
        playwright.expect(status).to_have_text("")
        browser.close()


# The command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [["SIGINT", "SIGINT"], ["SIGTERM"], ["SIGHUP", "SIGINT"]])
def test_a_signal_ends_the_service_once_it_has_answered(
    rec, numbers, monkeypatch, capfd, caplog, not_ignored
):
    """A second Ctrl-C, and a closed terminal, cut answers off (status 500), with tracebacks."""
    begun, answers = threading.Event(), []

    def slowly(*_, **__):
        begun.set()
        time.sleep(0.5)
        return []

    monkeypatch.setattr(Service, "recommend", slowly)

    def ask_and_end(url):
        asking = threading.Thread(target=lambda: answers.append(ask(url, "recommend", user="u3")))
        asking.start()
        begun.wait(60)
        for number in numbers:
            os.kill(os.getpid(), getattr(signal, number))
            time.sleep(0.1)
        asking.join(60)

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ending = threading.Thread(target=ask_and_end, args=(url,))
    ending.start()
    cli._answer(make_app(Service(rec), cli.HOSTS), listener)
    ending.join(60)
    said, errors = capfd.readouterr()
    assert answers == [{"recommendations": []}]
    assert said == "Stopped.\n" and "Traceback" not in errors + caplog.text


def test_a_missing_package_is_one_sentence_that_says_what_to_type(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "is_installed", lambda name: name != "uvicorn")
    assert main(["serve", str(tmp_path)]) == 2
    assert "which this Python lacks; type `pip install uvicorn`." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No model directory is given"),
        (["none"], "There is no model directory none"),
        (["none", "--port=70000"], "--port is '70000'; it must be a whole number from 0 to 65535"),
        (["none", "more"], "Cannot read the argument 'more'"),
        (["none", "--device=tpu"], "There is no model directory none"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, arguments, said):
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err


def test_an_address_in_use_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Cannot listen on 127.0.0.1, port {port}: "):
            cli._listening("127.0.0.1", port)
    for host in ("no.such.host.example", "10.0.0..1", "é" * 70):
        with pytest.raises(UserError, match=f"Cannot listen on {re.escape(host)}"):
            cli._listening(host, 0)


def test_the_parts_of_an_answer_are_sent_at_once():
    """A connection without TCP_NODELAY holds the body back until the head is confirmed."""
    with (
        cli._listening("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
