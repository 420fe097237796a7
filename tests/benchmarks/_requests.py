"""Requests that no honest client makes, from a seed: paths, ranges, headers, methods, bodies, and broken HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

DOTS = ("..", "%2e%2e", "%252e%252e", ".%2e", "%c0%ae%c0%ae", "\u2025", "\uff0e\uff0e", "%u002e%u002e", "..%00", ".")
SLASHES = ("/", "%2f", "%252f", "%5c", "\\", "//", "%c0%af", "\u2215", "/./")
TARGETS = ("etc/passwd", "canary.txt", "datahub.toml", "cache/index.sqlite", "proc/self/environ", "escape/canary.txt")
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get")
HEADERS = (
    "If-None-Match", "If-Match", "If-Range", "If-Modified-Since", "Accept", "Accept-Encoding", "Authorization",
    "Datahub-Job", "Origin", "Referer", "X-Forwarded-For", "Cookie", "Content-Type", "TE", "Upgrade",
)  # fmt: skip
VALUES = (
    "", "*", '"', '""', '"a", *', "W/", "bytes=0-1", "Bearer", "Bearer \xff\xfe", "Basic Og==", "a" * 4000, "\t \t",
    "http://[", "http://x:99999999", "gzip;q=nan", "100-continue", "Thu, 99 Foo 0000 99:99:99 GMT", "websocket", "null",
    "../../x", "{}", "%00", "\x80\x81", "-1", "9" * 400, "true",
)  # fmt: skip
NUMBERS = ("", "0", "1", "-1", "9" * 18, "9" * 19, "9" * 4000, "0x10", "1e3", "1.5", " 1", "+1", "\u0661", "None")
ACTIONS = (
    "/v1/jobs",
    "/v1/jobs",
    "/v1/jobs",
    *(f"/v1/cache/{verb}" for verb in ("warm", "pin", "unpin", "lease", "evict")),
)
WILD = (
    None, True, -1, 0, 1, 2, 1.5, -0.0, 1e308, 1 << 31, 1 << 40, (1 << 62) + 1, 1 << 63, 10**30, "", "all", "\x00", "/",
    "tiny", "tiny@1.0/published", "none@1.0/published", "a" * 70, "train", [], {}, [[0.0, 0.5]], [[0.9, 0.1]],
    [[1, 1]] * 65, ["http://a", "http://b"],
)  # fmt: skip
UNITS = ("bytes", "BYTES", "bits", "", "bytes ", "items", "bytes=bytes")


@dataclass(frozen=True, slots=True)
class Sent:
    """``framed``: HTTP whose end both sides agree on, so that the connection can go on after its answer."""

    data: bytes
    method: str = "GET"
    path: str = ""
    framed: bool = False


class Requests:
    """``paths`` are those that exist. The same seed gives the same requests."""

    def __init__(self, paths: Sequence[str], size: int, seed: int) -> None:
        self._random, self._paths, self._size = random.Random(seed), paths, size

    def next(self) -> Sent:
        kind = self._random.random()
        return self._broken() if kind < 0.08 else self._framed()

    def _framed(self) -> Sent:
        pick, chance = self._random.choice, self._random.random
        method, path = pick(METHODS), self._path()
        if method in ("POST", "PUT", "DELETE") and chance() < 0.6:
            path = f"/v1/jobs/{pick(('j', 'k', 'x' * 65, '..'))}" if method == "DELETE" else pick(ACTIONS)
        headers = ["Host: x"]
        if chance() < 0.5:
            headers.append(f"Range: {self.range()}")
        for _ in range(pick((0, 0, 1, 2, 5))):
            headers.append(f"{pick(HEADERS)}: {pick(VALUES)}")
        body = self._body() if method in ("POST", "PUT", "PATCH") else b""
        if body or method in ("POST", "PUT", "PATCH"):
            headers.append(f"Content-Length: {len(body)}")
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{each}\r\n" for each in headers) + "\r\n"
        return Sent(head.encode("utf-8", "surrogateescape") + body, method, path, framed=True)

    def _path(self) -> str:
        pick, chance = self._random.choice, self._random.random
        kind, known = chance(), pick(self._paths)
        if kind < 0.35:
            return known
        if kind < 0.6:
            return self._traversal(known)
        if kind < 0.8:
            return self._mutated(known)
        parts = [quote(self._text(), safe="%/") or "x" for _ in range(pick((1, 2, 3, 5, 9)))]
        return pick(("/", "/v1/", "/v1/datasets/", "/v1/blobs/", "/v1/files/", "/v1/jobs/")) + "/".join(parts)

    def _traversal(self, known: str) -> str:
        """Up from some folder of a path that exists, and down to what must not be seen."""
        pick = self._random.choice
        below = known.split("/")[1 : pick((2, 3, 4, 5, 6))]
        up = (pick(DOTS) + pick(SLASHES)) * pick((1, 2, 3, 5, 8, 12))
        path = (
            "/"
            + "/".join(below)
            + pick(SLASHES)
            + up
            + pick(TARGETS)
            + pick(("", "", "%00", "%00.json", "/", "?a", ";a"))
        )
        return path.replace(" ", "%20")

    def _mutated(self, known: str) -> str:
        pick, at = self._random.choice, self._random.randrange(1, len(known))
        piece = pick(
            ("%00", "%", "%zz", "%ff", "//", "\u00e9", "\x7f", "A", "'", "?x=" + "y" * 300, "#", "%0d%0aX:%20y", "")
        )
        return known[:at] + piece + known[at + pick((0, 1, 2)) :]

    def range(self) -> str:
        pick, chance = self._random.choice, self._random.random
        if chance() < 0.4:
            first, last = sorted(self._random.randrange(-5, self._size + 5) for _ in range(2))
            return pick((f"bytes={first}-{last}", f"bytes={last}-{first}", f"bytes=-{first}", f"bytes={first}-"))
        if chance() < 0.2:
            edges = sorted(self._random.randrange(self._size + 5) for _ in range(2 * pick((2, 3, 20, 64, 65))))
            return "bytes=" + ",".join(f"{first}-{last}" for first, last in zip(edges[::2], edges[1::2], strict=True))
        spec = ",".join(pick(NUMBERS) + pick(("-", "-", "--", "")) + pick(NUMBERS) for _ in range(pick((1, 1, 2, 40))))
        return (pick(UNITS) + pick(("=", "=", ":", "")) + spec)[:7000]

    def _text(self) -> str:
        pick = self._random.choice
        return "".join(chr(pick((pick(range(1, 128)), pick(range(128, 0x3000))))) for _ in range(pick((1, 4, 20))))

    def _body(self) -> bytes:
        pick = self._random.choice
        if self._random.random() < 0.5:
            return json.dumps(self._job()).encode()
        value = pick(("x", "", None, -1, 1e308, [], {}, "tiny", "tiny@1.0/published", "a@b/c", "../..", "\x00", 10**30))
        key = pick(("ref", "job", "seconds", "split", "name", "seed", "epoch", "other"))
        return pick(
            (
                b"", b"{", b"null", b"[]", b"[" * 5000, b'{"ref": ' * 3000, bytes(range(256)), b"\xff\xfe{}",
                b"1" * 5000,
                json.dumps({key: value}).encode(),
                json.dumps({"ref": "tiny", key: value}).encode(),
                json.dumps({"ref": "tiny", "job": "j", "seconds": 1, key: value}).encode(),
            )
        )  # fmt: skip

    def _job(self) -> dict[str, object]:
        """What a job says, with something wrong in most."""
        pick = self._random.choice
        order: dict[str, object] = {"seed": 1, "batch": 2, "lanes": 1}
        job: dict[str, object] = {"job": pick("jk"), "dataset": "tiny@1.0/published", "split": "train", "ttl": 5}
        for _ in range(pick((0, 1, 2))):
            order[pick(("seed", "batch", "window", "lanes", "shuffle", "part", "max_samples", "x"))] = pick(WILD)
        job["order"] = pick((order, order, None))
        for _ in range(pick((0, 1, 2))):
            names = ("job", "run", "dataset", "split", "epoch", "position", "ahead", "kept", "servers", "here", "ttl")
            job[pick(names)] = pick(WILD)
        return job

    def _broken(self) -> Sent:
        """No HTTP, or HTTP that two readers would not cut in the same place."""
        pick, path = self._random.choice, self._random.choice(self._paths)
        line = f"GET {path} HTTP/1.1\r\n".encode()
        whole = line + b"Host: x\r\n\r\n"
        cut = self._random.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[cut] = self._random.randrange(256)
        post = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode()
        return Sent(
            pick(
                (
                    whole[:cut],
                    bytes(flipped),
                    self._random.randbytes(pick((1, 50, 5000))),
                    line + b"X: " + b"a" * 9000 + b"\r\n\r\n",
                    line + b"".join(b"X%d: y\r\n" % n for n in range(3000)) + b"\r\n",
                    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
                    b"GET  " + path.encode() + b"  HTTP/1.1\r\n\r\n",
                    b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET //x:y@[/ HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"GET \x00 HTTP/1.1\r\n\r\n",
                    whole[:-2] + b" folded: x\r\n\r\n",
                    whole[:-2] + b"No-Colon\r\n\r\n",
                    whole[:-2] + b"A\x00B: c\r\n\r\n",
                    line + b"\r\n",
                    line + b"Host: x\r\nHost: y\r\n\r\n",
                    post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
                    post + b"Content-Length: -1\r\n\r\n",
                    post + b"Content-Length: 99999999999999999999\r\n\r\n",
                    post + b"Content-Length: 10\r\n\r\nshort",
                    post + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                    post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
                    post + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
                    post + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
                    post + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
                    post + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
                    whole.replace(b"1.1", b"2.0"),
                    whole.replace(b"1.1", b"1.0"),
                    line + b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x00",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    whole * 40,
                )
            ),
            path=path,
        )  # fmt: skip
