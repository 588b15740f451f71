"""GET with a bound on everything: what a server does not do, or does for ever, ends in one line and in time."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("urllib3")
pytest.importorskip("tuf")

from sync.mirror import QUICK, Mirror, serving

from edgecl.sync.fetcher import CHUNK, Http, Limits
from edgecl.sync.trust import NetworkError, TrustError
from edgecl.types import ConfigError

SLACK = 4.0  # seconds that a loaded machine may add


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with serving(Mirror(tmp_path)) as found:
        yield found


def raw(*pieces: bytes, pause: float = 0.0, until: float = 30.0) -> Callable[[Any], None]:
    """Sends bytes as they are, the last piece again and again where there is a pause."""

    def send(handler: Any) -> None:
        end = time.monotonic() + until
        with suppress(OSError):
            for piece in pieces:
                handler.wfile.write(piece)
            while pause and time.monotonic() < end:
                handler.wfile.write(pieces[-1])
                time.sleep(pause)

    return send


HEAD = b"HTTP/1.1 200 OK\r\n"


def test_a_whole_answer(mirror: Mirror) -> None:
    http = Http(QUICK)
    for status, body in ((200, b""), (200, b"x" * 3 * CHUNK), (404, b"not here"), (500, b"oh"), (304, b"")):
        mirror.twist = lambda path, status=status, body=body: (status, body)
        answer = http.read(f"{mirror.url}/a", 3 * CHUNK)
        assert (answer.status, answer.body) == (status, body)
    assert http.read(f"{mirror.url}/a", 0).headers["etag"]
    assert {s.headers["User-Agent"] for s in mirror.seen} == {"edgecl"}


def test_one_connection_is_kept(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], socket.create_connection
    monkeypatch.setattr("urllib3.util.connection.create_connection", lambda *a, **k: made.append(a) or _connect(*a, **k))

    def _connect(address: Any, timeout: Any = None, source_address: Any = None, socket_options: Any = None) -> socket.socket:
        return real(address, timeout=timeout if isinstance(timeout, float) else 5)

    mirror.twist = lambda path: b"body"
    http = Http(QUICK)
    for _ in range(5):
        http.read(f"{mirror.url}/a", 10)
    assert len(made) == 1
    with http.open(f"{mirror.url}/a", 10) as reply:
        assert reply.status == 200  # and its bytes are left there
    http.read(f"{mirror.url}/a", 10)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (raw(), "Remote end closed connection"),
        (raw(b"SSH-2.0\r\n"), "SSH"),
        (raw(HEAD + b"Content-Length: 10\r\n\r\nhalf"), "IncompleteRead|more expected"),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), "IncompleteRead|ended"),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab"), "zz|chunk|IncompleteRead|Invalid"),
        (raw(HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n"), "got more than|header line"),
        (raw(HEAD + b"X: y\r\n" * 200 + b"\r\n"), "headers"),
        (raw(HEAD, b"", pause=0.2), "no byte for 0.5 s"),
        (raw(HEAD + b"Content-Length: 10\r\n\r\nhalf", b"", pause=0.2), "no byte for 0.5 s"),
        (raw(b"", b"H", pause=0.1), "no whole answer within"),  # no line ever ends
        (raw(HEAD, b"X: y\r\n", pause=0.1), "no whole answer within|headers"),
        (raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.1), "no whole answer within"),
        (raw(HEAD + b"Content-Length: 1000\r\n\r\n", b"x", pause=0.1), "no whole answer within"),
        (raw(HEAD + b"Connection: close\r\n\r\n", b"x", pause=0.1), "no whole answer within"),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pause=0.1), "no whole answer within"),
    ],
)
def test_an_answer_that_never_ends_well(mirror: Mirror, send: Callable[[Any], None], reason: str) -> None:
    mirror.twist = lambda path: send if path == "/bad" else b"good"
    http, began = Http(QUICK), time.monotonic()
    with pytest.raises(NetworkError, match=reason) as e:
        http.read(f"{mirror.url}/bad", 1000)
    assert time.monotonic() - began < QUICK.seconds(1000) + SLACK
    assert "\n" not in str(e.value)
    assert str(e.value).startswith(f"{mirror.url}/bad: ")
    assert http.read(f"{mirror.url}/good", 10).body == b"good"  # and the next one is as ever


def test_an_answer_that_never_ends(mirror: Mirror) -> None:
    sent = []

    def endless(handler: Any) -> None:
        handler.wfile.write(HEAD + b"\r\n")
        with suppress(OSError):
            while len(sent) < 10_000:
                handler.wfile.write(b"x" * 10_000)
                sent.append(10_000)

    mirror.twist = lambda path: endless
    with pytest.raises(TrustError, match="more than the 1000 bytes"):
        Http(QUICK).read(f"{mirror.url}/a", 1000)
    assert sum(sent) < 20_000_000  # what the system's buffers took


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(mirror: Mirror, status: int) -> None:
    mirror.twist = lambda path: lambda handler: handler.send(path, status, {"Location": "/b", "Content-Length": "0"}, b"")
    assert Http(QUICK).read(f"{mirror.url}/a", 10).status == status
    assert set(mirror.paths()) == {"/a"}


def test_nothing_is_inflated(mirror: Mirror) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Length": "3"}
    mirror.twist = lambda path: lambda handler: handler.send(path, 200, headers, b"\x1f\x8b\x08")
    with pytest.raises(TrustError, match="compressed"):
        Http(QUICK).read(f"{mirror.url}/a", 10)
    assert mirror.seen[0].headers["Accept-Encoding"] == "identity"


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        with pytest.raises(NetworkError, match=f"^{url}: connection refused$"):
            Http(QUICK).read(url, 10)
    with pytest.raises(NetworkError, match="//nobody"):
        Http(QUICK).read("http://nobody.invalid/a", 10)


@pytest.mark.parametrize("url", ["", "hub", "ftp://hub/a", "file:///etc/passwd", "http:///a", "//hub/a"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="is no http"):
        Http(QUICK).read(url, 10)


def test_a_proxy_only_if_asked(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.twist = lambda path: b"body"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, mirror.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    address = "http://hub.invalid/a"
    with pytest.raises(NetworkError):
        Http(QUICK).read(address, 10)
    assert mirror.paths() == []
    for proxy in ("environment", mirror.url):
        assert Http(QUICK, proxy=proxy).read(address, 10).body == b"body"
    assert len(mirror.paths()) == 2


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key, name = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, None)
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_tls(tmp_path: Path) -> None:
    public, private = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/a"

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with suppress(ssl.SSLError), context.wrap_socket(server.accept()[0], server_side=True) as taken:
                        taken.recv(1000)
                        taken.sendall(HEAD + b"Content-Length: 4\r\n\r\nbody")
                        taken.recv(1000)
                        taken.sendall(HEAD + b"Content-Length: 4\r\n\r\n")
                        for _ in range(100):
                            taken.sendall(b"")
                            time.sleep(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(NetworkError, match="certificate verify failed"):
            Http(QUICK).read(url, 10)
        http = Http(Limits(connect=5, silent=60, whole=2), ca=public)
        assert http.read(url, 10).body == b"body"
        with pytest.raises(NetworkError, match="no whole answer within 2"):  # cut under TLS too
            http.read(url, 10)


def test_a_handshake_that_trickles(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            taken = server.accept()[0]
            with suppress(OSError), taken:
                taken.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB
                for _ in range(200):
                    taken.sendall(b"\x02")
                    time.sleep(0.1)

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(NetworkError, match="no whole answer within"):
            Http(QUICK).read(f"https://127.0.0.1:{server.getsockname()[1]}/a", 10)
        assert time.monotonic() - began < QUICK.seconds(10) + SLACK


@pytest.mark.parametrize(("package", "module"), [("urllib3", "fetcher"), ("tuf", "updater"), ("securesystemslib", "updater")])
def test_a_missing_package_is_named(package: str, module: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import edgecl.sync.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f'edgecl.types.ConfigError: sync needs the package {package}; pip install "edgecl[sync]"'
    )
