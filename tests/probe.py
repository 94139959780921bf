"""Is it still like the service? Numbered questions for the service and an emulator, and what they answer differently.

    python -m tests.probe https://app.rested.dev --key K --open NAME [--auth NAME --secure NAME]

Each question settles a clause of "True to the service". It writes only into the endpoints that are named, marks what it
stores, deletes it again, and says what it could not delete. Data of others are neither shown nor touched: there is no
PUT or DELETE of a valid body without an id of its own. It prints Markdown; the exit code is 0 where nothing differs, 1
where something does, 2 for wrong usage or no answer.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection

from rested_emulator import RestedEmulator, RestedError
from tests.wire import Reply, base, closing, open_socket

TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?")
PAGE = "http://localhost:3000"
UNKNOWN = "0" * 32
PATIENCE = 10.0  # seconds until a message that has not come counts as none
LONGEST = 400  # characters of an answer that are shown; all of them are compared
BOUNDARY = "probe-boundary"
CORS = ("access-control-", "vary", "allow")


class NoAnswer(Exception):
    """Why a side cannot be asked at all."""


class Login(NamedTuple):
    """A user the probe has registered, and their access token."""

    name: str
    unique_id: str
    token: str


class Side:
    """One of the two that are asked, and what the probe has left there so far."""

    def __init__(self, url: str, options: argparse.Namespace) -> None:
        self.url, self.key, self.pause = url.rstrip("/"), options.key, options.pause
        self.open, self.auth, self.secure = options.open, options.auth, options.secure
        self.mark = f"probe-{secrets.token_hex(8)}"
        self.password = secrets.token_hex(8)
        self.ids: list[str] = []  # of the question at hand, in the order of creation
        self.stored: list[tuple[str, str]] = []  # endpoint and id of what is there now
        self.users: list[Login] = []
        self.tokens: list[str] = []

    # Asking

    def ask(
        self,
        method: str = "GET",
        data: Any = ...,
        *,
        at: str | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        token: str | None = None,
        headers: dict[str, str] | None = None,
        path: str | None = None,
        **parameters: Any,
    ) -> Reply:
        """Send one request, by default to the open endpoint and with the key; a parameter that is None is left out."""
        time.sleep(self.pause)
        endpoint, sent = at or self.open, dict(headers or {})
        if data is not ...:
            body = json.dumps(data, ensure_ascii=False).encode()
        if body is not None and content_type:
            sent.setdefault("Content-Type", content_type)
        if token:
            sent["Authorization"] = f"Bearer {token}"
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, path or self.target(endpoint, parameters), body, sent)
            response = connection.getresponse()
            named = response.getheaders()
            reply = Reply(response.status, {name.lower(): value for name, value in named}, response.read())
        finally:
            connection.close()
        self.take_note(method, endpoint, reply)
        return reply

    def target(self, endpoint: str, parameters: dict[str, Any]) -> str:
        """The path and query of a request; a list is a parameter that is repeated."""
        given = {"key": self.key} | parameters
        query = urlencode({name: value for name, value in given.items() if value is not None}, doseq=True, safe=",")
        return f"/api/1/ce/{quote(endpoint)}?{query}"

    def take_note(self, method: str, endpoint: str, reply: Reply) -> None:
        """Remember what is to be deleted at the end, and whatever differs from run to run."""
        content = parsed(reply.body)
        for record in content if isinstance(content, list) else [content]:
            unique_id = record.get("uniqueId") if isinstance(record, dict) else None
            if method != "POST" or reply.status >= 300 or not isinstance(unique_id, str):
                continue
            if (endpoint, unique_id) not in self.stored:
                self.ids.append(unique_id)
                self.stored.append((endpoint, unique_id))
        for name in ("authorization", "set-cookie"):
            found = re.search(r"(?:Bearer |access-token=)\"?([^;\"]+)", reply.headers.get(name, ""))
            self.tokens += [found[1]] if found else []

    def note(self, **members: Any) -> dict[str, Any]:
        """Data that can be told from the data of others."""
        return {"probe": self.mark, **members}

    def store(self, **members: Any) -> str:
        """Store such data in the open endpoint; return its id."""
        return unique_id_of(self.ask("POST", self.note(**members)))

    def upload(self, *names: str, field: str = "file", at: str | None = None) -> Reply:
        """Upload small text files, with one field of text."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="album"\r\n\r\n{self.mark}\r\n'
        files = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: text/plain\r\n\r\n0123456789\r\n"
            for name in names
        )
        body = f"{head}{files}--{BOUNDARY}--\r\n".encode()
        return self.ask("POST", body=body, content_type=f"multipart/form-data; boundary={BOUNDARY}", at=at)

    @contextmanager
    def socket(self, at: str | None = None, **parameters: Any) -> Iterator[ClientConnection]:
        """A WebSocket of an endpoint."""
        url = self.url.replace("http", "ws", 1) + self.target(at or self.open, parameters)
        with open_socket(url) as listener:
            yield listener

    def heard(self, change: Callable[[], object], at: str | None = None, **parameters: Any) -> str:
        """The message of our own that a listener gets by a change."""
        with self.socket(at, **parameters) as listener:
            change()
            while True:
                message = str(listener.recv(timeout=PATIENCE))
                if self.mark in message or any(unique_id in message for unique_id in self.ids):
                    return self.plain(message)

    def end_of(self, at: str | None = None, **parameters: Any) -> str:
        """How a socket ends that is opened."""
        with self.socket(at, **parameters) as listener:
            return "{} {}".format(*closing(listener))

    # Users

    def credentials(self, name: str, **members: Any) -> dict[str, Any]:
        return {"username": f"{self.mark}-{name}", "password": self.password, **members}

    def sign_in(self, name: str) -> Login:
        """Register a user and log them in. Raises NoAnswer where the service does not do that as documented."""
        register = self.ask("POST", self.credentials(name), at=self.auth)
        login = self.log_in(name)
        token = login.headers.get("authorization", "").removeprefix("Bearer ")
        if register.status >= 300 or login.status >= 300 or not token:
            raise NoAnswer(f"{self.url}: registering and logging in at {self.auth}: {register.status}, {login.status}")
        user = Login(name, unique_id_of(register), token)
        self.users.append(user)
        return user

    def log_in(self, name: str, **parameters: Any) -> Reply:
        return self.ask(
            "POST", self.credentials(name), at=self.auth, login="true", **{"noATCookie": "true"} | parameters
        )

    # Answers, without what differs from run to run

    def told(self, reply: Reply) -> str:
        """The body of a success, status and body of anything else."""
        text = self.plain(reply.body.decode(errors="replace"))
        content = parsed(reply.body)
        if reply.status < 300:
            return text
        if isinstance(content, dict):  # a hint is the emulator's own
            text = self.plain(json.dumps({name: value for name, value in content.items() if name != "hint"}))
        return f"{reply.status} {text}"

    def plain(self, text: str) -> str:
        """A text with names in place of ids, tokens, times and keys."""
        for number, unique_id in enumerate(self.ids, 1):
            text = text.replace(unique_id, f"ID{number}")
        for user in self.users:
            text = text.replace(user.unique_id, f"ID-of-{user.name}")
        for token in self.tokens:
            text = text.replace(token, "TOKEN")
        for value, name in ((self.mark, "probe"), (self.password, "PASSWORD"), (self.key, "KEY")):
            text = text.replace(value, name)
        return TIME.sub("TIME", text)

    # The end

    def check(self) -> None:
        """Raise NoAnswer where this is no service with such endpoints and key; nothing is written then."""
        for name, expected in ((self.open, 200), (self.auth, 401), (self.secure, 401)):
            if name is None:
                continue
            try:
                reply = self.ask(at=name)
            except (OSError, HTTPException) as error:
                raise NoAnswer(f"{self.url}: no answer ({error!r})") from None
            if reply.status != expected:
                told = "its records" if reply.status == 200 else self.told(reply)
                raise NoAnswer(f"{self.url}: {name} answers {told} in place of {expected} to a GET without a token")
            if expected == 200 and not isinstance(parsed(reply.body), list):
                raise NoAnswer(f"{self.url}: {name} answers no list of records")

    def clean_up(self) -> list[str]:
        """Delete what the probe has stored, users last; return what is left."""
        try:
            records = [item for item in self.stored if item[0] != self.auth]
            records += [(self.open, unique_id) for unique_id in self.unnoticed()]
            left = [item for item in dict.fromkeys(records) if not self.delete(*item)] + self.delete_users()
        except (OSError, HTTPException) as error:
            return [f"{self.url}: what has {self.mark} in it may be left ({error!r})"]
        return [f"{self.url}: {at} still has {unique_id} of {self.mark}" for at, unique_id in left]

    def delete_users(self) -> list[tuple[str, str]]:
        """Let every user delete themselves; return who is left."""
        left = [item for item in self.stored if item[0] == self.auth]
        for name in ("ada", "ben", "once") if left else ():
            token = self.log_in(name).headers.get("authorization", "").removeprefix("Bearer ")
            left = [
                (at, unique_id)
                for at, unique_id in left
                if not token or self.ask("DELETE", at=at, token=token, uniqueId=unique_id).status >= 300
            ]
        return left

    def delete(self, at: str, unique_id: str) -> bool:
        """Delete a record as whoever may; return whether it is gone, which it may have been before."""
        tokens = [user.token for user in self.users] if at == self.secure else [None]
        for token in tokens:
            self.ask("DELETE", at=at, token=token, uniqueId=unique_id)
        return all(self.ask("GET", at=at, token=token, uniqueId=unique_id).status >= 300 for token in tokens)

    def unnoticed(self) -> list[str]:
        """The ids of records of ours in the open endpoint whose answers did not tell them."""
        content = parsed(self.ask("GET").body)
        records = content if isinstance(content, list) else []
        return [record["uniqueId"] for record in records if self.mark in json.dumps(record)]


class Question(NamedTuple):
    """What is asked, which clause it settles, which endpoints it takes."""

    clause: str
    text: str
    takes: str
    ask: Callable[[Side], Any]


QUESTIONS: list[Question] = []


def question(clause: str, text: str, takes: str = "open") -> Callable[[Callable[[Side], Any]], Callable[[Side], Any]]:
    """Add a function to the questions."""

    def add(ask: Callable[[Side], Any]) -> Callable[[Side], Any]:
        QUESTIONS.append(Question(clause, text, takes, ask))
        return ask

    return add


def parsed(body: bytes) -> Any:
    """JSON, or None for anything else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def unique_id_of(reply: Reply) -> str:
    content = parsed(reply.body)
    return str(content.get("uniqueId")) if isinstance(content, dict) else "none"


def shape(text: object) -> str:
    """How a text is made: 0 for a digit, a for a hexadecimal letter, x for another."""
    return re.sub("[g-z]", "x", re.sub("[a-f]", "a", re.sub(r"\d", "0", str(text))))


# Addresses and methods


@question("1.5", "Does dataOnly=1 count as set?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=it.store(), dataOnly="1"))


@question("1.7", "What does a method answer that is not known?")
def _(it: Side) -> Any:
    reply = it.ask("PATCH", it.note())
    return it.told(reply), reply.headers.get("allow")


@question("1.7", "What does another path answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(path="/api/1/none"))


# Records


@question("3.1", "Which members has a record, in which order, and how are ids and times made?")
def _(it: Side) -> Any:
    record = parsed(it.ask("POST", it.note()).body)
    return [
        list(record),
        set(shape(record["uniqueId"])) <= set("0a"),
        len(record["uniqueId"]),
        shape(record["createdAt"]),
    ]


@question("3.2", "Does the data come back as it was sent, order and large numbers too?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=it.store(z=1, a=2**64, nested={"ü": [None, 1.5, ""]}), dataOnly="true"))


@question("3.3", "How does a text come back?")
def _(it: Side) -> Any:
    reply = it.ask("POST", body=it.mark.encode(), content_type="text/plain")
    text = it.ask(uniqueId=unique_id_of(reply), dataOnly="true")
    return it.told(reply), it.told(text), text.headers.get("content-type")


for _type in ("text/xml", "application/x-www-form-urlencoded", ""):

    @question("3.3", f"What does a POST with content type {_type or '(none)'} answer?")
    def _(it: Side, content_type: str = _type) -> Any:
        return it.told(it.ask("POST", body=it.mark.encode(), content_type=content_type))


@question("3.3", "What does an empty body answer?")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", body=b""))


for _body in ('{"probe": MARK', '["MARK", NaN]', "\ufeff[MARK]", '{"MARK": 1, "MARK": 2}', r'["MARK", "\ud800"]'):

    @question("3.4", f"What does the body {_body!r} answer?")
    def _(it: Side, body: str = _body) -> Any:
        return it.told(it.ask("POST", body=re.sub('"?MARK"?', f'"{it.mark}"', body).encode()))


@question("3.4", "What does a body answer that is not UTF-8?")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", body=f'["{it.mark}", "'.encode() + b'\xff"]'))


@question("3.5", "In which order are records listed?")
def _(it: Side) -> Any:
    ids = [it.store(n=number) for number in (1, 2, 3)]
    first = it.ask("PUT", it.note(n=4), uniqueId=ids[0])
    listed = [record["uniqueId"] for record in parsed(it.ask().body)]
    return first.status < 300, it.plain(" ".join(unique_id for unique_id in listed if unique_id in ids))


# Operations


@question("4.1", "What does a POST with dataOnly answer?")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", it.note(n=1), dataOnly="true"))


@question("4.2", "What does a GET of one id answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=it.store()))


@question("4.2", "And with dataOnly?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=it.store(), dataOnly="true"))


@question("4.2", "What do several ids answer, the parameter repeated, against the order of creation?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=[it.store(), it.store()][::-1]))


@question("4.2", "What do several ids answer with commas?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=",".join([it.store(), it.store()][::-1])))


@question("4.2", "What do several ids answer where one is unknown?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=[it.store(), UNKNOWN]))


@question("4.2", "What does an id answer that is asked for twice?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=[it.store()] * 2))


@question("4.2", "What does an unknown id answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=UNKNOWN))


@question("4.3", "What does a PUT answer?")
def _(it: Side) -> Any:
    return it.told(it.ask("PUT", it.note(new=2), uniqueId=it.store(old=1)))


@question("4.3", "What does a PUT with dataOnly answer?")
def _(it: Side) -> Any:
    return it.told(it.ask("PUT", it.note(new=2), uniqueId=it.store(old=1), dataOnly="true"))


@question("4.3", "Does createdAt stay with a PUT?")
def _(it: Side) -> Any:
    before = parsed(it.ask("POST", it.note()).body)
    after = parsed(it.ask("PUT", it.note(), uniqueId=before["uniqueId"]).body)
    return before["createdAt"] == after["createdAt"]


for _strategy in ("force", "merge", "replace", "other"):

    @question("4.3", f"What does a PUT with strategy={_strategy} make of objects within objects, and of lists?")
    def _(it: Side, strategy: str = _strategy) -> Any:
        unique_id = it.store(deep={"a": 1, "b": {"c": 2}}, list=[1, 2], gone=3)
        changes = it.note(deep={"b": {"d": 4}}, list=[5], gone=None)
        return it.told(it.ask("PUT", changes, uniqueId=unique_id, strategy=strategy))

    @question("4.3", f"And with strategy={_strategy} of a list in place of an object?")
    def _(it: Side, strategy: str = _strategy) -> Any:
        unique_id = it.store()
        return it.told(it.ask("PUT", [it.mark], uniqueId=unique_id, strategy=strategy)), it.told(
            it.ask(uniqueId=unique_id)
        )


for _method in ("PUT", "DELETE"):

    @question("4.3", f"What does a {_method} of two ids answer?")
    def _(it: Side, method: str = _method) -> Any:
        return it.told(it.ask(method, it.note() if method == "PUT" else ..., uniqueId=[it.store(), it.store()]))

    @question("5.3", f"What does a {_method} of an unknown id answer?")
    def _(it: Side, method: str = _method) -> Any:
        return it.told(it.ask(method, it.note() if method == "PUT" else ..., uniqueId=UNKNOWN))


@question("4.4", "What does a DELETE answer?")
def _(it: Side) -> Any:
    return it.told(it.ask("DELETE", uniqueId=it.store()))


@question("4.5", "What does a wrong master key answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=UNKNOWN, masterKey="wrong"))


for _expression in ("data.n + 1", "data.none", "data.(", "$sum('a')"):

    @question("4.6", f"What does jsonata={_expression} answer?")
    def _(it: Side, expression: str = _expression) -> Any:
        return it.told(it.ask(uniqueId=it.store(n=1), jsonata=expression))


@question("4.7", "Which status and content type have POST, GET, PUT, DELETE?")
def _(it: Side) -> Any:
    replies = [it.ask("POST", it.note())]
    replies += [
        it.ask(method, it.note() if method == "PUT" else ..., uniqueId=it.ids[0]) for method in ("GET", "PUT", "DELETE")
    ]
    return [f"{reply.status} {reply.headers.get('content-type')}" for reply in replies]


# Errors


@question("5.1", "Which members has the body of an error, and which content type?")
def _(it: Side) -> Any:
    reply = it.ask(uniqueId=UNKNOWN)
    content = parsed(reply.body)
    members = [name for name in content if name != "hint"] if isinstance(content, dict) else "none"
    return members, reply.headers.get("content-type")


@question("5.2", "What does a request without key answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(key=None))


@question("5.3", "What does a request with a wrong key answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(key="wrong"))


@question("5.3", "What does an unknown endpoint answer?")
def _(it: Side) -> Any:
    return it.told(it.ask(at=f"{it.open}/{it.mark}"))


@question("5.6", "Which comes first: key or endpoint?")
def _(it: Side) -> Any:
    return it.told(it.ask(key=None, at=f"{it.open}/{it.mark}"))


@question("5.6", "Which comes first: key or body?")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", body=b"", key="wrong"))


@question("5.6", "Which comes first: body or uniqueId?")
def _(it: Side) -> Any:
    return it.told(it.ask("PUT", body=b"{"))


@question("5.6", "Which comes first: body or record?")
def _(it: Side) -> Any:
    return it.told(it.ask("PUT", body=b"{", uniqueId=UNKNOWN))


@question("5.7", "What does a body of 1.1 MB answer?")
def _(it: Side) -> Any:
    reply = it.ask("POST", it.note(long="x" * 1_100_000))
    return it.told(reply) if reply.status >= 300 else "stored"


# Users and tokens


@question("6.2", "What does registering answer?", "auth")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", it.credentials("once", more=[1]), at=it.auth))


@question("6.2", "What does registering a name answer that is taken?", "auth")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", it.credentials("ada"), at=it.auth))


@question("6.2", "What does registering without a password answer?", "auth")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", {"username": f"{it.mark}-other"}, at=it.auth))


@question("6.3", "What does a login answer, and where is the token?", "auth")
def _(it: Side) -> Any:
    reply = it.log_in("ada")
    return it.told(reply), it.plain(reply.headers.get("authorization", "")), "set-cookie" in reply.headers


@question("6.6", "Which attributes has the cookie of a login?", "auth")
def _(it: Side) -> Any:
    return cookie(it, it.log_in("ada", noATCookie=None))


def cookie(it: Side, reply: Reply) -> str:
    """The cookie that an answer sets, without token and date."""
    return re.sub(r"(?i)(expires=)[^;]+", r"\1DATE", it.plain(reply.headers.get("set-cookie", "none")))


for _case, _login in (
    ("a wrong password", {"username": "MARK-ada", "password": "wrong"}),
    ("an unknown name", {"username": "MARK-nobody", "password": "wrong"}),
    ("no password", {"username": "MARK-ada"}),
    ("both names", {"username": "MARK-ada", "email": "a@b.invalid", "password": "wrong"}),
):

    @question("6.3", f"What does a login with {_case} answer?", "auth")
    def _(it: Side, login: dict[str, str] = _login) -> Any:
        content = {name: value.replace("MARK", it.mark) for name, value in login.items()}
        return it.told(it.ask("POST", content, at=it.auth, login="true", noATCookie="true"))


@question("6.4", "What does a logout answer, and what becomes of cookie and token?", "auth")
def _(it: Side) -> Any:
    token = it.log_in("ada").headers.get("authorization", "").removeprefix("Bearer ")
    reply = it.ask("POST", at=it.auth, token=token, logout="true")
    return it.told(reply), cookie(it, reply), it.told(it.ask(at=it.auth, token=token))


@question("6.4", "What does a logout without a token answer?", "auth")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", at=it.auth, logout="true"))


@question("6.4", "How does a socket end when its token logs out?", "auth")
def _(it: Side) -> Any:
    token = it.log_in("ada").headers.get("authorization", "").removeprefix("Bearer ")
    with it.socket(it.auth, accessToken=token) as listener:
        it.ask("POST", at=it.auth, token=token, logout="true")
        return closing(listener)


@question("6.5", "What does a GET with a token answer?", "auth")
def _(it: Side) -> Any:
    return it.told(it.ask(at=it.auth, token=it.users[0].token))


@question("6.5", "What does a user's PUT answer?", "auth")
def _(it: Side) -> Any:
    user = it.users[1]
    return it.told(it.ask("PUT", it.credentials(user.name, n=1), at=it.auth, token=user.token, uniqueId=user.unique_id))


@question("6.5", "What does a PUT answer that leaves out the password?", "auth")
def _(it: Side) -> Any:
    user, name = it.users[1], {"username": it.credentials(it.users[1].name)["username"]}
    return it.told(it.ask("PUT", name, at=it.auth, token=user.token, uniqueId=user.unique_id, strategy="merge"))


@question("6.5", "What do PUT and DELETE of another user answer?", "auth")
def _(it: Side) -> Any:
    by, of = it.users[0].token, it.users[1]
    put = it.ask("PUT", it.credentials(of.name), at=it.auth, token=by, uniqueId=of.unique_id)
    return it.told(put), it.told(it.ask("DELETE", at=it.auth, token=by, uniqueId=of.unique_id))


@question("6.9", "What does the reset of an unknown address answer?", "auth")
def _(it: Side) -> Any:
    content = {"email": f"{it.mark}@probe.invalid", "templateName": it.mark}
    return it.told(it.ask("POST", content, at=it.auth, passwordreset="true"))


@question("5.4", "What does a GET answer without a token, with a wrong one?", "secure")
def _(it: Side) -> Any:
    return it.told(it.ask(at=it.secure)), it.told(it.ask(at=it.secure, token="wrong"))


@question("6.7", "Does a token count as accessToken over HTTP, and beside a wrong header?", "secure")
def _(it: Side) -> Any:
    token = it.users[0].token
    replies = [it.ask(at=it.secure, accessToken=token), it.ask(at=it.secure, accessToken=token, token="wrong")]
    return [reply.status for reply in replies]


@question("6.8", "What does a POST of a user answer?", "secure")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", it.note(), at=it.secure, token=it.users[0].token))


for _method in ("GET", "PUT", "DELETE"):

    @question("5.5", f"What does a {_method} of another user's record answer?", "secure")
    def _(it: Side, method: str = _method) -> Any:
        unique_id = unique_id_of(it.ask("POST", it.note(), at=it.secure, token=it.users[0].token))
        data = it.note() if method == "PUT" else ...
        return it.told(it.ask(method, data, at=it.secure, token=it.users[1].token, uniqueId=unique_id))


@question("5.6", "Which comes first: token or body?", "secure")
def _(it: Side) -> Any:
    return it.told(it.ask("POST", body=b"{", at=it.secure))


# The WebSocket


@question("7.2", "How does a socket end with a wrong key, without key, at an unknown endpoint?")
def _(it: Side) -> Any:
    return it.end_of(key="wrong"), it.end_of(key=None), it.end_of(f"{it.open}/{it.mark}")


@question("7.2", "How does a socket end without a token, with a wrong one?", "secure")
def _(it: Side) -> Any:
    return it.end_of(it.secure), it.end_of(it.secure, accessToken="wrong")


@question("7.3", "What is the message of a POST?")
def _(it: Side) -> Any:
    return it.heard(lambda: it.store(n=1))


@question("7.3", "What is the message of a PUT?")
def _(it: Side) -> Any:
    unique_id = it.store(n=1)
    return it.heard(lambda: it.ask("PUT", it.note(n=2), uniqueId=unique_id))


@question("7.3", "What is the message of a DELETE?")
def _(it: Side) -> Any:
    unique_id = it.store(n=1)
    return it.heard(lambda: it.ask("DELETE", uniqueId=unique_id))


@question("7.3", "What is the message of an upload of two files?")
def _(it: Side) -> Any:
    return it.heard(lambda: it.upload("a.txt", "b.txt"))


@question("7.5", "Does a listener hear of another user's records?", "secure")
def _(it: Side) -> Any:
    ada, ben = it.users[:2]

    def change() -> None:
        it.ask("POST", it.note(by=ada.name), at=it.secure, token=ada.token)
        it.ask("POST", it.note(by=ben.name), at=it.secure, token=ben.token)

    return it.heard(change, it.secure, accessToken=ben.token)


@question("7.6", "What does a socket do with what a client sends?")
def _(it: Side) -> Any:
    with it.socket() as listener:
        listener.send('{"type": "POST"}')
        it.store()
        return it.mark in str(listener.recv(timeout=PATIENCE))


# Files


@question("8.1", "What does an upload of one file answer?")
def _(it: Side) -> Any:
    return it.told(it.upload("a.txt"))


@question("8.1", "What does an upload of two files answer?")
def _(it: Side) -> Any:
    return it.told(it.upload("a.txt", "b.txt"))


@question("8.1", "What does an upload without a file answer, of eleven, of one under another name?")
def _(it: Side) -> Any:
    eleven = [f"{number}.txt" for number in range(11)]
    return [it.told(it.upload()), it.told(it.upload(*eleven)), it.told(it.upload("a.txt", field="other"))]


@question("8.2", "Which headers has a download?")
def _(it: Side) -> Any:
    reply = it.ask(uniqueId=unique_id_of(it.upload("a ü.txt")), fileOnly="true")
    return it.told(reply), [reply.headers.get(f"content-{name}") for name in ("type", "disposition", "length")]


for _range in ("bytes=2-4", "bytes=20-", "bytes=4-2"):

    @question("8.2", f"What does Range: {_range} answer, with stream=true and without?")
    def _(it: Side, wanted: str = _range) -> Any:
        unique_id, headers = unique_id_of(it.upload("a.txt")), {"Range": wanted}
        replies = [
            it.ask(uniqueId=unique_id, fileOnly="true", stream=stream, headers=headers) for stream in ("true", None)
        ]
        return [f"{reply.status} {reply.headers.get('content-range')}" for reply in replies]


@question("8.2", "What does fileOnly answer for a record without a file?")
def _(it: Side) -> Any:
    return it.told(it.ask(uniqueId=it.store(), fileOnly="true"))


@question("8.3", "Does a PUT leave the file of a record?")
def _(it: Side) -> Any:
    unique_id = unique_id_of(it.upload("a.txt"))
    return it.told(it.ask("PUT", it.note(), uniqueId=unique_id)), it.told(it.ask(uniqueId=unique_id, fileOnly="true"))


# Browsers


def cors_of(reply: Reply) -> dict[str, str]:
    """The headers that speak to a browser about origins."""
    return {name: value for name, value in sorted(reply.headers.items()) if name.startswith(CORS)}


@question("9.1", "Which headers has an answer to a page, and an error?")
def _(it: Side) -> Any:
    page = {"Origin": PAGE}
    return cors_of(it.ask(uniqueId=it.store(), headers=page)), cors_of(it.ask(uniqueId=UNKNOWN, headers=page))


@question("9.1", "What does a preflight answer?")
def _(it: Side) -> Any:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type,authorization"}
    reply = it.ask("OPTIONS", headers={"Origin": PAGE, **asked})
    return reply.status, cors_of(reply)


# The run


def main(argv: Sequence[str] | None = None) -> int:
    """Ask both sides; return 0 where nothing differs, 1 where something does, 2 where there is no answer."""
    options = read_command_line(argv)
    try:
        with ExitStack() as stack:
            return compare(options, options.other or base(stack.enter_context(started(options))))
    except (NoAnswer, RestedError) as error:
        print(str(error).replace(options.key, "KEY"), file=sys.stderr)
        return 2


def read_command_line(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.probe", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", metavar="BASE", help="scheme and host of the service")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="of an emulator; default one that is started for it")
    parser.add_argument("--key", required=True, help="the API key of both")
    parser.add_argument("--open", metavar="NAME", required=True, help="an open endpoint, into which it writes")
    parser.add_argument("--auth", metavar="NAME", help="an authentication endpoint, at which it registers users")
    parser.add_argument("--secure", metavar="NAME", help="a secure endpoint, into which they write; takes --auth")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="before each request; default 0")
    options = parser.parse_intermixed_args(argv)
    for url in filter(None, (options.base, options.other)):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            parser.error(f"{url} is not scheme and host, as https://app.rested.dev")
    if options.secure and not options.auth:
        parser.error("--secure takes --auth, whose users write there")
    return options


def started(options: argparse.Namespace) -> RestedEmulator:
    """An emulator with the endpoints that are named. Raises OptionError where it cannot have them."""
    logging.getLogger("rested_emulator").addHandler(logging.NullHandler())  # what it says of odd requests is no news
    names = {name: [value] for name, value in vars(options).items() if name in ("auth", "secure") and value}
    return RestedEmulator(key=options.key, endpoint=[options.open], **names)


def compare(options: argparse.Namespace, other: str) -> int:
    """Ask both sides every question whose endpoints are named, and print what differs."""
    sides = Side(options.base, options), Side(other, options)
    asked = [(number, each) for number, each in enumerate(QUESTIONS, 1) if getattr(options, each.takes)]
    for side in sides:
        side.check()
    answers = [ask_all(side, [each for _, each in asked]) for side in sides]
    differing = [(*item, *both) for item, *both in zip(asked, *answers, strict=True) if both[0] != both[1]]
    for side in sides:
        side.check()  # who died meanwhile has answered nothing
    print(f"# What {options.base} and {other} answer differently\n")
    print(f"{len(asked)} of {len(QUESTIONS)} questions were asked; {len(differing)} answers differ.")
    if differing:
        print(f"\n| # | clause | question | {options.base} | {other} |\n|--:|---|---|---|---|")
    for number, each, *both in differing:
        print("|", " | ".join([str(number), each.clause, *map(cell, (each.text, *both))]), "|")
    return 1 if differing else 0


def ask_all(side: Side, questions: Sequence[Question]) -> list[str]:
    """The answers of a side; what it stores for them is deleted, whatever happens."""
    try:
        if side.auth:
            side.sign_in("ada")
            side.sign_in("ben")
        return [answer_of(side, each) for each in questions]
    finally:
        side.ids.clear()
        for line in side.clean_up():
            print(line, file=sys.stderr)


def answer_of(side: Side, each: Question) -> str:
    """What a side answers to a question, as text."""
    side.ids.clear()
    try:
        answer = each.ask(side)
    except (OSError, HTTPException, WebSocketException) as error:
        answer = f"no answer ({type(error).__name__})"
    except (TypeError, KeyError, AttributeError) as error:
        answer = f"an answer of another shape ({error!r})"
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def cell(text: str) -> str:
    """A text in a cell of a table."""
    shortened = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return re.sub(r"\s+", " ", shortened).replace("|", r"\|")


if __name__ == "__main__":
    sys.exit(main())
