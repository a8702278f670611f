"""The web application: HTTP around `rest.Rest` and the page."""

import json
import secrets
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from keras_vit.errors import first_line
from keras_vit.serving.server.body import Budget
from keras_vit.serving.server.guard import HEADERS, Guard
from keras_vit.serving.server.page import Page
from keras_vit.serving.server.refusal import RETRY_AFTER, Refusal
from keras_vit.serving.server.rest import PREFIX, Rest
from keras_vit.text import say

JSON = "application/json"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ASKED_BY_PAGE = "x-keras-vit-page"
"""A header of the page's requests: a browser lets no page of another site send it."""
CLOSING = {"TOO_LARGE", "TIMEOUT", "PERMISSION_DENIED"}  # what is left of the body is not read


def application(rest: Rest, page: Page, guard: Guard, budget: Budget) -> Starlette:
    """The ASGI application.

    Args:
        rest: answers TensorFlow Serving's requests.
        page: the page at `/`, and its answers.
        guard: which requests of browsers are answered.
        budget: how much of bodies is read.
    """

    def answering(
        answer: Callable[[Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: each failure is an answer in TensorFlow Serving's form."""

        async def endpoint(request: Request) -> Response:
            try:
                guard.check(request.headers.get("host"), request.headers.get("origin"))
                response = await answer(request)
            except Refusal as refusal:
                response = refused(refusal)
            except Exception as error:
                say(f"serve: {type(error).__name__}: {first_line(error)}")
                response = refused(Refusal("INTERNAL", "this was not expected; the server's output says why"))
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return endpoint

    async def tensorflow_serving(request: Request) -> Response:
        async with budget.body(request) as body:
            found = await rest.answer(request.method, request.scope["path"], body)
        return Response(found, media_type=JSON)

    async def show_page(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: {request.method} {request.scope['path']}")
        nonce = secrets.token_urlsafe(16)
        return Response(page.html(nonce), media_type="text/html", headers=_policy(nonce))

    async def answer_page(request: Request) -> Response:
        if request.method != "POST" or ASKED_BY_PAGE not in request.headers:
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: {request.method} {request.scope['path']}")
        async with budget.body(request) as body:
            found = await rest.wait(rest.worker.submit_call(lambda: page.answer(body)))
        return Response(json.dumps(found), media_type=JSON)

    async def unknown(request: Request) -> Response:
        raise Refusal("NOT_FOUND", f"Malformed request: {request.method} {request.scope['path']}")

    return Starlette(
        routes=[
            Route(f"{PREFIX}{{rest:path}}", answering(tensorflow_serving), methods=METHODS),
            Route("/", answering(show_page), methods=METHODS),
            Route("/answer", answering(answer_page), methods=METHODS),
            Route("/{rest:path}", answering(unknown), methods=METHODS),
        ]
    )


def refused(refusal: Refusal) -> Response:
    """A refusal as TensorFlow Serving writes it."""
    headers = {"Connection": "close"} if refusal.code in CLOSING else {}
    if refusal.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        headers["Retry-After"] = RETRY_AFTER
    return Response(json.dumps({"error": refusal.text}), refusal.status, headers, JSON)


def _policy(nonce: str) -> dict[str, str]:
    """What the page may do: run its own script and style, show pictures that it has, ask this server."""
    allowed = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "img-src": "data: blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    return {"Content-Security-Policy": policy, "Permissions-Policy": "camera=(self)"}
