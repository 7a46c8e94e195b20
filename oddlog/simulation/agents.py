"""User agents: what browsers, crawlers, feed readers, monitors and tools call themselves, by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oddlog.simulation.streams import Floats

_DESKTOP = (
    "Windows NT 10.0; Win64; x64", "Windows NT 10.0; Win64; x64", "Windows NT 10.0; Win64; x64",
    "Windows NT 6.1; Win64; x64", "X11; Linux x86_64", "X11; Ubuntu; Linux x86_64",
    "Macintosh; Intel Mac OS X 10_15_7", "Macintosh; Intel Mac OS X 10_15_7", "X11; CrOS x86_64 14541.0.0",
)  # fmt: skip
_PHONES = (
    "Linux; Android 10; K", "Linux; Android 10; K", "Linux; Android 13; SM-A536B", "Linux; Android 14; Pixel 8",
    "Linux; Android 12; M2102J20SG", "Linux; Android 13; SM-S911B", "Linux; Android 11; CPH2269",
)  # fmt: skip
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


def browsers(rng: np.random.Generator, count: int = 260) -> Agents:
    """A pool of `count` browsers: few are common, many are rare, old versions linger."""
    name: list[str] = []
    apple: list[bool] = []
    mobile: list[bool] = []
    seen: set[str] = set()
    while len(name) < count:
        agent, is_apple, is_mobile = _browser(rng)
        if agent not in seen:
            seen.add(agent)
            name.append(agent)
            apple.append(is_apple)
            mobile.append(is_mobile)
    weight = 1.0 / (np.arange(count) + 3.0) ** 1.15
    return Agents(name, np.asarray(np.cumsum(weight) / weight.sum(), dtype=np.float64), apple, mobile)


def _browser(rng: np.random.Generator) -> tuple[str, bool, bool]:
    age = int(min(rng.geometric(0.35) - 1, 40))
    chrome = 128 - age
    family = rng.random()
    if family < 0.34:
        system = _DESKTOP[int(rng.integers(len(_DESKTOP)))]
        tail = f"Chrome/{chrome}.0.0.0 Safari/537.36"
        return f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) {tail}", False, False
    if family < 0.56:
        phone = _PHONES[int(rng.integers(len(_PHONES)))]
        tail = f"Chrome/{chrome}.0.0.0 Mobile Safari/537.36"
        return f"Mozilla/5.0 ({phone}) AppleWebKit/537.36 (KHTML, like Gecko) {tail}", False, True
    if family < 0.72:
        ios = _IOS[int(rng.integers(len(_IOS)))]
        device = "iPad; CPU OS" if rng.random() < 0.15 else "iPhone; CPU iPhone OS"
        version = ".".join(ios.split("_")[:2])
        if rng.random() < 0.12:
            shell = f"CriOS/{chrome}.0.{int(rng.integers(6000, 6700))}.{int(rng.integers(20, 150))}"
        else:
            shell = f"Version/{version}"
        return (
            f"Mozilla/5.0 ({device} {ios} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            f"{shell} Mobile/15E148 Safari/604.1",
            True,
            True,
        )
    if family < 0.80:
        version = f"{int(rng.integers(14, 19))}.{int(rng.integers(0, 7))}"
        return (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            f"Version/{version} Safari/605.1.15",
            True,
            False,
        )
    if family < 0.90:
        system = _DESKTOP[int(rng.integers(len(_DESKTOP)))].replace("10_15_7", "10.15")
        version = f"{129 - age}.0"
        return f"Mozilla/5.0 ({system}; rv:{version}) Gecko/20100101 Firefox/{version}", False, False
    if family < 0.96:
        edge = f"Chrome/{chrome}.0.0.0 Safari/537.36 Edg/{chrome}.0.{int(rng.integers(2000, 2900))}"
        return (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            f"{edge}.{int(rng.integers(40, 120))}",
            False,
            False,
        )
    if family < 0.98:
        samsung = (
            f"SamsungBrowser/{int(rng.integers(20, 27))}.0 Chrome/{chrome - 8}.0.0.0 Mobile Safari/537.36"
        )
        return (
            f"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) {samsung}",
            False,
            True,
        )
    opera = f"Chrome/{chrome}.0.0.0 Safari/537.36 OPR/{chrome - 14}.0.0.0"
    return (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) {opera}",
        False,
        False,
    )


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
