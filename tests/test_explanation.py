"""Explanations: what they say is what the model computes, and every view shows it."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from rich.cells import cell_len

import ksr_recbole
from ksr_recbole.__main__ import main
from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import data_preparation
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset, load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation import trace as trace_module
from ksr_recbole.explanation import value_entities as batching
from ksr_recbole.explanation.explain import explain
from ksr_recbole.explanation.heat_map import draw
from ksr_recbole.explanation.labels import (
    Names,
    attribute_labels,
    item_titles,
    relation_label,
    relation_labels,
)
from ksr_recbole.explanation.page import page
from ksr_recbole.explanation.parts import Chosen, Item, Reason, Recommendation
from ksr_recbole.explanation.terminal import abbreviations, render
from ksr_recbole.explanation.trace import History, Trace, rank_values
from ksr_recbole.explanation.trained import load_trained
from ksr_recbole.explanation.value_entities import ValueEntities
from ksr_recbole.quick_start.prepare import make_trainer
from ksr_recbole.text import cleaned
from ksr_recbole.trainer import checkpoint
from tests import reference
from tests.films import FILMS, films_model, write_films
from tests.models import make_model, random_vectors, reference_parameters
from tests.toy import toy_values, write_toy

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def films(tmp_path):
    return films_model(write_films(tmp_path / "films"))


# What the model computes -----------------------------------------------------------------------


@pytest.fixture(
    params=[{}, {"query_mlp_layers": 2}, {"project_entities": True}, {"gamma": 0.5}], ids=str
)
def model(request, toy_config, toy_dataset):
    return make_model(toy_config(memory_backend="torch", **request.param), toy_dataset)


@pytest.mark.parametrize("steps", [1, 5, 1000])
def test_attention_and_values_after_each_step_equal_the_reference(model, toy_dataset, steps):
    items = History.of(toy_dataset, "u3").items
    with torch.no_grad():
        found = Trace.of(model, torch.from_numpy(items), steps)
    expected = reference.run(reference_parameters(model), items.tolist())[-steps:]
    assert len(found.attention) == len(found.values) == len(expected)
    for attention, values, step in zip(found.attention, found.values, expected, strict=True):
        np.testing.assert_allclose(attention, step.attention, atol=1e-12)
        np.testing.assert_allclose(values, step.values, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{"num_layers": 2}, {"kb_input": True}, {"value_matrix": "shared"}, {"gate_bias": -2.0}],
    ids=str,
)
def test_every_variant_is_traced_as_if_read_item_by_item(
    toy_config, toy_dataset, changes, monkeypatch
):
    model = make_model(toy_config(memory_backend="torch", **changes), toy_dataset)
    items = torch.from_numpy(History.of(toy_dataset, "u3").items)
    monkeypatch.setattr(trace_module, "_BLOCK", 3)
    with torch.no_grad():
        found = Trace.of(model, items, len(items) - 2)
        state, attention, values = None, [], []
        for item in items:
            _, state = model(item.view(1, 1), state)
            attention.append(model.attention(state.hidden[-1][0]))
            values.append(model.value_matrices(state)[0])
    torch.testing.assert_close(found.attention, torch.stack(attention[2:]))
    torch.testing.assert_close(found.values, torch.stack(values[2:]))
    torch.testing.assert_close(found.state.hidden, state.hidden)


def plain_ranking(vectors: dict[int, np.ndarray], value: np.ndarray) -> list[tuple[float, int]]:
    """Entities by L1 distance (Sec. 5.4), of equal distances the smaller id first."""
    distances = []
    for entity in sorted(vectors):
        total = 0.0
        for x, y in zip(vectors[entity], value, strict=True):
            total += abs(float(x) - float(y))
        distances.append((total, entity))
    return sorted(distances)


@pytest.mark.parametrize("cells", [1 << 22, 7])
def test_rankings_equal_a_plain_loop(model, toy_dataset, cells, monkeypatch):
    monkeypatch.setattr(batching, "_CELLS", cells)
    found = ValueEntities.of(toy_dataset)
    history = History.of(toy_dataset, "u5").items
    with torch.no_grad():
        # Two entities of one range with the same vector, so that there are ties.
        one, other = found.ranges[1][2:4]
        model.entity_embedding.weight[other] = model.entity_embedding.weight[one]
        values = Trace.of(model, torch.from_numpy(history), 6).values
        rankings = rank_values(model, found, values, np.append(history[-5:], 0), top=3)
        vectors = model.entity_vectors(torch.arange(toy_dataset.entity_num)).numpy()
    triples = toy_dataset.triples.tolist()
    for a, relation in enumerate(toy_dataset.attributes):
        entities = {t for h, r, t in triples if r == relation and h in toy_dataset.item_entities}
        for s in range(6):
            expected = plain_ranking({e: vectors[e] for e in entities}, values[s, a].numpy())
            nearest = found.ranges[a][rankings[a].nearest[s]]
            assert nearest.tolist() == [entity for _, entity in expected[:3]]
            distances = [distance for distance, _ in expected[:3]]
            np.testing.assert_allclose(rankings[a].nearest_distances[s], distances, atol=1e-12)
            right = {}
            if s < 5:
                head = toy_dataset.item_entities[history[-5:][s]]
                right = {t for h, r, t in triples if h == head and r == relation}
            mine = rankings[a].right_steps == s
            got = found.ranges[a][rankings[a].right[mine]]
            ranks = {e: n for n, (_, e) in enumerate(expected, start=1) if e in right}
            assert dict(zip(got, rankings[a].right_ranks[mine], strict=True)) == ranks


# What an explanation says ----------------------------------------------------------------------


def test_weights_sum_to_one_and_the_marked_entities_are_those_of_the_next_item(films):
    model, dataset = films
    explanation = explain(model, dataset, "ben", steps=4, top=2)
    assert [step.number for step in explanation.steps] == [3, 4, 5, 6]
    assert [step.item.id for step in explanation.steps] == ["10", "7", "8", "2"]
    assert explanation.n_interactions == 6
    tails = {item: set(tails) for item, (_, _, _, tails) in FILMS.items()}
    for step in explanation.steps:
        assert sum(view.weight for view in step.attributes) == pytest.approx(1)
        if step.next_item is None:
            assert all(v.right is None for view in step.attributes for v in view.values)
            assert not any(view.right for view in step.attributes)
            continue
        for view in step.attributes[:-1]:  # the last, prequel, has films as entities
            assert {v.id for v in view.right} <= tails[step.next_item.id]
            assert len(view.right) == 1
            for value in view.values:
                assert value.right == (value.id in tails[step.next_item.id])
    assert explanation.steps[-1].next_item is None
    assert explanation.steps[-2].next_item == explanation.steps[-1].item


def test_recommendations_are_the_full_ranking_without_the_history(films):
    model, dataset = films
    explanation = explain(model, dataset, "cy", recommendations=4)
    items = torch.tensor([[dataset.field2token_id["item_id"][i] for i in ("7", "8", "1", "3")]])
    batch = {"user_id": torch.tensor([3]), "item_id_list": items, "item_length": torch.tensor([4])}
    scores = model.full_sort_predict(Interaction(batch))[0]
    scores[0] = scores[items[0]] = -torch.inf
    best = scores.topk(4)
    ids = dataset.field2id_token["item_id"][best.indices.numpy()]
    assert [r.item.id for r in explanation.recommendations] == ids.tolist()
    np.testing.assert_allclose(
        [r.score for r in explanation.recommendations], best.values.detach(), atol=1e-12
    )


def test_a_user_with_one_interaction_and_one_who_wants_more_than_there_is(films):
    model, dataset = films
    explanation = explain(model, dataset, "dee", recommendations=1000)
    assert len(explanation.steps) == 1 and explanation.steps[0].next_item is None
    assert len(explanation.recommendations) == len(FILMS) - 1
    told = render(explanation, full=True)
    assert "now" in told and "before:" not in told


def test_explaining_leaves_the_model_as_it_was_and_reads_it_without_dropout(tmp_path):
    model, dataset = films_model(write_films(tmp_path / "films"), dropout_prob=0.5)
    model.train()
    first, second = (explain(model, dataset, "ben").to_dict() for _ in range(2))
    assert first == second and model.training


def test_train_ratio_leaves_out_the_same_as_in_training(tmp_path):
    model, dataset = films_model(write_films(tmp_path / "films"), train_ratio=0.5)
    explanation = explain(model, dataset, "ben")
    assert explanation.n_interactions == 4  # two of four in training, and the two held out
    assert explanation.steps[0].item.id == "10"
    sequences, user = dataset.sequences, dataset.field2token_id["user_id"]["ben"]
    seen = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]]
    ids = {str(dataset.field2id_token["item_id"][item]) for item in seen}
    assert len(ids) > 4 and not ids & {each.item.id for each in explanation.recommendations}


def test_times(films):
    model, dataset = films
    assert explain(model, dataset, "ben").steps[1].time == "2000-01-02 00:00"
    history = History.of(dataset, "ben")
    in_ms = replace(history, timestamps=history.timestamps * 1000)
    assert in_ms.times() == history.times()
    assert replace(history, timestamps=np.arange(6.0)).times() == [None] * 6


# Names -----------------------------------------------------------------------------------------


def test_names_are_read_where_there_are_any(films):
    model, dataset = films
    explanation = explain(model, dataset, "ben", top=20)
    titles = {step.item.title for step in explanation.steps}
    assert {"Amélie (2001)", "七人の侍 (1954)", "Blade Runner (1982)"} <= titles
    directors, _, countries, prequels = (view.values for view in explanation.steps[0].attributes)
    assert {v.name for v in directors} >= {"Ridley Scott", "黒澤 明"}
    assert {v.name for v in countries} == {"United States", "France", "japan"}
    assert {v.name for v in prequels} == {"Alien (1979)", "Aliens (1986)"}
    assert len(explanation.notes) == 1 and "1 of the 16 entities" in explanation.notes[0]


def test_without_names_ids_are_shown_and_one_line_says_how_to_add_them(tmp_path):
    model, dataset = films_model(write_films(tmp_path / "films", names=False))
    explanation = explain(model, dataset, "ben")
    assert explanation.steps[0].item.title == "5"
    (note,) = explanation.notes
    assert "films.item" in note and "films.entity" in note and "name:token_seq" in note
    assert note in " ".join(render(explanation, width=400, full=True).split("\n"))


def test_an_item_without_a_title_is_called_as_its_entity(films, tmp_path):
    """Tracks of a graph with names, where nobody wrote a table of items."""
    _, dataset = films
    folder = tmp_path / "films" / "films"
    items = sorted(dataset.item2entity)
    (folder / "films.item").unlink()
    with (folder / "films.entity").open("a") as file:
        file.write("".join(f"{dataset.item2entity[i]}\tSong {i}\n" for i in items[1:]))
    names = Names.read(dataset, set(items), set())
    assert names.items == {i: f"Song {i}" for i in items[1:]} and not names.notes
    assert item_titles(dataset, items) == [items[0], *(f"Song {i}" for i in items[1:])]


@pytest.mark.parametrize("key", ["title_id", "item_name", "name"])
@pytest.mark.parametrize("more", ["", "\tname_of_it:token_seq"])
def test_a_column_of_ids_that_is_called_as_titles_are_is_none(key, more, toy_config, toy_folder):
    folder = toy_folder / "toy"
    for suffix in ("inter", "link"):
        path = folder / f"toy.{suffix}"
        path.write_text(path.read_text().replace("item_id:token", f"{key}:token", 1))
    rows = "".join(f"i{item}" + ("\tFilm" if more else "") + "\n" for item in range(1, 4))
    (folder / "toy.item").write_text(f"{key}:token{more}\n{rows}")
    dataset = load_dataset(toy_config(ITEM_ID_FIELD=key, data_cache_dir=None))
    assert item_titles(dataset, ["i1", "i9"]) == ["Film" if more else "i1", "i9"]


@pytest.mark.parametrize(
    ("suffix", "text", "said"),
    [
        ("entity", "entity_id:token\tlabel:token_seq\nscott\tX\n", "has no column 'name'"),
        ("entity", "entity_id:token\tname:token_seq\nscott\n", "line 2: 1 column found"),
        ("item", "item:token\tmovie_title:token_seq\n1\tX\n", "has no column 'item_id'"),
        ("relation", "relation:token\nx\n", "has no column 'relation_id'"),
    ],
)
def test_a_malformed_file_of_names_is_one_sentence(films, tmp_path, suffix, text, said):
    model, dataset = films
    (tmp_path / "films" / "films" / f"films.{suffix}").write_text(text)
    with pytest.raises(UserError, match=rf"films\.{suffix}.*{said}"):
        explain(model, dataset, "ben")


@pytest.mark.parametrize(
    ("relation", "label"),
    [
        ("film.film.directed_by", "directed by"),
        ("film.film.actor", "actor"),
        ("dbo:musicComposer", "music composer"),
        ("http://dbpedia.org/ontology/starring", "starring"),
        ("<http://www.w3.org/2000/01/rdf-schema#seeAlso>", "see also"),
        ("ml:genre", "genre"),
        ("dbo:star<b>", "star<b>"),
        ("wdt:P57", "P57"),
        ("genre", "genre"),
        ("isLocatedIn", "is located in"),
        ("http://example.org/", "example.org"),
        ("::", "::"),
    ],
)
def test_relations_in_words(relation, label):
    assert relation_label(relation) == label


def test_labels_are_different_and_reverses_are_told():
    relations = ["dbo:director", "omdb:director", "film.film.genre", "tv.tv_program.genre", "x:a"]
    assert relation_labels([*relations, "x:b"], {"x:b": "x:made_by"}) == (
        "director (dbo)",
        "director (omdb)",
        "genre (film)",
        "genre (tv program)",
        "a",
        "made by, reversed",
    )
    twins = ["http://x.org/one/genre", "http://x.org/two/genre"]
    assert relation_labels(twins, {}) == tuple(f"genre ({twin})" for twin in twins)


def test_the_relation_file_tells_reverse_sides(tmp_path):
    folder = write_toy(tmp_path / "data")
    (folder / "toy" / "toy.relation").write_text(
        "relation_id:token\treverse_id:token\tattribute:float\n"
        "film.genre\tgenre.films\t1\ngenre.films\tfilm.genre\t0\nfilm.director\t\t1\n"
    )
    values = toy_values(folder, attributes=["film.director", "genre.films"])
    dataset = KGSequenceDataset(Config("KSR", "toy", None, values))
    dataset.build()
    assert attribute_labels(dataset) == ("director", "genre, reversed")


# Views -----------------------------------------------------------------------------------------


def test_the_terminal_view_is_as_it_was(films):
    model, dataset = films
    explanation = explain(model, dataset, "ben", steps=5, top=3)
    notes = tuple(n.replace(str(dataset.dataset_path), "FOLDER") for n in explanation.notes)
    for full, name in ((False, "explanation.txt"), (True, "explanation_full.txt")):
        stored = (SNAPSHOTS / name).read_text(encoding="utf-8")
        assert render(replace(explanation, notes=notes), full=full) == stored


@pytest.fixture
def many(films):
    """Twenty steps, seventeen attributes, and text that wants to be markup."""
    model, dataset = films
    small = explain(model, dataset, "ben", top=3)
    evil = '</script><script>document.title = "evil"</script> [red]"quoted" \u2028 & ' + "long" * 30
    attributes = tuple(
        replace(small.attributes[0], label=f"{word} attribute number {n}")
        for n, word in enumerate(("directed", "produced", "écrit", "cinematography") * 4 + ("x",))
    )
    steps = []
    for number in range(1, 21):
        step = small.steps[(number - 1) % 5]
        views = tuple(
            replace(view, weight=(n + number % 7) / 200)
            for n, view in enumerate(step.attributes[:1] * 17)
        )
        item = replace(step.item, title=f"{evil if number == 19 else 'Film'} {number}")
        steps.append(replace(step, number=number, item=item, attributes=views))
    steps[-1] = replace(steps[-1], next_item=None)
    item = replace(small.steps[0].item, title=evil)
    reason = Reason(
        f"with {evil}", f"with {evil}: you chose Film", (2,), ("actor",), "e", evil, 0.1, 0.5, 2.0,
        3, (Chosen(steps[3].item, 17),),
    )  # fmt: skip
    recommendations = (
        Recommendation(1, item, 1.0, f"With {evil}.", (reason,) * 5, (reason,), ()),
        *(Recommendation(k, item, 0.5, "It shares nothing.", (), (), ()) for k in range(2, 11)),
    )
    return replace(
        small,
        n_interactions=20,
        attributes=attributes,
        attention=tuple(view.weight for view in steps[-1].attributes),
        history=tuple(replace(step.item, id=str(step.number)) for step in steps),
        steps=tuple(replace(s, item=replace(s.item, id=str(s.number))) for s in steps),
        recommendations=tuple(
            replace(each, reasons=tuple(marking(r) for r in each.reasons))
            for each in recommendations
        ),
    )


def marking(reason: Reason) -> Reason:
    """The same reason, which names the fourth item of the history."""
    (chosen,) = reason.chosen
    return replace(reason, chosen=(replace(chosen, item=replace(chosen.item, id="4")),))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_of_the_terminal_view_is_too_long(many, width):
    for full in (False, True):
        lines = render(many, width, full=full).splitlines()
        assert max(map(cell_len, lines)) <= width
        assert "[red]" in render(many, 400, full=full)


def test_wide_letters_keep_the_heat_map_in_its_width(many):
    attributes = tuple(replace(a, label=f"導演名字{n}") for n, a in enumerate(many.attributes))
    lines = render(replace(many, attributes=attributes), full=True).splitlines()
    assert max(map(cell_len, lines)) <= 80


def test_attention_on_what_few_items_have_alone_is_shown_as_none(many):
    steps = [
        replace(s, attributes=tuple(replace(view, weight=0.0) for view in s.attributes))
        for s in many.steps
    ]
    told = render(replace(many, steps=tuple(steps)), full=True)
    assert "attribute number 0" in told and "▓" not in told.split("from 5%")[0]


def test_the_short_view_has_24_lines_however_much_there_is(many):
    many = replace(many, notes=("A note. " * 30,), value_matrix="shared")
    assert len(render(many).splitlines()) <= 24


@pytest.mark.parametrize("width", [40, 80])
def test_a_note_that_is_too_long_is_not_cut_before_what_to_do(many, width):
    note = "items are shown by their ids: for names put toy.item there"
    noted = replace(many, notes=(f"{note}, {'and so on ' * 9}",))
    last = render(noted, width).splitlines()[-1]
    assert last == "Names are missing; --full says more."
    assert note in " ".join(render(noted, width, full=True).split())
    assert render(replace(many, notes=("short.",)), width).endswith("Names: short.\n")


@pytest.mark.parametrize("ascii_only", [False, True])
def test_what_the_short_view_leaves_out_is_marked(many, ascii_only):
    few = replace(many, recommendations=many.recommendations[:1] * 7)
    item = replace(few.recommendations[0].item, title="Opera in four acts " * 3)
    long = replace(few.recommendations[0], item=item)
    dot = "..." if ascii_only else "…"
    for others, marked in (((), False), ((long,) * 3, True)):
        shown = replace(few, recommendations=(replace(long, item=Item("1", "A")),) * 7 + others)
        lines = render(shown, ascii_only=ascii_only).splitlines()
        (first,) = (k for k, line in enumerate(lines) if line.startswith("Then: "))
        last = lines[first + 1] or lines[first]
        assert last.endswith(dot) == marked and cell_len(last) <= 80


def test_the_view_of_an_exact_memory_names_no_equation_of_the_papers_memory(many):
    for kind in ("private", "exact"):
        for full in (False, True):
            said = render(replace(many, value_matrix=kind), 400, full=full)
            assert ("Eq. 6" in said) == (kind != "exact")
            assert ("of the reading weights" in said) == (kind == "exact")
    assert "Sec. 5.4" not in said


def test_colours_are_for_terminals_and_change_no_letter(many):
    plain, coloured = render(many, full=True), render(many, colour=True, full=True)
    assert "\x1b" not in plain and "\x1b[" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [x.rstrip() for x in stripped.splitlines()] == plain.splitlines()
    assert not set("░▒▓█✓") & set(render(many, ascii_only=True, full=True))


def test_abbreviations_are_different_and_short():
    labels = ["directed by", "director", "direction", "distributor", "prequel", "directing boys"]
    codes = abbreviations([*labels, *labels])
    assert len(set(codes)) == len(codes) and max(map(len, codes)) <= 4
    assert codes[0] == "diby" and codes[4] == "preq"


def test_what_could_end_the_script_is_escaped_and_read_back_the_same(many):
    html = page(many)
    inside = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "<" not in inside and ">" not in inside
    assert json.loads(inside) == json.loads(json.dumps(cleaned(many).to_dict()))
    assert html.count("</script>") == 2  # the page's own two


def test_no_control_character_and_no_direction_mark_is_in_the_page(many):
    hostile = "a\x1b]0;owned\x07\x9b2J\u202egnp.exe\u2066\u2028b"
    step = replace(many.steps[0], item=replace(many.steps[0].item, title=hostile))
    html = page(replace(many, steps=(step, *many.steps[1:])))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", html)
    assert r"a\\x1b]0;owned" in html and r"\\u202egnp.exe" in html


def test_the_page_names_no_other_address(many):
    html = page(replace(many, notes=()))
    assert "http:" not in html and "https:" not in html and "src=" not in html


def test_the_figure_draws_titles_that_look_like_formulas(many, tmp_path):
    step = replace(many.steps[0], item=replace(many.steps[0].item, title="$x_{ $100"))
    draw(replace(many, steps=(step, *many.steps[1:])), tmp_path / "one.png")
    draw(replace(many, steps=many.steps[-1:]), tmp_path / "two.png")
    for name in ("one.png", "two.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_explanation_without_steps_has_a_page_and_no_figure(many, tmp_path):
    with pytest.raises(UserError, match="has no steps to draw"):
        draw(replace(many, steps=()), tmp_path / "none.png")
    with pytest.raises(UserError, match="2,000 interactions and 3 values is too large"):
        draw(replace(many, steps=many.steps * 100), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert "somebody new" in page(replace(many, steps=(), user=""))


# In a browser ----------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-background-networking"]
        found = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture(params=[1280, 390])
def opened(request, browser, many, tmp_path):
    """The page at a width, and what it asked for and complained of."""
    file = tmp_path / "page.html"
    file.write_text(page(many), encoding="utf-8")
    view = browser.new_page(viewport={"width": request.param, "height": 800})
    view.problems, view.requests = [], []
    view.on("console", lambda message: view.problems.append(message.text))
    view.on("pageerror", lambda error: view.problems.append(str(error)))
    view.on("request", lambda asked: view.requests.append(asked.url))
    view.goto(file.as_uri())
    yield view
    assert view.problems == []
    assert view.requests == [file.as_uri()]
    view.close()


def test_the_page_fits_its_window_and_shows_the_titles_as_text(opened, many):
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    text = opened.text_content("#heat")
    many = cleaned(many)
    for step in many.steps:
        assert step.item.title in text
    assert opened.title() == "KSR-paper on films: user ben"
    assert many.recommendations[0].item.title in opened.text_content("#recommendations")
    assert "shares nothing" in opened.text_content("#recommendations ol.cards > li:nth-child(2)")
    assert "More than a fifth of the items have these too" in opened.text_content("ol.cards")


def test_a_page_of_one_user_is_short_and_a_reason_marks_its_items(opened, many):
    if opened.viewport_size["width"] == 1280:
        assert opened.evaluate("document.documentElement.scrollHeight") < 2500
    opened.focus("ul.reasons button")
    opened.keyboard.press("Enter")
    assert opened.locator("#history li.marked").all_inner_texts() == ["Film 4"]
    assert opened.locator("#heat th.marked").all_text_contents() == [many.attributes[2].label]
    assert "you chose Film" in opened.text_content("#marked")
    opened.keyboard.press("Enter")
    assert opened.locator(".marked").count() == 0


def test_the_slider_changes_the_ranking_by_keyboard(opened, many):
    def ranking() -> list[str]:
        return opened.locator("#ranking li").all_inner_texts()

    opened.click("#values-title")
    opened.focus("#step")
    shown = ranking()
    assert many.steps[-2].attributes[0].values[0].name in shown[0]
    opened.keyboard.press("ArrowLeft")
    assert ranking() != shown
    assert opened.text_content("#step-number") == "18 of 20"
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for value in many.steps[17].attributes[0].values:
        marked = opened.locator("#ranking li.right").all_inner_texts()
        assert any(value.name in text for text in marked) == bool(value.right)


def test_the_heat_map_is_walked_with_the_arrow_keys(opened, many):
    def label() -> str:
        return opened.evaluate("document.activeElement.getAttribute('aria-label')")

    opened.click("#attention-title")
    opened.focus("#heat td[tabindex='0']")
    most, second = many.by_attention()[:2]
    last, before = (cleaned(step.item.title) for step in (many.steps[-1], many.steps[-2]))
    assert label().startswith(f"{last}, {many.attributes[most].label}: ")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowUp")
    assert label().startswith(f"{before}, {many.attributes[second].label}: ")
    assert many.attributes[second].label in opened.text_content("#cell")
    opened.keyboard.press("Home")
    opened.keyboard.press("ArrowUp")
    assert not opened.is_visible("#ranking")
    opened.keyboard.press("Enter")
    assert opened.text_content("#step-number") == "18 of 20"
    assert opened.is_visible("#ranking")


def test_a_click_in_the_heat_map_shows_its_values(opened):
    opened.click("#attention-title")
    assert not opened.is_visible("#ranking")
    opened.click("#heat tbody tr:nth-child(17) td:nth-child(2)")
    assert opened.is_visible("#ranking") and opened.text_content("#step-number") == "17 of 20"


def test_a_page_of_an_exact_memory_names_no_equation_of_the_papers_memory(browser, many, tmp_path):
    file = tmp_path / "page.html"
    for kind in ("private", "exact"):
        file.write_text(page(replace(many, value_matrix=kind)), encoding="utf-8")
        view = browser.new_page()
        view.goto(file.as_uri())
        view.click("#words-title")
        said = view.inner_text("#memory")
        assert ("Eq. 8-9" in said, "Eq. 6" in said) == (kind != "exact",) * 2
        assert ("share of the weights" in said) == (kind == "exact")
        view.close()


# Checkpoints and the command line --------------------------------------------------------------


def train(folder: Path, **changes: object) -> str:
    """Train KSR on the toy data for an epoch, from random vectors; the checkpoint's path."""
    config = Config("KSR", "toy", None, toy_values(folder, epochs=1, **changes))
    dataset = load_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    dataset.pretrained = random_vectors(config, dataset)
    trainer = make_trainer(config, dataset)
    trainer.fit(train_data, valid_data)
    return trainer.saved_model_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the toy data and a KSR trained on it; there are no pretrained vectors."""
    folder = write_toy(tmp_path_factory.mktemp("trained"))
    with chdir(folder):
        train(folder, dropout_prob=0.2, embedding_size=6, num_layers=2)
    return folder


def arguments(folder: Path, *extra: str) -> list[str]:
    return [
        "explain", "--dataset=toy", f"--data_path={folder}", f"--checkpoint_dir={folder / 'saved'}",
        f"--data_cache_dir={folder / 'cache'}", *extra,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value_matrix": "shared", "kb_input": True},
        {"project_entities": True, "item_init": "random", "freeze_kg": False, "kb_scale": 2.0},
    ],
    ids=str,
)
def test_a_checkpoint_is_enough(tmp_path, monkeypatch, changes):
    folder = write_toy(tmp_path / "data")
    path = train(folder, embedding_size=6, **changes)
    for name in ("train_kge", "train_bpr"):
        monkeypatch.setattr(f"ksr_recbole.pretraining.pretrain.{name}", None)
    given = {key: toy_values(folder)[key] for key in ("data_path", "data_cache_dir", "gpu_id")}
    model, dataset, file = load_trained(path, values=given)
    assert str(file) == path and not (folder / "pretrained").exists()
    stored = checkpoint.load(path)["state_dict"]
    assert set(stored) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    explanation = ksr_recbole.explain(model, dataset, "u1", steps=3)
    assert explanation.value_matrix == changes.get("value_matrix", "private")
    told = "shared by all users" in render(explanation, 200)
    assert told == (explanation.value_matrix == "shared")


def test_a_model_that_was_not_evaluated_yet_is_not_explained(tmp_path):
    folder = write_toy(tmp_path / "data")
    path = train(folder, embedding_size=6)
    checkpoint.save(path, {**checkpoint.load(path), "epoch": -1, "best_epoch": -1})
    given = {key: toy_values(folder)[key] for key in ("data_path", "data_cache_dir", "gpu_id")}
    with pytest.raises(UserError, match="first epoch was not evaluated yet"):
        load_trained(path, values=given)


def test_the_command_shows_writes_and_says_where(trained, tmp_path, capsys):
    targets = [tmp_path / name for name in ("a.html", "a.png", "a.json")]
    extra = [f"--{path.suffix[1:]}={path}" for path in targets]
    assert main(arguments(trained, "--user=u4", "--steps=3", *extra)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("KSR on toy: user u4\n") and "\x1b" not in shown
    assert all(f"Written: {path}" in shown for path in targets)
    stored = json.loads(targets[2].read_text())
    assert [step["number"] for step in stored["steps"]][-1] == stored["n_interactions"]
    assert len(stored["steps"]) == 3 and len(stored["recommendations"]) == 10
    assert stored["user"] in targets[0].read_text(encoding="utf-8")


def test_what_only_training_reads_is_said_to_have_no_effect(trained, caplog):
    (path,) = (trained / "saved").glob("*.pth")
    idle = ["--epochs=3", "--stopping_step=2", "--results_dir=x", "--nproc=2", "--worker=4"]
    read = ["--dropout_prob=0.2", "--num_threads=1", "--field_separator=\t", "--gpu_id="]
    where = [f"--checkpoint={path}", "--eval_args.mode=uni5pop5", "--preload_weight={}"]
    assert main(arguments(trained, "--user=u4", *idle, *read, *where)) == 0
    said = [record.getMessage() for record in caplog.records]
    keys = ["checkpoint_dir", "epochs", "nproc", "preload_weight", "results_dir", "stopping_step"]
    wanted = "Config key {} has no effect on a KSR that is trained already."
    assert said == [wanted.format(key) for key in [*keys, "worker"]]


def test_the_folder_of_checkpoints_is_read_where_none_is_named_and_gpus_only_where_they_are(
    trained, caplog
):
    assert main(arguments(trained, "--user=u4", "--use_gpu=True", "--device=cpu")) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "Config key use_gpu has no effect here: everything is computed on the CPU."
    ]


def test_without_a_user_a_telling_one_is_shown_and_how_to_choose_another(trained, capsys):
    assert main(arguments(trained)) == 0
    shown = capsys.readouterr().out
    user = re.search(r"User (u\d+) was chosen .* --user=ID", shown)[1]
    assert shown.startswith(f"KSR on toy: user {user}\n") and "--full" in shown
    assert main(arguments(trained, f"--user={user}", "--full=True")) == 0  # or --full alone
    assert "Attention over the attributes" in capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(trained, capsys):
    assert main(arguments(trained, "--user=u4", "--json", "--top=2")) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content["user"] == "u4" and "Explained: " in captured.err
    assert {len(view["values"]) for view in content["steps"][0]["attributes"]} == {2}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--user=u99"], r"no user 'u99' with linked items in .*toy\.inter; its 30 users .* u0"),
        (["--user=[PAD]"], "There is no user"),
        (["--user=u1", "--steps=0"], "--steps is '0'"),
        (["--user=u1", "--top=-1"], "--top is '-1'"),
        (["--user=u1", "--model=GRU++"], r"GRU\+\+ has no memory"),
        (["--user=u1", "--model=BPR"], "BPR has no memory"),
        (["--user=u1", "--model=KRS"], "did you mean KSR"),
        (["--user=u1", "--model=KSR-paper"], "train one with `python run_recbole.py --model=KSR-p"),
        (["--user=u1", "--checkpoint=none.pth"], "none.pth does not exist"),
        (["--user=u1", "--dropout_prob=0.5"], "was trained with dropout_prob = 0.2"),
        (["--user=u1", "--stepz=3"], "Unknown config key 'stepz'"),
        (["--user=u1", "--html=/proc/x.html"], "Cannot write the file /proc/x.html"),
        (["u1"], "Cannot read the argument 'u1'"),
    ],
)
def test_a_mistake_is_one_sentence(trained, capsys, extra, said):
    assert main(arguments(trained, *extra)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [x for x in captured.err.splitlines() if x.startswith("error: ")]
    assert re.search(said, line), line
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--png=a.txt"], "--png is a.txt; it must end in .png."),
        (["--html=a.png"], "--html is a.png; it must end in .html or .htm."),
        (["--html=True"], "--html is True; it must end in .html or .htm."),
        (["--json=a"], "--json is a; it must end in .json."),
        (["--png=.png"], "--png is .png; it must end in .png."),
        (["--json=old.json"], "Cannot write the file old.json (json): Is a directory"),
        (["--html=no/folder/a.html"], "--html is no/folder/a.html, but there is no folder no/fold"),
        (["--html=a.html", "--png=note/a.png"], "--png is note/a.png, but there is no folder note"),
        (["--html=a.html", f"--json={'n' * 999}/a.json"], "but there is no folder n"),
        (["--html=a.html", "--png=link.png"], "--html and --png name one file"),
    ],
)
def test_a_file_that_cannot_be_as_it_is_named_is_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, capsys, extra, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").mkdir()
    (tmp_path / "note").write_text("kept")
    (tmp_path / "link.png").symlink_to("a.html")
    before = sorted(tmp_path.rglob("*"))
    assert main(["explain", "--user=u1", "--checkpoint=none.pth", *extra]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and said in captured.err
    assert captured.err.count("\n") == 1 and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["truncated", "no weights", "other weights", "other model"])
def test_an_unusable_checkpoint_is_one_sentence(trained, tmp_path, capsys, damage):
    (path,) = (trained / "saved").glob("*.pth")
    broken = tmp_path / "broken.pth"
    if damage == "truncated":
        broken.write_bytes(path.read_bytes()[:1000])
    else:
        content = checkpoint.load(path)
        if damage == "no weights":
            del content["state_dict"]
        elif damage == "other weights":
            content["state_dict"]["item_mlp.0.weight"] = torch.zeros(2, 2)
        else:
            content["model"] = "GRU"
        checkpoint.save(broken, content)
    given = [a for a in arguments(trained, "--user=u1", f"--checkpoint={broken}")]
    assert main(given) == 2
    error = capsys.readouterr().err
    said = {"truncated": "damaged", "no weights": "no state_dict", "other model": "no memory"}
    assert said.get(damage, "does not hold the weights of KSR") in error
    assert "Traceback" not in error


def test_a_checkpoint_of_other_data_or_another_dataset_is_one_sentence(trained, tmp_path, capsys):
    (path,) = (trained / "saved").glob("*.pth")
    other = write_toy(tmp_path / "other", seed=5)
    assert main(arguments(other, "--user=u1", f"--checkpoint={path}")) == 2
    assert "was trained on other toy files" in capsys.readouterr().err
    given = ["explain", "--user=u1", "--dataset=films", f"--checkpoint={path}"]
    assert main(given) == 2
    assert "is of dataset toy, not films" in capsys.readouterr().err


def test_the_api_refuses_what_does_not_belong_together(films, toy_dataset, toy_config):
    model, dataset = films
    with pytest.raises(UserError, match="was not made for this toy"):
        explain(model, toy_dataset, "u1")
    with pytest.raises(UserError, match="Linear has no memory"):
        explain(torch.nn.Linear(1, 1), dataset, "ben")
    with pytest.raises(UserError, match="number of recommendations is 0"):
        explain(model, dataset, "ben", recommendations=0)
