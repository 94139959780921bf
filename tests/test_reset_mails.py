"""Reset mails over the wire: where templates come from, where a mail lands, what its token does (contract 6.9)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rested_emulator import OptionError, RestedEmulator
from tests import texts
from tests.conftest import ADA, BEN, CHORES, DIARY, GARDEN, GARDENERS, KEY, MASTER_KEY, PLANTS
from tests.wire import (
    CORS,
    EXPIRED,
    FOREIGN,
    JSON,
    OTHER_PAGE,
    PAGE,
    Reply,
    assert_open,
    assert_refusal,
    at,
    base,
    bearer,
    call,
    closing,
    cors_of,
    next_of,
    open_socket,
    seen,
    start_program,
)

TEMPLATE = (
    "<!doctype html><p>Liebe {{email}}, grüße 🥕</p>\n"
    "<a href='https://garden.example/?token={{verificationtoken}}&for={{email}}'>{{verificationtoken}}</a> {{other}}\n"
)
EMAIL = "ada@garden.example"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template as a file."""
    path = tmp_path / "forgotten.html"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


@pytest.fixture
def emulator(template: Path) -> Iterator[RestedEmulator]:
    """The garden with a template of the command line, over a real port."""
    with RestedEmulator(data=GARDEN, reset_template=[f"forgotten={template}"]) as running:
        yield running


def ask(
    emulator: RestedEmulator, email: str = EMAIL, name: str = "forgotten", headers: dict[str, str] | None = None
) -> Reply:
    """Ask for a reset mail."""
    data = {"email": email, "templateName": name}
    return call(emulator.url(GARDENERS), "POST", data, headers=headers, passwordreset="true")


def mails(emulator: RestedEmulator) -> list[dict[str, Any]]:
    """The outbox, which is the same over control and in Python."""
    reply = call(f"{emulator.facts['controlUrl']}/mails")
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)
    assert reply.json == emulator.mails()
    found: list[dict[str, Any]] = reply.json
    return found


def token_of(emulator: RestedEmulator, email: str = EMAIL) -> str:
    """Ask for a mail; the verification token in it."""
    assert ask(emulator, email).status == 200
    return str(mails(emulator)[-1]["verificationToken"])


def set_password(
    emulator: RestedEmulator,
    token: str,
    password: str = "aprikose",
    endpoint: str = GARDENERS,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> Reply:
    """Send a new password."""
    data = {"verificationToken": token, "password": password, "passwordConfirmation": password}
    parameters = {"passwordreset": "true"} | parameters
    return call(emulator.url(endpoint), "PUT", data, body=None, headers=headers, **parameters)


def log_in(emulator: RestedEmulator, password: str, name: str = "ada") -> Reply:
    data = {"username": name, "password": password}
    return call(emulator.url(GARDENERS), "POST", data, login="true", noATCookie="true")


def bearer_of(reply: Reply) -> str:
    """The access token that a login has brought."""
    assert reply.status == 200
    return reply.headers["authorization"].removeprefix("Bearer ")


def filled(token: str, email: str = EMAIL) -> str:
    return TEMPLATE.replace("{{verificationtoken}}", token).replace("{{email}}", email)


# The whole way


def test_who_forgot_the_password_gets_a_mail_and_with_it_a_new_one(emulator: RestedEmulator) -> None:
    reply = ask(emulator)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"{}", JSON)
    assert "set-cookie" not in reply.headers
    [mail] = mails(emulator)
    token = mail["verificationToken"]
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    assert list(mail) == [
        "email",
        "templateName",
        "html",
        "verificationToken",
        "endpoint",
        "sentAt",
        "expiresAt",
        "used",
    ]
    assert (mail["email"], mail["templateName"], mail["endpoint"]) == (EMAIL, "forgotten", GARDENERS)
    assert (mail["html"], mail["used"]) == (filled(token), False)
    lifetime = datetime.fromisoformat(mail["expiresAt"]) - datetime.fromisoformat(mail["sentAt"])
    assert lifetime == timedelta(hours=1)

    assert log_in(emulator, "apricot").status == 200, "until then the old password works"
    reply = set_password(emulator, token)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"{}", JSON)
    assert not {"set-cookie", "authorization"} & set(reply.headers)
    assert_refusal(log_in(emulator, "apricot"), 401, texts.WRONG_CREDENTIALS)
    assert log_in(emulator, "aprikose").json["uniqueId"] == ADA
    assert [mail["used"] for mail in mails(emulator)] == [True]


def test_the_mail_that_a_page_reads_in_the_outbox_leads_to_a_login(emulator: RestedEmulator) -> None:
    """As a test of a frontend would do it: the link is taken out of the mail."""
    page = {"Origin": PAGE}
    ask(emulator, headers=page)
    reply = call(f"{emulator.facts['controlUrl']}/mails", headers=page)
    assert reply.headers["access-control-allow-origin"] == PAGE
    link = re.search(r"token=([0-9a-f]+)&for=(\S+?)'", reply.json[-1]["html"])
    assert link
    assert link[2] == EMAIL
    reply = set_password(emulator, link[1], "neu", headers=page)
    assert (reply.status, cors_of(reply)) == (200, CORS)
    assert log_in(emulator, "neu").status == 200


def test_a_new_password_changes_nothing_but_the_password(emulator: RestedEmulator) -> None:
    users, others = emulator.records(GARDENERS), [emulator.records(name) for name in (PLANTS, DIARY, CHORES)]
    emulator.advance(60)
    set_password(emulator, token_of(emulator), "пароль 🥕")
    [ada, ben] = emulator.records(GARDENERS)
    assert isinstance(users[0], dict)
    assert isinstance(ada, dict)
    assert {**ada, "updatedAt": users[0]["updatedAt"]} == users[0]
    assert str(ada["updatedAt"]) > str(users[0]["updatedAt"])
    assert ben == users[1]
    assert [emulator.records(name) for name in (PLANTS, DIARY, CHORES)] == others
    assert log_in(emulator, "пароль 🥕").json["data"]["beds"] == [1, 3]


# Where templates come from


def test_templates_of_the_command_line_stand_beside_those_of_the_data_and_come_first(
    tmp_path: Path, template: Path
) -> None:
    seed = json.loads(GARDEN.read_text())
    seed["_projects"][KEY]["resetTemplates"] = {"of-data": "<p>data {{verificationtoken}}", "forgotten": "<p>old"}
    data, odd = tmp_path / "data.json", tmp_path / "b=c.html"
    data.write_text(json.dumps(seed))
    odd.write_text("<p>odd")
    with RestedEmulator(data=data, reset_template=[f"forgotten={template}", f"a={odd}"]) as emulator:
        status: Any = emulator.status()
        assert status["projects"][0]["resetTemplates"] == ["of-data", "forgotten", "a"]
        for name in ("of-data", "forgotten"):
            assert ask(emulator, name=name).status == 200
        first, second = mails(emulator)
        assert first["html"] == f"<p>data {first['verificationToken']}"
        assert second["html"] == filled(second["verificationToken"])
        assert set_password(emulator, first["verificationToken"]).status == 200


def test_a_byte_order_mark_of_a_template_is_no_part_of_the_mail(template: Path) -> None:
    template.write_bytes(b"\xef\xbb\xbf" + template.read_bytes())
    with RestedEmulator(data=GARDEN, reset_template=[f"forgotten={template}"]) as emulator:
        assert ask(emulator).status == 200
        [mail] = mails(emulator)
        assert mail["html"] == filled(mail["verificationToken"])


def change_project(emulator: RestedEmulator, **arguments: Any) -> Reply:
    return call(f"{emulator.facts['controlUrl']}/change-project", "POST", arguments)


def test_templates_are_changed_while_it_runs(emulator: RestedEmulator) -> None:
    with open_socket(emulator.ws_url(PLANTS)) as ear:
        reply = change_project(emulator, resetTemplates={"new": "<p>{{verificationtoken}}", "": "none"})
        assert (reply.status, reply.json) == (200, {"closed": 1})
        assert closing(ear) == (1000, texts.OPTIONS_CHANGED)
    assert_refusal(ask(emulator), 400, texts.NO_TEMPLATE)
    assert ask(emulator, name="new").status == 200
    [mail] = mails(emulator)
    assert mail["html"] == f"<p>{mail['verificationToken']}"
    emulator.change_project(reset_templates={})
    assert_refusal(ask(emulator, name="new"), 400, texts.NO_TEMPLATE)
    assert set_password(emulator, mail["verificationToken"]).status == 200, "a mail that is sent is sent"


@pytest.mark.parametrize("templates", [[], "text", {"a": 1}, {"a": None}, {"a": ["<p>"]}, 5])
def test_what_is_no_template_changes_nothing(emulator: RestedEmulator, templates: Any) -> None:
    reply = change_project(emulator, resetTemplates=templates)
    assert_refusal(reply, 400, texts.WRONG_PARAMETER)
    assert "resetTemplates" in reply.json["hint"]
    assert token_of(emulator)


def test_a_missing_template_is_named_with_those_there_are_and_the_way_to_add_it(emulator: RestedEmulator) -> None:
    reply = ask(emulator, name="Forgotten")
    assert_refusal(reply, 400, texts.NO_TEMPLATE)
    for part in ("'Forgotten'", "forgotten", "--reset-template", "change-project"):
        assert part in reply.json["hint"]
    assert mails(emulator) == []


def test_placeholders_are_filled_in_wherever_they_stand_and_once(emulator: RestedEmulator) -> None:
    emulator.change_project(reset_templates={"odd": "{{email}}{{ email }}{email}{{{{email}}}}{{verificationToken}}"})
    email = "{{verificationtoken}}@x"
    call(emulator.url(GARDENERS), "POST", {"email": email, "password": "x"})
    assert ask(emulator, email, "odd").status == 200
    assert mails(emulator)[-1]["html"] == f"{email}{{{{ email }}}}{{email}}{{{{{email}}}}}{{{{verificationToken}}}}"


def test_an_email_is_text_and_no_html(emulator: RestedEmulator) -> None:
    email = "<img src=x onerror='alert(1)'>&\"@x"
    call(emulator.url(GARDENERS), "POST", {"email": email, "password": "x"})
    token_of(emulator, email)
    mail = mails(emulator)[-1]
    assert mail["email"] == email
    assert not set(mail["html"].partition("Liebe ")[2].partition(", grüße")[0]) & set("<>\"'")


# Who may ask


@pytest.mark.parametrize("email", ["ben@garden.example", "ada", "ADA@garden.example", "", " ada@garden.example"])
def test_an_email_nobody_has_gets_no_mail(emulator: RestedEmulator, email: str) -> None:
    assert_refusal(ask(emulator, email), 400, texts.NO_USER)
    assert mails(emulator) == []


@pytest.mark.parametrize("value", ["false", "True", "1", ""])
def test_only_true_means_a_reset(emulator: RestedEmulator, value: str) -> None:
    data = {"email": EMAIL, "templateName": "forgotten"}
    assert_refusal(call(emulator.url(GARDENERS), "POST", data, passwordreset=value), 400, texts.MEMBER_MISSING)
    token = token_of(emulator)
    assert_refusal(set_password(emulator, token, passwordreset=value), 401, texts.NO_TOKEN)
    assert log_in(emulator, "apricot").status == 200


@pytest.mark.warns("passwordreset=true counts for nothing here")
def test_a_reset_at_an_ordinary_endpoint_is_a_record_like_any_other(emulator: RestedEmulator) -> None:
    data = {"email": EMAIL, "templateName": "forgotten"}
    created = call(emulator.url(PLANTS), "POST", data, passwordreset="true").json
    assert created["data"] == data
    updated = set_password(emulator, "x", endpoint=PLANTS, uniqueId=created["uniqueId"])
    assert updated.json["data"]["verificationToken"] == "x"
    assert mails(emulator) == []


def test_neither_key_nor_origin_are_forgiven(emulator: RestedEmulator) -> None:
    token = token_of(emulator)
    emulator.change_project(allowed_origins=[PAGE])
    before = seen(emulator), mails(emulator)
    data = {"verificationToken": token, "password": "x", "passwordConfirmation": "x"}
    for method, body in (("POST", {"email": EMAIL, "templateName": "forgotten"}), ("PUT", data)):
        for origin in (FOREIGN, OTHER_PAGE, "null"):
            for master in ("", f"&masterKey={MASTER_KEY}"):
                target = base(emulator) + at(GARDENERS, f"passwordreset=true{master}")
                reply = call(target, method, body, headers={"Origin": origin})
                assert_refusal(reply, 403, texts.ORIGIN_REFUSED)
                assert cors_of(reply) == {}
        for key, status in ((None, 403), ("wrong", 400)):
            target = base(emulator) + at(GARDENERS, "passwordreset=true", key=key)
            assert call(target, method, body).status == status
    assert (seen(emulator), mails(emulator)) == before


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_browser_that_asks_first_is_let_in(emulator: RestedEmulator, method: str) -> None:
    emulator.change_project(allowed_origins=[PAGE])
    asking = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
    reply = call(emulator.url(GARDENERS), "OPTIONS", headers=asking | {"Origin": PAGE}, passwordreset="true")
    assert (reply.status, reply.body) == (204, b"")
    assert method in reply.headers["access-control-allow-methods"].split(", ")
    assert reply.headers["access-control-allow-headers"] == "content-type"
    assert CORS.items() <= reply.headers.items()
    for master in ("", f"&masterKey={MASTER_KEY}"):
        for origin in (OTHER_PAGE, FOREIGN):
            url = emulator.url(GARDENERS) + "&passwordreset=true" + master
            refused = call(url, "OPTIONS", headers=asking | {"Origin": origin})
            assert (refused.status, cors_of(refused)) == (403, {})


# The token


@pytest.mark.parametrize(("seconds", "status"), [(3599, 200), (3601, 400)])
def test_a_token_is_good_for_an_hour(emulator: RestedEmulator, seconds: int, status: int) -> None:
    token = token_of(emulator)
    emulator.advance(seconds)
    reply = set_password(emulator, token)
    assert reply.status == status
    if status == 400:
        assert_refusal(reply, 400, texts.WRONG_VERIFICATION)
        assert "expired at 20" in reply.json["hint"]
        assert log_in(emulator, "apricot").status == 200
        assert set_password(emulator, token_of(emulator)).status == 200


def test_a_token_works_once(emulator: RestedEmulator) -> None:
    token = token_of(emulator)
    assert set_password(emulator, token, "first").status == 200
    reply = set_password(emulator, token, "second")
    assert_refusal(reply, 400, texts.WRONG_VERIFICATION)
    assert "used already" in reply.json["hint"]
    assert log_in(emulator, "first").status == 200


def test_a_refused_password_does_not_use_the_token_up(emulator: RestedEmulator) -> None:
    token = token_of(emulator)
    data = {"verificationToken": token, "password": "one", "passwordConfirmation": "two"}
    reply = call(emulator.url(GARDENERS), "PUT", data, passwordreset="true")
    assert_refusal(reply, 400, texts.PASSWORDS_DIFFER)
    assert_refusal(set_password(emulator, token, ""), 400, texts.MEMBER_MISSING)
    assert [mail["used"] for mail in mails(emulator)] == [False]
    assert set_password(emulator, token).status == 200


def test_every_mail_has_its_own_token_and_each_works(emulator: RestedEmulator) -> None:
    tokens = [token_of(emulator) for _ in range(3)]
    assert len(set(tokens)) == 3
    assert [mail["verificationToken"] for mail in mails(emulator)] == tokens
    for token in reversed(tokens):
        assert set_password(emulator, token, f"password {token}").status == 200
        assert log_in(emulator, f"password {token}").status == 200


@pytest.mark.parametrize("change", [str.upper, lambda token: token[:-1], lambda token: token + "0", lambda _: "*"])
def test_a_token_that_is_another_is_none(emulator: RestedEmulator, change: Callable[[str], str]) -> None:
    token = token_of(emulator)
    while change(token) == token:  # digits alone have no upper case
        token = token_of(emulator)
    reply = set_password(emulator, change(token))
    assert_refusal(reply, 400, texts.WRONG_VERIFICATION)
    assert token not in reply.body.decode()
    assert log_in(emulator, "apricot").status == 200


def test_neither_an_access_token_nor_the_master_key_stands_for_a_verification_token(emulator: RestedEmulator) -> None:
    ada = emulator.sign_in(GARDENERS, "ada")
    for token in (ada, MASTER_KEY, KEY, ADA):
        reply = set_password(emulator, token, headers=bearer(ada), masterKey=MASTER_KEY, uniqueId=ADA)
        assert_refusal(reply, 400, texts.WRONG_VERIFICATION)
    token = token_of(emulator)
    assert_refusal(call(emulator.url(DIARY), headers=bearer(token)), 401, texts.NO_TOKEN)


def test_a_token_is_for_its_user_whatever_else_the_request_says(emulator: RestedEmulator) -> None:
    ben = emulator.sign_in(GARDENERS, "ben")
    reply = set_password(emulator, token_of(emulator), headers=bearer(ben), uniqueId=BEN, strategy="replace")
    assert reply.status == 200
    assert log_in(emulator, "bramble", "ben").status == 200
    assert log_in(emulator, "aprikose").status == 200
    assert call(emulator.url(DIARY), headers=bearer(ben)).status == 200


def test_the_token_of_another_endpoint_is_none(tmp_path: Path) -> None:
    seed = json.loads(GARDEN.read_text())
    project, guests = seed["_projects"][KEY], "garden/guests"
    project["resetTemplates"] = {"forgotten": TEMPLATE}
    seed["_endpoints"][guests] = {"project": KEY, "authentication": True}
    seed[guests] = {ADA: {"data": {"username": "ada", "email": EMAIL, "password": "guest"}}}
    (tmp_path / "data.json").write_text(json.dumps(seed))
    with RestedEmulator(data=tmp_path / "data.json") as emulator:
        token = token_of(emulator)
        assert_refusal(set_password(emulator, token, endpoint=guests), 400, texts.WRONG_VERIFICATION)
        assert set_password(emulator, token).status == 200
        login = {"username": "ada", "password": "guest"}
        assert call(emulator.url(guests), "POST", login, login="true").status == 200


# What becomes of those who are logged in


def test_a_new_password_ends_what_the_user_has_open_and_nothing_else(emulator: RestedEmulator) -> None:
    ada = [bearer_of(log_in(emulator, "apricot")) for _ in range(2)]
    ben = emulator.sign_in(GARDENERS, "ben")

    def url(endpoint: str, token: str) -> str:
        return f"{emulator.ws_url(endpoint)}&accessToken={token}"

    with (
        open_socket(url(DIARY, ada[0])) as diary,
        open_socket(url(CHORES, ada[1])) as chores,
        open_socket(url(GARDENERS, ada[0])) as herself,
        open_socket(url(DIARY, ben)) as of_ben,
        open_socket(url(GARDENERS, ben)) as himself,
        open_socket(emulator.ws_url(PLANTS)) as of_all,
    ):
        token = token_of(emulator)
        assert call(emulator.url(DIARY), headers=bearer(ada[0])).status == 200, "a mail alone ends nothing"
        set_password(emulator, token)
        message = next_of(herself)
        assert (message["type"], message["record"]["uniqueId"]) == ("PUT", ADA)
        assert "password" not in message["record"]["data"]
        assert [closing(ear) for ear in (diary, chores, herself)] == [EXPIRED] * 3
        assert_open(emulator, of_all)
        record = call(emulator.url(DIARY), "POST", "still here", headers=bearer(ben)).json
        assert next_of(of_ben)["record"] == record
        record = call(emulator.url(GARDENERS), "PUT", {"beds": []}, headers=bearer(ben), uniqueId=BEN, strategy="merge")
        assert next_of(himself)["record"] == record.json, "the first that Ben hears of"
    for token in ada:
        assert_refusal(call(emulator.url(DIARY), headers=bearer(token)), 401, texts.NO_TOKEN)
    assert call(emulator.url(DIARY), headers=bearer(bearer_of(log_in(emulator, "aprikose")))).status == 200


def test_a_refused_reset_ends_nothing(emulator: RestedEmulator) -> None:
    ada = emulator.sign_in(GARDENERS, "ada")
    token = token_of(emulator)
    emulator.advance(3599)
    with open_socket(f"{emulator.ws_url(DIARY)}&accessToken={ada}") as ear:
        assert set_password(emulator, "x" + token).status == 400
        assert set_password(emulator, token, "").status == 400
        record = call(emulator.url(DIARY), "POST", "still here", headers=bearer(ada)).json
        assert next_of(ear)["record"] == record


# The outbox


def test_the_outbox_is_read_alone(emulator: RestedEmulator) -> None:
    url = f"{emulator.facts['controlUrl']}/mails"
    assert call(url).body == b"[]"
    token_of(emulator)
    for method in ("POST", "PUT", "DELETE"):
        assert call(url, method, {}).status == 405
    for headers in ({"Origin": FOREIGN}, {"Host": "evil.example"}, {"Origin": "null"}):
        reply = call(url, headers=headers)
        assert (reply.status, cors_of(reply)) == (403, {})
        assert EMAIL.encode() not in reply.body
    assert len(mails(emulator)) == 1


def test_what_is_in_the_outbox_is_a_copy(emulator: RestedEmulator) -> None:
    token_of(emulator)
    before = mails(emulator)
    mine: Any = emulator.mails()
    mine[0]["verificationToken"] = "mine"
    mine.clear()
    assert mails(emulator) == before


def test_the_outbox_is_no_endpoint(emulator: RestedEmulator) -> None:
    token = token_of(emulator)
    for name in ("_mails", "mails", "_projects"):
        reply = call(base(emulator) + at(name, f"masterKey={MASTER_KEY}"))
        assert reply.status == 400
        assert token not in reply.body.decode()
    ada = bearer(emulator.sign_in(GARDENERS, "ada"))
    assert token not in call(emulator.url(GARDENERS), headers=ada).body.decode()


def test_a_reset_of_the_emulator_empties_the_outbox(emulator: RestedEmulator) -> None:
    token = token_of(emulator)
    set_password(emulator, token)
    emulator.reset()
    assert mails(emulator) == []
    assert log_in(emulator, "apricot").status == 200
    assert_refusal(set_password(emulator, token), 400, texts.WRONG_VERIFICATION)
    assert set_password(emulator, token_of(emulator)).status == 200, "the templates of the options are there again"


def test_the_outbox_outlives_a_restart(tmp_path: Path, template: Path) -> None:
    options: dict[str, Any] = {"data": tmp_path / "data.json", "memory": False, "seed": GARDEN}
    with RestedEmulator(**options, reset_template=[f"forgotten={template}"]) as emulator:
        used, fresh, stale = (token_of(emulator) for _ in range(3))
        assert set_password(emulator, used, "first").status == 200
        before = mails(emulator)
    with RestedEmulator(**options) as emulator:
        assert mails(emulator) == before
        assert_refusal(set_password(emulator, used), 400, texts.WRONG_VERIFICATION)
        assert set_password(emulator, fresh, "second").status == 200
        assert ask(emulator).status == 200, "the template was written into the data file"
    with RestedEmulator(**options) as emulator:
        assert [mail["used"] for mail in mails(emulator)] == [True, True, False, False]
        assert log_in(emulator, "second").status == 200
        emulator.advance(3601)
        assert_refusal(set_password(emulator, stale), 400, texts.WRONG_VERIFICATION)


# The option, and the program


def test_the_program_reads_templates_from_where_it_starts(tmp_path: Path, template: Path) -> None:
    assert template.parent == tmp_path
    variable = {"RESTED_EMULATOR_RESET_TEMPLATE": "forgotten=forgotten.html, other=forgotten.html"}
    with start_program(str(GARDEN), "--memory", cwd=tmp_path, **variable) as process:
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        wanted = {"email": EMAIL, "templateName": "forgotten"}
        assert call(f"{facts['url']}/{GARDENERS}?key={KEY}", "POST", wanted, passwordreset="true").status == 200
        [mail] = call(f"{facts['controlUrl']}/mails").json
        assert mail["html"] == filled(mail["verificationToken"])
        process.terminate()
        _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "ada@garden.example" in log, "the log says that there is a mail"
    assert mail["verificationToken"] not in log


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("forgotten=missing.html", "missing.html: No such file or directory"),
        ("forgotten=latin1.html", "latin1.html: line 1 column 6: not UTF-8"),
        ("forgotten=utf16.html", "utf16.html: line 1 column 1: UTF-16, not UTF-8; save it as UTF-8"),
        ("forgotten=.", ".: Is a directory"),
        ("forgotten=forgotten.html/x", "forgotten.html/x: Not a directory"),
        ("forgotten.html", "is not NAME=FILE"),
        ("=forgotten.html", "is not NAME=FILE"),
        ("forgotten=", "is not NAME=FILE"),
        ("=", "is not NAME=FILE"),
    ],
)
def test_a_template_that_cannot_be_had_is_a_wrong_option(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.chdir(template.parent)
    (tmp_path / "latin1.html").write_bytes("<p>grüße".encode("latin1"))
    (tmp_path / "utf16.html").write_bytes("<p>grüße".encode("utf-16"))
    with pytest.raises(OptionError, match=re.escape(said)):
        RestedEmulator(reset_template=given).start()
