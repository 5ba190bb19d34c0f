"""The checks, each in its own environment: ``nox -s tests``, ``oldest``, ``lint`` or ``docs``."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session) -> None:
    """What the README's second command installs."""
    session.install("-r", "requirements.txt", "-r", "tests/requirements.txt")
    session.install("--no-deps", "recbole==1.2.1")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """All tests on the pinned versions."""
    install(session)
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The oldest versions admitted, which only Python 3.11 and 3.12 can install."""
    install(session)
    session.install("-r", "tests/requirements-oldest.txt")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or ["@tests/oldest-files.txt"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and spelling of everything."""
    pins = Path("tests/requirements.txt").read_text().splitlines()
    tools = ("ruff", "mypy", "types-", "codespell")
    session.install("-r", "requirements.txt", *[pin for pin in pins if pin.startswith(tools)])
    session.install("--no-deps", "recbole==1.2.1")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("codespell")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, without a broken link; pictures and tables made again from the stored cells."""
    install(session)
    session.install("-r", "docs/requirements.txt")
    session.run("mkdocs", "build", "--strict")
    session.run("python", "docs/figures.py", "--check")
    files = ("docs", "figures", "readme", "shipped_results")
    session.run("python", "-m", "pytest", "-q", *[f"tests/test_{name}.py" for name in files])


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist: what an upload would check, and each run in an empty folder."""
    session.install("build", "twine")
    session.run(".ci/package", "python", external=True)
