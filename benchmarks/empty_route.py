"""The service with one more route, which takes a body and answers nothing: what HTTP alone costs there.

`bentoml serve benchmarks.empty_route:OddlogScorer`; benchmarks/serving.py does.
"""

from __future__ import annotations

from fastapi import Request, Response

from serving.service import OddlogScorer, app

__all__ = ["OddlogScorer"]

PATH = "/v1/empty"


async def empty(request: Request) -> Response:
    """Nothing, once the body is there."""
    await request.body()
    return Response()


app.add_api_route(PATH, empty, methods=["POST"])
