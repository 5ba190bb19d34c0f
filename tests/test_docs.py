"""What the documents point to is there, and what CONTRIBUTING.md says of the checks is true."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from ksr_recbole.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def headings(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def broken_links(document: Path) -> Iterator[str]:
    """The links of a document to files or headings that are not there."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in headings(target.read_text())
        ):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    assert list(broken_links(document)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Two words\n[x](b.md) [y](a.md#two-words) [z](#other)")
    assert list(broken_links(tmp_path / "a.md")) == ["b.md", "#other"]


def test_the_tables_of_reasons_are_those_of_the_stored_figures() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_reasons.py"))
    entries = json.loads(script["STORED"].read_text("utf-8"))
    assert len(entries) > 3 and len(script["PAGES"]) == 2
    for path, names in script["PAGES"].items():
        text = path.read_text("utf-8")
        assert script["page"](text, entries, names) == text, "run `python docs/make_reasons.py`"
        assert text.count(script["BEGIN"]) == 1


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:ksr_recbole|dataset_atomic|tests|configs|docs)/[\w/.]+)`", text)
    assert named and [path for path in named if not (ROOT / path).exists()] == []


def test_the_layout_names_every_folder_of_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {path.parent.name for path in (ROOT / "ksr_recbole").rglob("*.py")}
    folders |= {path.parent.name for path in (ROOT / "dataset_atomic").rglob("*.py")}
    assert [name for name in folders if f"{name}/" not in text] == []


def test_hooks_have_the_versions_of_the_tests() -> None:
    pins = (ROOT / "tests" / "requirements.txt").read_text()
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]:
        [pin] = hook["additional_dependencies"]
        assert f"\n{pin}\n" in pins


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_paragraph_is_there_twice_in_a_row(document: Path) -> None:
    paragraphs = [part.strip() for part in document.read_text().split("\n\n")]
    assert [one for one, other in pairwise(paragraphs) if one and one == other] == []


def test_spelling() -> None:
    pytest.importorskip("codespell_lib", reason="codespell is not installed")
    command = [sys.executable, "-m", "codespell_lib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_model_is_described() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert [name for name in MODELS if name not in text] == []


def test_what_a_public_host_reads_is_yaml_and_runs_what_is_there() -> None:
    files = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(files) == 4 and all(yaml.safe_load(path.read_text()) for path in files)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    steps = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for path in (".ci/package", "docs/figures.py", "examples/tour.ipynb", "docs/requirements.txt"):
        assert path in steps and (ROOT / path).exists()
    for session in re.findall(r"nox -s (\w+)", steps):
        assert f"def {session}(" in (ROOT / "noxfile.py").read_text()


def test_the_site_has_every_page() -> None:
    nav = re.findall(r": ([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text().partition("nav:")[2])
    made = {"commands.md", "api.md"}
    assert set(nav) - made == {path.name for path in (ROOT / "docs").glob("*.md")}
