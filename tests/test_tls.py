"""TLS: https and wss with a certificate that is made here, by a CA that is trusted once, or with one's own."""

from __future__ import annotations

import json
import os
import shlex
import socket
import ssl
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from playwright.sync_api import BrowserContext, Error, sync_playwright

from rested_emulator import OptionError, RestedEmulator
from tests import texts
from tests.conftest import CHROMIUM_ARGUMENTS, DIARY, EVIL, GARDEN, GARDENERS, KEY, PLANTS, ROOT, TIMEOUT, need
from tests.test_browser import PAGES, App
from tests.wire import (
    COOKIE,
    PLAIN_COOKIE,
    banner_of,
    bearer,
    call,
    call_securely,
    closing,
    head,
    made_ca,
    next_of,
    open_socket,
    wire,
)

NAMES = ["localhost", "127.0.0.1", "[::1]"]
LOGIN = {"username": "ada", "password": "apricot"}

Start = Callable[..., RestedEmulator]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an emulator with TLS whose data file is in a folder of its own; all are stopped in the end."""
    started: list[RestedEmulator] = []

    def start(**options: Any) -> RestedEmulator:
        path = tmp_path / "data" / "garden.json"
        path.parent.mkdir(exist_ok=True)
        emulator = RestedEmulator(**{"data": path, "memory": False, "seed": GARDEN, "tls": True} | options)
        emulator.start()
        started.append(emulator)
        return emulator

    yield start
    for emulator in started:
        emulator.stop()


@pytest.fixture
def emulator(start: Start) -> RestedEmulator:
    return start()


def trusting(emulator: RestedEmulator) -> ssl.SSLContext:
    """What trusts the CA of an emulator, and nothing else."""
    return ssl.create_default_context(cafile=str(emulator.facts["ca"]))


def connect(emulator: RestedEmulator, name: str, trust: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection to an emulator that is taken for that name."""
    port = int(str(emulator.facts["port"]))
    plain = socket.create_connection(("::1" if name == "::1" else "127.0.0.1", port), timeout=10)
    try:
        return trust.wrap_socket(plain, server_hostname=name)
    except BaseException:
        plain.close()
        raise


def pem_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "pem" in path.name)


# https and wss


@pytest.mark.parametrize("name", NAMES)
def test_https_and_wss_work_where_the_ca_is_trusted(emulator: RestedEmulator, name: str) -> None:
    trust = trusting(emulator)
    url, ws_url = (url.replace("localhost", name) for url in (emulator.url(PLANTS), emulator.ws_url(PLANTS)))
    assert (url[:8], ws_url[:6]) == ("https://", "wss://")
    with open_socket(ws_url, ssl=trust) as ear:
        record = call_securely(trust, url, "POST", {"text": "ü" * 100_000}).json
        assert next_of(ear)["record"] == record
        assert call_securely(trust, url, uniqueId=record["uniqueId"]).json == record
        emulator.stop()
        assert closing(ear) == (1001, "The emulator stops.")


@pytest.mark.warns("SSL Error")
def test_whoever_does_not_trust_the_ca_gets_no_connection(emulator: RestedEmulator) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(emulator, "localhost", ssl.create_default_context())
    assert call_securely(trusting(emulator), emulator.url(PLANTS)).status == 200


@pytest.mark.warns("SSL Error")
def test_the_certificate_is_for_the_names_that_the_emulator_answers_to(start: Start) -> None:
    emulator = start(allow_host=["box.lan", "bücher.lan"])
    trust = trusting(emulator)
    for name in ("localhost", "127.0.0.1", "::1", "box.lan", "xn--bcher-kva.lan"):
        with connect(emulator, name, trust) as connection:
            connection.sendall(head("GET", "/__emulator__/health"))
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(emulator, "evil.example", trust)
    assert call_securely(trust, emulator.url(PLANTS)).status == 200


@pytest.mark.parametrize("name", ["my_box", "-", "x" * 70])
def test_a_name_that_no_certificate_can_have_is_an_option_error(name: str) -> None:
    with pytest.raises(OptionError, match=f"^tls: no certificate can be made for .*{name}"):
        RestedEmulator(tls=True, allow_host=[name]).start()


def certificate(emulator: RestedEmulator) -> Any:
    """What the emulator's certificate says."""
    with connect(emulator, "localhost", trusting(emulator)) as connection:
        return connection.getpeercert()


def test_the_certificate_is_of_today_and_made_anew_at_each_start(start: Start) -> None:
    emulator = start()
    first = certificate(emulator)
    begins, ends = (ssl.cert_time_to_seconds(first[name]) for name in ("notBefore", "notAfter"))
    day = 24 * 3600
    assert begins <= time.time() - day + 60
    assert time.time() + 364 * day < ends < begins + 398 * day, "Apple's systems take none that are valid for longer"
    emulator.stop()
    assert certificate(start())["serialNumber"] != first["serialNumber"]


# The CA's files


def test_ca_and_key_are_beside_the_data_file_and_for_their_owner_alone(start: Start) -> None:
    mask = os.umask(0)
    try:
        emulator = start()
    finally:
        os.umask(mask)
    ca = Path(str(emulator.facts["ca"]))
    assert ca == Path(str(emulator.facts["data"]) + ".ca.pem")
    assert pem_files(ca.parent) == ["garden.json.ca-key.pem", "garden.json.ca.pem"]
    assert {stat.S_IMODE((ca.parent / name).stat().st_mode) for name in pem_files(ca.parent)} == {0o600}
    assert b"PRIVATE" not in ca.read_bytes(), "it is given away"


def test_the_next_start_uses_the_ca_again(start: Start) -> None:
    emulator = start()
    trust, before = trusting(emulator), Path(str(emulator.facts["ca"])).read_bytes()
    emulator.stop()
    emulator = start()
    assert call_securely(trust, emulator.url(PLANTS)).status == 200
    assert Path(str(emulator.facts["ca"])).read_bytes() == before


def test_in_memory_the_ca_is_gone_with_the_emulator(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    emulator = start(memory=True, data=GARDEN, seed=None)
    ca = Path(str(emulator.facts["ca"]))
    assert call_securely(trusting(emulator), emulator.url(PLANTS)).status == 200
    assert stat.S_IMODE(ca.parent.stat().st_mode) == 0o700
    emulator.stop()
    assert not ca.parent.exists()
    assert pem_files(tmp_path) == pem_files(GARDEN.parent) == []


def test_a_start_that_was_killed_while_it_made_the_ca_costs_nothing(start: Start) -> None:
    emulator = start()
    ca, key = (Path(f"{emulator.facts['data']}.{name}.pem") for name in ("ca", "ca-key"))
    emulator.stop()
    ca.unlink()
    for half_written in (key, Path(f"{key}.new"), Path(f"{ca}.new")):
        half_written.write_bytes(b"-----BEGIN")
    emulator = start()
    assert call_securely(trusting(emulator), emulator.url(PLANTS)).status == 200
    assert pem_files(ca.parent) == ["garden.json.ca-key.pem", "garden.json.ca.pem"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in ("ca", "ca-key") for content in (b"", b"-----BEGIN", b"\xff\xfe", "another's")),
        ("ca-key", None),
    ],
)
def test_a_ca_that_cannot_be_used_is_left_as_it_is_and_named(
    start: Start, name: str, content: bytes | str | None
) -> None:
    emulator = start()
    folder, path = Path(str(emulator.facts["ca"])).parent, Path(f"{emulator.facts['data']}.{name}.pem")
    emulator.stop()
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        other = trustme.CA()
        path.write_bytes((other.cert_pem if name == "ca" else other.private_key_pem).bytes())
    before = {name: (folder / name).read_bytes() for name in pem_files(folder)}
    with pytest.raises(OptionError, match=rf"^tls: .*garden\.json\.{name}\.pem.*; delete .*\.ca\.pem"):
        start()
    assert {name: (folder / name).read_bytes() for name in pem_files(folder)} == before


# What the CA may speak for


def shake_hands(ca: Any, issued_for: str, name: str) -> None:
    """Let a server with a certificate of a CA, and a client that trusts the CA, meet in memory."""
    served, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.issue_cert(issued_for).configure_cert(served)
    ca.configure_trust(trust)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = served.wrap_bio(to_server, to_client, server_side=True)
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    assert client.version()


@pytest.fixture(scope="module")
def limited() -> Any:
    """A CA for a host, an address, and this machine."""
    return made_ca(["box.lan", "bücher.lan", "192.168.7.7"])


MINE = ["localhost", "app.localhost", "127.0.0.1", "127.8.8.8", "::1", "box.lan", "a.box.lan", "bücher.lan"]
OTHERS = ["example.com", "localhost.example.com", "xlocalhost", "box.lan.example.com", "xbox.lan", "lan", "10.0.0.1"]


@pytest.mark.parametrize("name", [*MINE, "192.168.7.7"])
def test_what_the_ca_signs_for_these_hosts_is_trusted(limited: Any, name: str) -> None:
    shake_hands(limited, name, name)


@pytest.mark.parametrize("name", [*OTHERS, "192.168.7.8", "::2", "::ffff:10.0.0.1"])
def test_what_the_ca_signs_for_others_is_worth_nothing(limited: Any, name: str) -> None:
    shake_hands(trustme.CA(), name, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake_hands(limited, name, name)


def test_a_ca_is_limited_to_this_machine_and_what_the_options_name(start: Start) -> None:
    ca = x509.load_pem_x509_certificate(Path(str(start(allow_host=["box.lan"]).facts["ca"])).read_bytes())
    limits = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value.excluded_subtrees is None
    named = {str(name.value) for name in limits.value.permitted_subtrees or ()}
    assert named == {"localhost", "127.0.0.0/8", "127.0.0.1/32", "::1/128", "box.lan"}
    days = timedelta(days=1)
    assert 725 * days < ca.not_valid_after_utc - datetime.now(UTC) <= 731 * days


def keep_ca(start: Start, ca: Any) -> Path:
    """Put a CA where an emulator looks for its own; where its certificate is."""
    emulator = start()
    path, key = (Path(f"{emulator.facts['data']}.{name}.pem") for name in ("ca", "ca-key"))
    emulator.stop()
    path.write_bytes(ca.cert_pem.bytes())
    key.write_bytes(ca.private_key_pem.bytes())
    return path


@pytest.mark.warns("is a new CA, and to be trusted anew: the one before")
@pytest.mark.parametrize(
    ("before", "why"),
    [
        (trustme.CA(), "could speak for every host there is"),
        (made_ca(["box.lan"]), "could not speak for other.lan"),
        (made_ca(["other.lan"], 710), "was valid from "),
        (made_ca(["other.lan"], 800), "was valid from "),
        (made_ca(["other.lan"], -2), "was valid from "),
    ],
    ids=["unlimited", "for other hosts", "ends soon", "ended", "not yet valid"],
)
def test_a_ca_that_is_not_as_it_should_be_is_replaced_and_the_banner_says_so(
    start: Start, before: Any, why: str
) -> None:
    path = keep_ca(start, before)
    emulator = start(allow_host=["other.lan"])
    assert path.read_bytes() != before.cert_pem.bytes()
    assert pem_files(path.parent) == ["garden.json.ca-key.pem", "garden.json.ca.pem"]
    connect(emulator, "other.lan", trusting(emulator)).close()
    said = "it is new, take the one before out of your browser: that "
    [line] = [line for line in banner_of(emulator).splitlines() if said in line]
    assert why in line
    emulator.stop()
    new = path.read_bytes()
    assert "it is new" not in banner_of(start(allow_host=["other.lan"]))
    assert path.read_bytes() == new


@pytest.mark.parametrize("before", [made_ca(["box.lan"]), made_ca([], 690)], ids=["for more hosts", "in its last year"])
def test_a_ca_that_is_good_for_all_that_is_wanted_stays(start: Start, before: Any) -> None:
    path = keep_ca(start, before)
    assert "it is new" not in banner_of(start())
    assert path.read_bytes() == before.cert_pem.bytes()


# One's own certificate


@pytest.fixture
def own(tmp_path: Path) -> tuple[ssl.SSLContext, Path, Path]:
    """A certificate as mkcert makes one, and its key; and what trusts it."""
    ca, cert, key = trustme.CA(), tmp_path / "localhost.pem", tmp_path / "localhost-key.pem"
    leaf = ca.issue_cert("localhost")
    cert.write_bytes(leaf.cert_chain_pems[0].bytes())
    key.write_bytes(leaf.private_key_pem.bytes())
    trust = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    return trust, cert, key


@pytest.mark.parametrize("in_one_file", [False, True])
@pytest.mark.parametrize("tls", [False, True])
def test_ones_own_certificate_is_used_and_none_is_made(
    start: Start, own: tuple[ssl.SSLContext, Path, Path], in_one_file: bool, tls: bool
) -> None:
    trust, cert, key = own
    if in_one_file:
        cert.write_bytes(cert.read_bytes() + key.read_bytes())
        key.unlink()
    emulator = start(tls=tls, cert=cert, cert_key=None if in_one_file else key)
    assert call_securely(trust, emulator.url(PLANTS)).status == 200
    with open_socket(emulator.ws_url(PLANTS), ssl=trust) as ear:
        record = call_securely(trust, emulator.url(PLANTS), "POST", "heard").json
        assert next_of(ear)["record"] == record
    assert emulator.facts["ca"] is None
    assert pem_files(Path(str(emulator.facts["data"])).parent) == []


@pytest.mark.parametrize(
    ("cert", "key", "named"),
    [
        ("nothing.pem", "localhost-key.pem", "cert: .*nothing.pem: No such file"),
        ("localhost.pem", "nothing.pem", "cert_key: .*nothing.pem: No such file"),
        ("localhost.pem", ".", "cert_key: .*: Is a directory"),
        ("localhost.pem", None, "cert: .*localhost.pem and .*localhost.pem are no certificate with its key"),
        ("localhost.pem", "other-key.pem", "cert: .*other-key.pem are no certificate with its key.*MISMATCH"),
        ("localhost-key.pem", "localhost.pem", "cert: .* are no certificate with its key"),
        ("empty.pem", "localhost-key.pem", "cert: .* are no certificate with its key"),
        ("binary.pem", "localhost-key.pem", "cert: .*binary.pem: line 1 column 2: not UTF-8"),
        ("localhost.pem", "locked-key.pem", "cert: .*the key has a password"),
        (None, "localhost-key.pem", "cert_key: there is no --cert to go with it"),
    ],
)
def test_a_wrong_file_is_named_with_its_option(
    tmp_path: Path, own: tuple[ssl.SSLContext, Path, Path], cert: str | None, key: str | None, named: str
) -> None:
    (tmp_path / "other-key.pem").write_bytes(trustme.CA().private_key_pem.bytes())
    (tmp_path / "empty.pem").touch()
    (tmp_path / "binary.pem").write_bytes(b"\x30\x82\xff")
    locked = load_pem_private_key(own[2].read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked-key.pem").write_bytes(locked)
    files = {name: tmp_path / file for name, file in (("cert", cert), ("cert_key", key)) if file}
    with pytest.raises(OptionError, match=f"^{named}"):
        RestedEmulator(**files).start()


# Session tickets


@pytest.mark.parametrize("is_own", [False, True])
def test_no_session_ticket_is_sent(start: Start, own: tuple[ssl.SSLContext, Path, Path], is_own: bool) -> None:
    trust, cert, key = own
    emulator = start(cert=cert, cert_key=key) if is_own else start()
    trust = trust if is_own else trusting(emulator)
    heard: list[Any] = []
    trust._msg_callback = lambda *said: heard.append(said[4])  # type: ignore[attr-defined]  # the kind of message
    with connect(emulator, "localhost", trust) as connection:
        assert connection.version() == "TLSv1.3"
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    kinds = [kind.name for kind in heard]
    assert ("FINISHED" in kinds, "NEWSESSION_TICKET" in kinds) == (True, False)


@pytest.mark.parametrize("package", ["trustme", "cryptography"])
def test_without_a_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=r"^tls: .*: pip install 'trustme>=1\.2,<2' 'cryptography>=42'$"):
        RestedEmulator(tls=True).start()
    assert 'tls = ["trustme>=1.2,<2", "cryptography>=42"]' in (ROOT / "pyproject.toml").read_text()
    with RestedEmulator() as emulator:
        assert str(emulator.facts["url"]).startswith("http:")


# What it says of itself


def test_the_banner_says_where_the_ca_is_and_how_to_trust_it(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    emulator = start(data=folder / "garden.json")
    facts, lines = emulator.facts, banner_of(emulator).splitlines()
    assert f"  CA            {facts['ca']}" in lines
    [how] = [line for line in lines if "trust it" in line]
    for way in ("curl --cacert", "NODE_EXTRA_CA_CERTS", "browser"):
        assert way in how
    [tried] = [shlex.split(line) for line in lines if line.startswith("    curl ")]
    assert tried[:3] == ["curl", "--cacert", facts["ca"]]
    assert tried[3].startswith("https://localhost:")


def test_the_ready_line_has_https_wss_and_the_ca(tmp_path: Path) -> None:
    script = (
        "import os, ssl, urllib.request; trust = ssl.create_default_context(cafile=os.environ['RESTED_CA']);"
        f"url = os.environ['RESTED_URL'] + '/{PLANTS}?key={KEY}';"
        "print(len(urllib.request.urlopen(url, context=trust).read()), os.environ['RESTED_CA'])"
    )
    program = [sys.executable, str(ROOT / "rested_emulator.py"), str(GARDEN), "--memory", "--port", "0"]
    command = [*program, "--tls", "--json", "--", sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    size, ca = done.stdout.split()
    facts = json.loads(done.stderr.splitlines()[0])
    here = f"localhost:{facts['port']}"
    assert facts["url"] == f"https://{here}/api/1/ce"
    assert facts["wsUrl"] == f"wss://{here}/api/1/ce"
    assert facts["controlUrl"] == f"https://{here}/__emulator__"
    assert (facts["ca"], facts["host"]) == (ca, here)
    assert int(size) > 100
    assert "Traceback" not in done.stderr


# The cookie


@pytest.mark.parametrize("plain_cookie", [False, True])
def test_over_tls_the_services_cookie_stands_alone(start: Start, plain_cookie: bool) -> None:
    emulator = start(plain_cookie=plain_cookie)
    trust, url = trusting(emulator), emulator.url(GARDENERS)
    connection = HTTPSConnection("localhost", int(str(emulator.facts["port"])), timeout=10, context=trust)
    try:
        target = url[url.index("/api/") :] + "&login=true"
        connection.request("POST", target, json.dumps(LOGIN), {"Content-Type": "application/json"})
        [cookie] = connection.getresponse().msg.get_all("Set-Cookie") or []
    finally:
        connection.close()
    pair, *attributes = cookie.split("; ")
    name, _, token = pair.partition("=")
    assert name == COOKIE
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=None", "Secure"]
    diary = emulator.url(DIARY)
    for headers, status in (
        ({"Cookie": pair}, 200),
        (bearer(token), 200),
        ({"Cookie": f"{PLAIN_COOKIE}={token}"}, 401),
    ):
        assert call_securely(trust, diary, headers=headers).status == status
    with open_socket(emulator.ws_url(DIARY), ssl=trust, additional_headers={"Cookie": pair}) as ear:
        record = call_securely(trust, diary, "POST", "heard", headers={"Cookie": pair}).json
        assert next_of(ear)["record"] == record


# Clients that speak something else


@pytest.mark.warns("SSL Error", "no TLS was spoken to a port of TLS alone; use https:// and wss://")
def test_whoever_speaks_no_tls_to_the_tls_port_disturbs_nobody(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS), ssl=trusting(emulator)) as ear, wire(emulator) as silent:
        for said in (head("GET", "/"), b"", b"\x16\x03\x01", b"\x00" * 1000, b"\xff"):
            with wire(emulator) as connection:
                connection.sendall(said)
                with suppress(OSError):  # it may be cut off by then
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(100):
                        pass
            with wire(emulator) as connection:  # one that does not wait until it is accepted
                connection.sendall(said)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        record = call_securely(trusting(emulator), emulator.url(PLANTS), "POST", "still here").json
        assert next_of(ear)["record"] == record
        silent.sendall(b"\x16")


def test_a_socket_over_tls_can_be_silenced(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS), ssl=trusting(emulator)) as ear:
        assert emulator.add_fault("silence")["sockets"] == 1
        emulator.change_endpoint(PLANTS)
        with pytest.raises(TimeoutError):
            ear.recv(timeout=0.2)
        ear.close_socket()


@pytest.mark.warns("TLS was spoken to a port of plain http; use http:// and ws://")
def test_whoever_speaks_tls_to_the_http_port_is_cut_off_soon() -> None:
    with RestedEmulator(data=GARDEN) as emulator:
        begun = time.monotonic()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(emulator, "localhost", ssl.create_default_context())
        assert time.monotonic() - begun < 5
        assert call(emulator.url(PLANTS)).status == 200


# A browser


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Callable[[RestedEmulator | None], BrowserContext]]:
    """Open a Chromium that trusts the CA of an emulator, as somebody does who imports it; or one that does not."""
    chromium, certutil = need("chromium", "certutil")
    home = tmp_path / "home"
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)

    def run_certutil(*arguments: str) -> None:
        subprocess.run([certutil, "-d", f"sql:{database}", *arguments], check=True, timeout=60)

    run_certutil("-N", "--empty-password")
    with sync_playwright() as playwright:

        def open_context(trusted: RestedEmulator | None) -> BrowserContext:
            if trusted:
                run_certutil("-A", "-n", "rested-emulator", "-t", "C,,", "-i", str(trusted.facts["ca"]))
            environment: dict[str, str | float | bool] = {**os.environ, "HOME": str(home)}
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS, env=environment)
            context = browser.new_context()
            context.set_default_timeout(TIMEOUT)
            return context

        yield open_context


@pytest.mark.browser
@pytest.mark.warns("SSL Error")
def test_a_browser_that_does_not_trust_the_ca_shows_no_page(
    start: Start, context: Callable[[RestedEmulator | None], BrowserContext]
) -> None:
    emulator = start(static=PAGES)
    with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
        context(None).new_page().goto(f"https://{emulator.facts['host']}/app.html")


@pytest.mark.browser
@pytest.mark.warns("SSL Error")
def test_a_browser_that_trusts_the_ca_believes_it_of_no_other_host(
    start: Start, context: Callable[[RestedEmulator | None], BrowserContext], tmp_path: Path
) -> None:
    emulator = start(static=PAGES)
    page = context(emulator).new_page()
    for name in ("localhost", "127.0.0.1"):
        page.goto(f"https://{name}:{emulator.facts['port']}/app.html")
    files = [Path(f"{emulator.facts['data']}.{name}.pem") for name in ("ca", "ca-key")]
    thief = trustme.CA.from_pem(*(file.read_bytes() for file in files)).issue_cert(EVIL)
    stolen = tmp_path / "stolen.pem"
    stolen.write_bytes(thief.private_key_and_cert_chain_pem.bytes())
    other = start(memory=True, cert=stolen, static=PAGES, allow_host=[EVIL])
    with pytest.raises(Error, match="ERR_CERT_"):
        page.goto(f"https://{EVIL}:{other.facts['port']}/app.html")


@pytest.mark.browser
def test_a_page_over_https_logs_in_and_its_cookie_goes_along_with_fetch_and_socket(
    start: Start, context: Callable[[RestedEmulator | None], BrowserContext]
) -> None:
    emulator = start(static=PAGES, plain_cookie=True)
    opened = context(emulator)
    page = opened.new_page()
    page.goto(f"https://{emulator.facts['host']}/app.html")
    assert page.evaluate("isSecureContext") is True
    app = App(page)
    app.log_in(emulator)
    [cookie] = opened.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"]) == (COOKIE, True, True)
    assert (cookie["path"], cookie["sameSite"]) == ("/", "None")
    ear = app.listen(emulator.ws_url(DIARY))
    record = app.fetch(emulator.url(DIARY), "POST", "over https")["body"]
    assert ear.heard(1) == [{"type": "POST", "record": record}]
    assert emulator.advance(3600)["closed"] == 1
    assert ear.closed() == (1000, texts.TOKEN_EXPIRED, True)
