"""Who is let in to the service, under which id, and how long and large a request may be; in this process."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from oddlog.errors import UsageError
from oddlog.features.declaration import FEATURE_NAMES
from oddlog.settings import load
from serving.backend import Backend
from serving.wire import ARROW, encode_matrix
from tests.service_in_process import Client, empty_backend

NAMES = list(FEATURE_NAMES)
OLD, NEW = "old-key-0123456789", "new-key-0123456789"
ROW = encode_matrix(np.zeros((1, len(NAMES)), np.float32), NAMES)


def client(folder: Path, **serve: Any) -> Client:
    return Client(empty_backend(folder, **serve))


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "no key"),
        ({"authorization": "Bearer "}, "not one of this service's"),
        ({"authorization": f"Bearer {OLD}x"}, "not one of this service's"),
        ({"authorization": f"Bearer {OLD[:-1]}"}, "not one of this service's"),
        ({"authorization": f"Bearer {OLD},{NEW}"}, "not one of this service's"),
        ({"authorization": f"Basic {OLD}"}, "not one of this service's"),
        ({"authorization": OLD}, "not one of this service's"),
        ({"x-api-key": OLD}, "no key"),
    ],
)
def test_without_a_key_nothing_is_told(
    tmp_path: Path, headers: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask = client(tmp_path, api_key=f"{OLD},{NEW}")
    with caplog.at_level(logging.INFO, "serving"):
        for answer in (ask("GET", "/v1/models", headers=headers), ask.post("/v1/score", ROW, ARROW, headers=headers)):
            assert answer.status_code == 401
            assert says in answer.json()["found"]
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert OLD not in answer.text
    assert OLD not in caplog.text


@pytest.mark.parametrize("authorization", [f"Bearer {OLD}", f"Bearer {NEW}", f"bearer  {OLD}"])
def test_either_key_is_good_while_one_takes_the_others_place(tmp_path: Path, authorization: str) -> None:
    ask = client(tmp_path, api_key=f"{OLD},{NEW}")
    assert ask("GET", "/v1/models", headers={"authorization": authorization}).status_code == 200


def test_no_key_is_asked_for_where_none_is_set(tmp_path: Path) -> None:
    assert client(tmp_path)("GET", "/v1/schema").status_code == 200


@pytest.mark.parametrize("key", ["", "short", f"{OLD},", f",{OLD}", f"{OLD}, {NEW}", "with spaces in it at all"])
def test_what_is_no_key_closes_nothing_by_mistake(key: str) -> None:
    with pytest.raises(UsageError, match=r"serve\.api_key") as caught:
        load({"serve": {"api_key": key}})
    assert not key or key not in str(caught.value)
    with pytest.raises(UsageError, match=r"scorer\.api_key"):
        load({"scorer": {"api_key": f"{OLD},{NEW}"}})


def test_an_id_is_taken_or_made_and_is_in_answer_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ask = client(tmp_path)
    with caplog.at_level(logging.INFO, "serving"):
        assert ask("GET", "/v1/schema", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
        refused = ask("GET", "/v1/models/9%0A/card", headers={"x-request-id": "mine-2"})
    assert refused.status_code == 503
    assert refused.headers["x-request-id"] == "mine-2"
    assert re.search(r"GET /v1/models/9\\n/card: 503, .*\(request mine-2\)", caplog.text)
    assert "mine-1" not in caplog.text  # what went well is BentoML's access log's
    for given in ("", "two words", "a\tb", "x" * 129, "naïve"):
        made = ask("GET", "/v1/schema", headers={"x-request-id": given.encode()}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_a_mistake_of_the_service_is_answered_and_logged_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Backend) -> Any:
        raise RuntimeError("wires crossed")

    monkeypatch.setattr(Backend, "models", broken)
    answer = client(tmp_path)("GET", "/v1/models", headers={"x-request-id": "r7"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r7")
    assert "r7" in answer.json()["mend"]
    assert "wires crossed" not in answer.text
    assert "wires crossed" in caplog.text
    assert "request r7" in caplog.text


def test_a_body_that_does_not_arrive_is_given_up(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await anyio.sleep_forever()

    answer = client(tmp_path, body_seconds=0.05).post("/v1/score", slow(), ARROW)
    assert answer.status_code == 408
    assert "after 0.05 s" in answer.json()["found"]


def test_one_request_too_many_is_told_to_come_again(tmp_path: Path) -> None:
    ask = client(tmp_path, max_requests=2)

    async def crowd() -> list[httpx.Response]:
        arrived, go_on = anyio.Event(), anyio.Event()
        waiting = 0

        async def held_back() -> AsyncIterator[bytes]:
            nonlocal waiting
            waiting += 1
            if waiting == 2:
                arrived.set()
            await go_on.wait()
            yield ROW

        answers = []
        headers = {"content-type": ARROW}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ask.app), base_url="http://service") as http:

            async def one() -> None:
                answers.append(await http.post("/v1/score", content=held_back(), headers=headers))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                tasks.start_soon(one)
                await arrived.wait()
                answers.append(await http.get("/v1/schema"))
                go_on.set()
            answers.append(await http.get("/v1/schema"))
        return answers

    statuses = [answer.status_code for answer in anyio.run(crowd)]
    assert statuses == [429, 503, 503, 200]  # 503: nothing is held to score with


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    ask = client(tmp_path)
    bomb = gzip.compress(b"\0" * 20_000_000)
    for how in ({"content-encoding": "gzip"}, {"content-encoding": "br"}, {"content-encoding": "identity, gzip"}):
        answer = ask.post("/v1/score", bomb, ARROW, headers=how)
        assert answer.status_code == 415
