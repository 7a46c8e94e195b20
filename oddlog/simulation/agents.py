"""User agents: what browsers, crawlers, feed readers, monitors and tools call themselves, by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oddlog.simulation.streams import Floats

_DESKTOP = (
    *("Windows NT 10.0; Win64; x64",) * 12, "Windows NT 6.1; Win64; x64",
    "X11; Linux x86_64", "X11; Ubuntu; Linux x86_64",
    *("Macintosh; Intel Mac OS X 10_15_7",) * 3, "X11; CrOS x86_64 14541.0.0",
)  # fmt: skip
_PHONES = (
    "Linux; Android 10; K", "Linux; Android 10; K", "Linux; Android 13; SM-A536B", "Linux; Android 14; Pixel 8",
    "Linux; Android 12; M2102J20SG", "Linux; Android 13; SM-S911B", "Linux; Android 11; CPH2269",
)  # fmt: skip
_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_IOS = ("15_8", "16_3", "16_6", "16_7", "17_0", "17_2_1", "17_4_1", "17_5", "17_6_1", "18_0", "18_1_1")


@dataclass(frozen=True, slots=True)
class Agents:
    """Browsers in use: their strings, cumulative market shares, and what they do by themselves.

    `name`, `apple` and `mobile` have one entry per browser; `apple` ones ask for apple-touch-icon.
    """

    name: list[str]
    cumulative: Floats
    apple: list[bool]
    mobile: list[bool]


def browsers(rng: np.random.Generator, draws: int = 4000) -> Agents:
    """The browsers of `draws` people: a few are common, many are rare, old versions linger."""
    people: Counter[tuple[str, bool, bool]] = Counter(_browser(rng) for _ in range(draws))
    name, apple, mobile = zip(*people, strict=True)
    share = np.array(list(people.values())) / draws
    return Agents(list(name), np.asarray(np.cumsum(share), dtype=np.float64), list(apple), list(mobile))


def _browser(rng: np.random.Generator) -> tuple[str, bool, bool]:
    """(user agent, made by Apple, mobile)."""
    family = int(np.searchsorted(_FAMILY_SHARES, rng.random(), side="right"))
    # Most browsers update themselves within weeks; some never do.
    age = int(min(rng.geometric(0.35) - 1, 40))
    agent = _FAMILIES[family](rng, 128 - age)
    return agent, "Mac OS X" in agent and "Chrome" not in agent and "Firefox" not in agent, "Mobile" in agent


_FAMILY_SHARES = np.cumsum([0.34, 0.22, 0.16, 0.08, 0.10, 0.06, 0.02])


def _chrome(rng: np.random.Generator, version: int) -> str:
    return f"Mozilla/5.0 ({_one(rng, _DESKTOP)}) {_WEBKIT} Chrome/{version}.0.0.0 Safari/537.36"


def _chrome_on_phone(rng: np.random.Generator, version: int) -> str:
    return f"Mozilla/5.0 ({_one(rng, _PHONES)}) {_WEBKIT} Chrome/{version}.0.0.0 Mobile Safari/537.36"


def _safari_on_phone(rng: np.random.Generator, version: int) -> str:
    ios = _one(rng, _IOS)
    device = "iPad; CPU OS" if rng.random() < 0.15 else "iPhone; CPU iPhone OS"
    if rng.random() < 0.12:
        shell = f"CriOS/{version}.0.{int(rng.integers(6000, 6700))}.{int(rng.integers(20, 150))}"
    else:
        shell = f"Version/{'.'.join(ios.split('_')[:2])}"
    return (
        f"Mozilla/5.0 ({device} {ios} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        f"{shell} Mobile/15E148 Safari/604.1"
    )


def _safari(rng: np.random.Generator, _version: int) -> str:
    version = f"{int(rng.integers(14, 19))}.{int(rng.integers(0, 7))}"
    return (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        f"Version/{version} Safari/605.1.15"
    )


def _firefox(rng: np.random.Generator, version: int) -> str:
    system = _one(rng, _DESKTOP).replace("10_15_7", "10.15")
    return f"Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"


def _edge(rng: np.random.Generator, version: int) -> str:
    build = f"{version}.0.{int(rng.integers(2000, 2900))}.{int(rng.integers(40, 120))}"
    return f"Mozilla/5.0 ({_DESKTOP[0]}) {_WEBKIT} Chrome/{version}.0.0.0 Safari/537.36 Edg/{build}"


def _samsung(rng: np.random.Generator, version: int) -> str:
    own = f"SamsungBrowser/{int(rng.integers(20, 27))}.0 Chrome/{version - 8}.0.0.0"
    return f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} {own} Mobile Safari/537.36"


def _opera(_rng: np.random.Generator, version: int) -> str:
    return f"Mozilla/5.0 ({_DESKTOP[0]}) {_WEBKIT} Chrome/{version}.0.0.0 Safari/537.36 OPR/{version - 14}.0.0.0"


def _one(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


_FAMILIES = (_chrome, _chrome_on_phone, _safari_on_phone, _safari, _firefox, _edge, _samsung, _opera)


@dataclass(frozen=True, slots=True)
class Crawler:
    """A crawler that says who it is: where it calls from, its share of crawling, and what it asks for."""

    agents: tuple[str, ...]
    network: str  # the first three parts of its addresses
    addresses: int
    weight: float
    dead: float  # share of its requests that go to pages long gone
    conditional: float  # share answered 304
    assets: float = 0.0


CRAWLERS = (
    Crawler(
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/127.0.6533.119 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        ),
        "66.249.66", 24, 30, 0.04, 0.20, 0.15,
    ),
    Crawler(("Googlebot-Image/1.0",), "66.249.66", 8, 4, 0.02, 0.3, 1.0),
    Crawler(
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; "
            "+http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36",
        ),
        "157.55.39", 20, 18, 0.07, 0.05, 0.08,
    ),
    Crawler(("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",), "77.88.47", 6, 8, 0.08, 0.1),
    Crawler(("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",), "54.36.148", 40, 10, 0.10, 0),
    Crawler(
        ("Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",),
        "185.191.171", 18, 9, 0.06, 0,
    ),
    Crawler(
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; GPTBot/1.1; +https://openai.com/gptbot",),
        "20.171.207", 10, 6, 0.03, 0,
    ),
    Crawler(
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/13.1.1 Safari/605.1.15 (Applebot/0.1; +http://www.apple.com/go/applebot)",
        ),
        "17.241.75", 12, 5, 0.02, 0.1, 0.3,
    ),
    Crawler(
        ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",), "173.252.87", 14, 3, 0.01, 0
    ),
    Crawler(("Mozilla/5.0 (compatible; DotBot/1.2; +https://opensiteexplorer.org/dotbot; help@moz.com)",),
            "216.244.66", 2, 3, 0.15, 0),
    Crawler(("Mozilla/5.0 (compatible; archive.org_bot +http://archive.org/details/archive.org_bot)",),
            "207.241.237", 5, 2, 0.12, 0, 0.4),
)  # fmt: skip
"""Crawlers of a usual log, by weight. Their networks are the ones they are known to call from."""

FEED_READERS = (
    "Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google; 84 subscribers)",
    "Tiny Tiny RSS/23.05 (https://tt-rss.org/)",
    "NewsBlur Feed Fetcher - 12 subscribers - https://www.newsblur.com",
    "FreshRSS/1.24.1 (Linux; https://freshrss.org)",
    "Inoreader/1.0 (+http://www.inoreader.com/feed-fetcher; 9 subscribers)",
    "Miniflux/2.1.4",
    "NetNewsWire (RSS Reader; https://netnewswire.com/)",
    "Thunderbird/115.13.0",
    "Liferea/1.15.3 (Linux; https://lzone.de/liferea/) AppleWebKit (KHTML, like Gecko)",
)
"""Programs that fetch a feed again and again."""

MONITORS = (
    "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
    "check_http/v2.3.3 (monitoring-plugins 2.3.3)",
)
"""Programs that ask whether the site is up."""

PARTNERS = ("python-requests/2.31.0", "okhttp/4.12.0", "Go-http-client/1.1", "PostmanRuntime/7.39.0")
"""Programs of business partners that call the API."""

SCANNERS = (
    "gobuster/3.6", "Mozilla/5.00 (Nikto/2.5.0) (Evasions:None) (Test:Port Check)", "Fuzz Faster U Fool v2.1.0-dev",
    "feroxbuster/2.10.4", "Mozilla/5.0 zgrab/0.x", "python-requests/2.28.1", "Wfuzz/3.1.0", "curl/7.88.1",
    "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)", "Go-http-client/1.1",
)  # fmt: skip
"""What tools of attack call themselves where nobody hides them."""
