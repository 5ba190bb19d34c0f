"""The service over HTTP: a JSON API described by ``/openapi.json``, and the page."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from inspect import signature
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ksr_recbole.arguments import own_version
from ksr_recbole.errors import UserError, shown
from ksr_recbole.explanation.page import with_shared
from ksr_recbole.explanation.parts import Explanation, Item, Recommendation
from ksr_recbole.serve.service import Forgotten, Service
from ksr_recbole.text import clean_line

MOST_BYTES = 1 << 20
"""Of a request's body."""

MOST_SECONDS = 30
"""Until a request's body is there."""

_NO_OBJECT = ("model_attributes_type", "model_type", "dict_type", "missing")

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Token = Annotated[str, Field(min_length=1, max_length=500)]
Tokens = Annotated[list[Token], Field(max_length=10_000)]
Count = Annotated[int, Field(ge=1, le=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Who(_Body):
    """Exactly one of: a user of the dataset, items (the oldest first), a state."""

    user: Token | None = None
    items: Tokens | None = None
    state: Token | None = None


class Recommend(Who):
    """Whom to recommend to, and how."""

    k: Count = 10
    exclude_history: bool = True
    reasons: bool = True


class RecommendMany(_Body):
    """Many at once."""

    queries: Annotated[list[Who], Field(max_length=1000)]
    k: Count = 10
    exclude_history: bool = True
    reasons: bool = False


class Update(Who):
    """One more item; without ``item`` the state of what is given."""

    item: Token | None = None


class Explain(Who):
    """Whose recommendations to explain; ``explained`` names items instead of the ``k`` best."""

    k: Count = 10
    steps: Annotated[int, Field(ge=0, le=200)] = 20
    explained: Annotated[list[Token], Field(min_length=1, max_length=100)] | None = None


class Recommended(BaseModel):
    """Recommendations, best first."""

    recommendations: list[Recommendation]


class RecommendedMany(BaseModel):
    """Recommendations of each query."""

    results: list[Recommended]


class State(BaseModel):
    """The name of a state, which stays valid after updates of it: that is how to step back."""

    state: str


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class LimitedBody:
    """Refuses bodies of more than :data:`MOST_BYTES`, however they are sent, or in how long.

    A body that says a thing twice, or that no JSON parser can take, is refused with the reason.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(MOST_SECONDS):
                body = await _whole(receive)
        except TimeoutError:
            told = f"The body did not arrive within {MOST_SECONDS} seconds; send it at once."
            await _problem(408, told)(scope, receive, send)
            return
        except asyncio.CancelledError:  # the service ends
            await _problem(503, "The service ends.")(scope, receive, send)
            return
        if len(body) > MOST_BYTES:
            told = f"The body has more than {MOST_BYTES:,} bytes; ask in smaller parts."
            await _problem(413, told)(scope, receive, send)
            return
        if problem := _problem_of_json(body):
            await _problem(422, problem)(scope, receive, send)
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


async def _whole(receive: Receive) -> bytes:
    """The body of a request, or a little more of it than is allowed."""
    body = bytearray()
    while len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return bytes(body)


def _problem_of_json(body: bytes) -> str | None:
    """What is wrong with a body that a parser of JSON would take, or of which it says nothing."""
    try:
        json.loads(body, object_pairs_hook=_each_once)
    except UserError as error:
        return str(error)
    except UnicodeDecodeError:
        return "The body is not written in UTF-8."
    except RecursionError:
        return "The body is nested too deeply."
    except json.JSONDecodeError:  # FastAPI says where
        return None
    except ValueError:
        return "The body has a number of too many digits."
    return None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"The body gives {shown(name)} more than once; give it once.")
        found[name] = value
    return found


def _problem(status: int, sentence: object) -> JSONResponse:
    return JSONResponse({"detail": clean_line(str(sentence))}, status)


def _invalid(_: Request, error: Any) -> JSONResponse:
    """The first thing that is wrong with a request, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "The body"
    reason = first.get("ctx", {}).get("error", first["msg"])
    if first["type"] == "json_invalid":
        where, reason = "The body is no JSON", f"{reason} at character {where}"
    elif first["loc"] == ("body",) and first["type"] in _NO_OBJECT:  # curl -d without the header
        reason = "give a JSON object, with the header Content-Type: application/json"
    return _problem(422, f"{where}: {reason}; /openapi.json says what is expected.")


def _known_parameters(request: Request) -> None:
    """Refuse what an address asks for and nothing reads, as unknown entries of a body are.

    Links to the page may have more, which other sites add to them.
    """
    route = request.scope["route"]
    if not route.include_in_schema:
        return
    known = signature(route.endpoint).parameters if request.method == "GET" else ()
    found = [name for name, _ in request.query_params.multi_items()]
    for name in found:
        if name not in known:
            raise HTTPException(422, f"The address has a parameter {shown(name)}, which is unknown")
        if found.count(name) > 1:
            raise HTTPException(422, f"The address gives {name} more than once; give it once")


def _no_such(_: Request, error: Any) -> JSONResponse:
    told = f"{error.detail}; /openapi.json lists what can be asked for."
    answer = _problem(error.status_code, told)
    answer.headers.update(error.headers or {})
    return answer


def make_app(service: Service, hosts: list[str] | None = None) -> FastAPI:
    """The application.

    Args:
        service: answers.
        hosts: names under which it may be asked, so that no other page's script can reach it
            under a name of its own; any if there are none.
    """
    wrong = {status: {"model": Problem} for status in (400, 404, 413, 422)}
    # The pages of FastAPI's own documentation would be loaded from elsewhere.
    app = FastAPI(
        title="KSR for RecBole", version=own_version(), docs_url=None, redoc_url=None,
        dependencies=[Depends(_known_parameters)],
        responses=wrong,  # type: ignore[arg-type]  # FastAPI's type is wider than a dict may be
    )  # fmt: skip
    app.add_middleware(LimitedBody)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(Forgotten, lambda _, error: _problem(404, error))
    app.add_exception_handler(UserError, lambda _, error: _problem(400, error))
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    html = with_shared((files(__package__) / "try.html").read_text(encoding="utf-8"))

    def query_of(who: Who) -> Any:
        return service.query(who.user, who.items, who.state)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    @app.get("/items")
    def items(
        q: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> list[Item]:
        """Items with all words of ``q`` in their titles, those with most interactions first."""
        return service.find(q, limit)

    @app.post("/recommend")
    def recommend(asked: Recommend) -> Recommended:
        """The best items with titles and reasons."""
        options = asked.k, asked.exclude_history, asked.reasons
        return Recommended(recommendations=list(service.recommend(query_of(asked), *options)))

    @app.post("/recommend/batch")
    def recommend_batch(asked: RecommendMany) -> RecommendedMany:
        """The best items for many queries."""
        queries = [query_of(each) for each in asked.queries]
        options = asked.k, asked.exclude_history, asked.reasons
        found = service.recommend_batch(queries, *options)
        return RecommendedMany(results=[Recommended(recommendations=list(r)) for r in found])

    @app.post("/update")
    def update(asked: Update) -> State:
        """The state after one more item; the one before stays valid."""
        return State(state=service.update(query_of(asked), asked.item))

    @app.post("/explain")
    def explain(asked: Explain) -> Explanation:
        """Recommendations with reasons, and the memory after each of the last steps."""
        return service.explain(query_of(asked), asked.k, asked.steps, asked.explained)
