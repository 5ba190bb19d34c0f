"""Writes ``docs/recbole-keys.md`` from the table of config keys."""

from pathlib import Path

from ksr_recbole.config.decisions import DECISIONS, Fate
from ksr_recbole.text import markdown_row


def page() -> str:
    """The page of the documentation, in Markdown."""
    lines = [
        "# Every config key of RecBole",
        "",
        "<!-- Made by `python docs/make_recbole_keys.py`. -->",
        "",
        "What each key of RecBole 1.2.1 does with the models of this project, and with BPR, NeuMF, "
        "CKE and FPMC, which run under its protocol. It is the same with `run_recbole.py`, with "
        "`ksr_recbole.quick_start.run` and after `ksr_recbole.register()`. RecBole's other models "
        "run as in RecBole, and their keys do what they do there. With `--protocol=paper` they "
        "have RecBole's keys of training, and the keys of data and evaluation below. An option of "
        "another model gives a warning. A key that neither RecBole nor [this project](options.md) "
        "has is an error that names the nearest one (after `register()`, a warning).",
    ]
    for fate in Fate:
        lines += ["", f"## {fate.value.capitalize()}", "", "| keys | |", "|---|---|"]
        by_note: dict[str, list[str]] = {}
        for key, decision in DECISIONS.items():
            if decision.fate is fate:
                by_note.setdefault(decision.note, []).append(f"`{key}`")
        lines += [markdown_row([", ".join(keys), note]) for note, keys in by_note.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("recbole-keys.md").write_text(page(), encoding="utf-8")
