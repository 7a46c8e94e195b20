"""The attack scenarios themselves, one function each: who asks for what, when, and how it is answered.

Every function takes (rng, ground, lines, start_ms, end_ms) and gives exactly `lines` requests between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from oddlog.simulation.agents import SCANNERS, browsers
from oddlog.simulation.ground import Ground
from oddlog.simulation.payloads import (
    COMMANDS,
    ENDINGS,
    GARBAGE,
    GUESSES,
    INJECTIONS,
    PARAMETERS,
    PROBES,
    SHELLS,
)  # fmt: skip
from oddlog.simulation.requests import REQUEST_SCHEMA
from oddlog.simulation.streams import Floats

Make = Callable[[np.random.Generator, Ground, int, int, int], "Script"]


@dataclass(slots=True)
class Script:
    """Requests that a scenario makes, column by column."""

    time: list[int] = field(default_factory=list)
    client: list[str] = field(default_factory=list)
    method: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    referrer: list[str | None] = field(default_factory=list)
    agent: list[str | None] = field(default_factory=list)

    def add(
        self, time: float, client: str, method: str, target: str, status: int, size: float,
        agent: str | None, referrer: str | None = None,
    ) -> None:  # fmt: skip
        """One request; method "" is a request line that is no HTTP."""
        self.time.append(int(time))
        self.client.append(client)
        self.method.append(method)
        self.target.append(target)
        self.status.append(status)
        self.size.append(int(size))
        self.referrer.append(referrer)
        self.agent.append(agent)

    def frame(self, label: str) -> pl.DataFrame:
        """REQUEST_SCHEMA."""
        return pl.DataFrame(
            {
                "time": self.time, "client": self.client, "method": self.method, "target": self.target,
                "protocol": ["HTTP/1.1" if method else "" for method in self.method], "status": self.status,
                "bytes": self.size, "referrer": self.referrer, "agent": self.agent,
                "label": [label] * len(self.time),
            },
            schema=REQUEST_SCHEMA,
        )  # fmt: skip


def directory_scan(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """One client works through a word list as fast as it can."""
    script = Script()
    client = ground.addresses.take(1)[0]
    agent = _one(rng, SCANNERS) if rng.random() < 0.5 else ground.agent(rng)
    base = "/" if rng.random() < 0.7 else ground.folders[int(rng.integers(len(ground.folders)))]
    method = "HEAD" if rng.random() < 0.15 else "GET"
    first = int(rng.integers(len(GUESSES)))
    for number, time in enumerate(_burst(rng, lines, start_ms, end_ms, rate=rng.uniform(2, 15))):
        word, ending = divmod(number, len(ENDINGS))
        deeper = "" if word < len(GUESSES) else f"{GUESSES[word // len(GUESSES) % len(GUESSES)]}/"
        path = f"{base}{deeper}{GUESSES[(first + word) % len(GUESSES)]}{ENDINGS[ending]}"
        status, size = ground.answer(rng, path)
        if status == 404 and rng.random() < 0.012:
            status, size = (403, 160) if rng.random() < 0.7 else (301, 178)
        script.add(time, client, method, path, status, 0 if method == "HEAD" else size, agent)
    return script


def slow_distributed_scan(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """Many clients ask for a few sensitive paths each, over days, with browsers' names."""
    script = Script()
    done = 0
    while done < lines:
        share = min(int(rng.integers(1, 6)), lines - done)
        client, agent = ground.addresses.take(1)[0], ground.agent(rng)
        time = rng.uniform(start_ms, end_ms)
        for path in rng.choice(PROBES, size=share, replace=False):
            time = min(time + rng.exponential(40_000), end_ms - 1)
            status, size = ground.answer(rng, str(path))
            script.add(time, client, "GET", str(path), status, size, agent)
        done += share
    return script


def login_bruteforce(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """Passwords are tried at the login form, from one client to three; mostly the form answers 200 again."""
    script = Script()
    clients = ground.addresses.take(int(rng.integers(1, 4)))
    agents = [ground.agent(rng) for _ in clients]
    refusal = 200 if rng.random() < 0.65 else 401
    reads_form = rng.random() < 0.4
    referrer = f"{ground.origin}{ground.login}" if ground.origin and rng.random() < 0.7 else None
    for number, time in enumerate(_burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.3, 2.5))):
        which = number // 2 % len(clients)
        if reads_form and number % 2 == 0:
            size = ground.known.get(ground.login, ground.login_bytes)
            script.add(time, clients[which], "GET", ground.login, 200, size, agents[which], referrer)
        else:
            size = (ground.login_bytes if refusal == 200 else 90) + int(rng.integers(-12, 12))
            script.add(time, clients[which], "POST", ground.login, refusal, size, agents[which], referrer)
    return script


def distributed_bruteforce(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """Passwords are tried from many clients, a few times each, answered 200."""
    script = Script()
    done = 0
    while done < lines:
        share = min(int(rng.integers(1, 5)), lines - done)
        client, agent = ground.addresses.take(1)[0], ground.agent(rng)
        time = rng.uniform(start_ms, end_ms)
        for _ in range(share):
            time = min(time + rng.exponential(20_000), end_ms - 1)
            size = ground.login_bytes + int(rng.integers(-12, 12))
            script.add(time, client, "POST", ground.login, 200, size, agent)
        done += share
    return script


def injection_probes(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """One client puts injections into the parameters of real pages; many are answered 200."""
    script = Script()
    client = ground.addresses.take(1)[0]
    agent = "sqlmap/1.8.2#stable (https://sqlmap.org)" if rng.random() < 0.4 else ground.agent(rng)
    page = ground.page(rng)
    for time in _burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.2, 5)):
        if rng.random() < 0.08:
            page = ground.page(rng)
        if rng.random() < 0.02:
            script.add(time, client, "", _one(rng, GARBAGE), 400, 157, None)
            continue
        path = page.split("?")[0]
        target = f"{path}?{_one(rng, PARAMETERS)}={_one(rng, INJECTIONS)}"
        chance = rng.random()
        status, size = 200, ground.known.get(page, 8_000) + int(rng.integers(-300, 300))
        if chance > 0.93:
            status, size = 500, 1_240
        elif chance > 0.85:
            status, size = 403, 160
        elif chance > 0.78:
            status, size = 400, 157
        elif chance > 0.68:
            status, size = 404, ground.missing(rng)
        script.add(time, client, "GET", target, status, max(size, 0), agent)
    return script


def web_shell_use(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """A shell that was left on the server is used: by a busy, otherwise sound client, or by a lone one."""
    if ground.busy and rng.random() < 0.5:
        return shell_from_busy_client(rng, ground, lines, start_ms, end_ms)
    client, agent = ground.addresses.take(1)[0], ground.agent(rng)
    length = min(end_ms - start_ms, 5 * 3_600_000)
    begin = rng.uniform(start_ms, end_ms - length) if end_ms - start_ms > length else start_ms
    times = np.sort(rng.uniform(begin, begin + length, lines))
    return _shell(rng, ground, times, client, agent)


def shell_from_busy_client(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """A shell is used from the address of a busy, otherwise sound client, among its usual requests."""
    if not ground.busy:
        return web_shell_use(rng, ground, lines, start_ms, end_ms)
    client, agent = ground.busy[int(rng.integers(len(ground.busy)))]
    own = [time for time in ground.busy_times[client] if start_ms <= time < end_ms] or [start_ms]
    chosen = np.sort(rng.choice(own, size=lines)) + rng.uniform(1_000, 120_000, lines)
    return _shell(rng, ground, np.minimum(np.sort(chosen), end_ms - 1), client, agent)


def _shell(rng: np.random.Generator, ground: Ground, times: Floats, client: str, agent: str) -> Script:
    script = Script()
    folders = [*ground.folders[:8], "/uploads/", "/images/", "/tmp/"]
    path = f"{folders[int(rng.integers(len(folders)))]}{_one(rng, SHELLS)}"
    by_post = rng.random() < 0.5
    for time in times:
        size = int(rng.lognormal(6.0, 1.6)) + 12
        if by_post or rng.random() < 0.15:
            script.add(time, client, "POST", path, 200, size, agent)
        else:
            script.add(time, client, "GET", f"{path}?c={_one(rng, COMMANDS)}", 200, size, agent)
    return script


def data_pull(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """One client counts through the ids of a thing and takes all that is there."""
    script = Script()
    client = ground.addresses.take(1)[0]
    agent = ground.agent(rng) if rng.random() < 0.6 else "python-requests/2.31.0"
    things = ground.numbered
    sizes = list(things.known.values()) or [2_400]
    number = int(rng.integers(things.low, max(things.low + 1, things.high - lines // 2)))
    share_missing = rng.uniform(0.0, 0.12)
    for time in _burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.5, 6)):
        target = things.address(number)
        if target in things.known or rng.random() > share_missing:
            size = things.known.get(target, sizes[int(rng.integers(len(sizes)))])
            script.add(time, client, "GET", target, 200, size, agent)
        else:
            script.add(time, client, "GET", target, 404, ground.missing(rng), agent)
        number += 1
    return script


def botnet_one_request(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """Thousands of clients ask for one thing once each, evenly over the time, all with one user agent."""
    script = Script()
    path = _one(rng, ("/wp-login.php", "/xmlrpc.php", "/administrator/index.php", "/user/register"))
    agent = "Mozilla/5.0 (Windows NT 6.1; WOW64; rv:40.0) Gecko/20100101 Firefox/40.1"
    times = np.sort(rng.uniform(start_ms, end_ms, lines))
    for time, client in zip(times, ground.addresses.take(lines), strict=True):
        status, size = ground.answer(rng, path)
        script.add(time, client, "GET", path, status, size, agent)
    return script


def probes_answered_5xx(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """Sensitive paths are asked for, and a server in front of a broken backend answers 502, 503 or 500."""
    script = Script()
    client, agent = ground.addresses.take(1)[0], ground.agent(rng)
    status = int(rng.choice((500, 502, 503)))
    for time in _burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.2, 3)):
        script.add(time, client, "GET", _one(rng, PROBES), status, 150 + status % 7 * 33, agent)
    return script


def rotating_user_agents(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """A scan from one client that names another browser with every request."""
    script = Script()
    client = ground.addresses.take(1)[0]
    agents = browsers(rng, 200).name
    for time in _burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.5, 6)):
        agent = agents[int(rng.integers(len(agents)))]
        guessed = f"/{_one(rng, GUESSES)}{_one(rng, ENDINGS)}"
        path = _one(rng, PROBES) if rng.random() < 0.5 else guessed
        status, size = ground.answer(rng, path)
        script.add(time, client, "GET", path, status, size, agent)
    return script


def xmlrpc_posts(rng: np.random.Generator, ground: Ground, lines: int, start_ms: int, end_ms: int) -> Script:
    """POSTs to one endpoint, all answered 200 with the same few bytes."""
    script = Script()
    clients = ground.addresses.take(int(rng.integers(1, 5)))
    agent = ground.agent(rng)
    size = int(rng.integers(380, 720))
    for number, time in enumerate(_burst(rng, lines, start_ms, end_ms, rate=rng.uniform(0.05, 2))):
        script.add(time, clients[number % len(clients)], "POST", "/xmlrpc.php", 200, size, agent)
    return script


def _one(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _burst(rng: np.random.Generator, lines: int, start_ms: int, end_ms: int, rate: float) -> Floats:
    """`lines` moments in order, `rate` a second, somewhere in the window; faster where it would not fit."""
    gaps = rng.exponential(1000 / rate, lines)
    room = end_ms - start_ms
    if gaps.sum() > room * 0.9:
        gaps *= room * 0.9 / gaps.sum()
    begin = start_ms + rng.random() * (room - gaps.sum())
    return np.asarray(np.minimum(begin + np.cumsum(gaps), end_ms - 1), dtype=np.float64)
