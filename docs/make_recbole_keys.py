"""Writes ``docs/recbole-keys.md`` from the table of config keys."""

from pathlib import Path

from ksr_recbole.config.decisions import page

if __name__ == "__main__":
    Path(__file__).with_name("recbole-keys.md").write_text(page(), encoding="utf-8")
