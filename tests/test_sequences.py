"""Sequences of verbs against a model that is a dictionary: what is stored, what is heard, and how it ends.

``pytest tests/test_sequences.py --sequences 5000`` is the long run; the sequences are the same every time.
What a verb did at least once, over all of them, stands beside it; ``-s`` shows how often.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from rested_emulator import Clock, Files, Gate, Options, Worlds, open_store
from tests import texts
from tests.conftest import (
    ADA,
    BEN,
    CHORES,
    DIARY,
    GARDEN,
    GARDENERS,
    KEY,
    MASTER_KEY,
    PLANTS,
    Backend,
    Ear,
    StoppedTime,
    iso,
    knock,
    refused,
)
from tests.test_journal import killed
from tests.test_uploads import FORM, file, form, text
from tests.wire import CHANGED, EXPIRED

ENOUGH = 100  # sequences in which every verb does what it should do at least once
AGO = "2021-06-28T17:18:44.000Z"
TOOLS = "garden/tools"  # an endpoint that comes and goes
ORDINARY = (PLANTS, DIARY, CHORES, TOOLS)
NAMES = ("ada", "ben", "cleo", "dora")
TEMPLATE = "{{email}} has {{verificationtoken}}"
MASTER = "the master key"  # in the place of a token, and of a user
UNKNOWN = "unknown"  # a token, and a mail's, that nobody has
OTHER = "other"  # the key of a world
DROPPED = (1001, texts.DROPPED)


# What the arguments of a verb are drawn by

Draw = Callable[[Random], Any]


def one_of(*choices: Any) -> Draw:
    return lambda chance: chance.choice(choices)


def number(chance: Random) -> int:
    """What ``pick`` and ``exists`` go by."""
    return chance.randrange(1000)


def value(chance: Random, depth: int = 2) -> Any:
    """JSON of all kinds."""
    if depth and chance.random() < 0.3:
        return [value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return members(chance, depth - 1) if depth and chance.random() < 0.5 else chance.choice(SCALARS)


def members(chance: Random, depth: int = 2) -> dict[str, Any]:
    """An object of few names, so that there is something to merge."""
    names = chance.sample(("more", "bed", "Grün 🥕"), chance.randrange(1, 4))
    return {name: value(chance, depth) for name in names}


def data(chance: Random) -> Any:
    return members(chance) if chance.random() < 0.7 else value(chance)


def contents(chance: Random) -> list[bytes]:
    """What is in the files of an upload."""
    return [chance.randbytes(chance.randrange(9)) for _ in range(chance.randrange(1, 3))]


SCALARS = (None, True, False, 0, 1, 1.0, -0.5, 2**60, "", "a", "\0 \u2028 €")
flag = one_of(None, None, True, False)


class Item(NamedTuple):
    """A record as the model has it; the data as JSON, since Python takes 1, 1.0 and True for the same."""

    data: str
    created: str
    updated: str
    owner: str | None = None
    file: bytes | None = None

    def public(self, unique_id: str, *, password: bool = True) -> dict[str, Any]:
        data = json.loads(self.data)
        if not password:
            data.pop("password", None)
        return {"data": data, "uniqueId": unique_id, "updatedAt": self.updated, "createdAt": self.created}


class Rules(NamedTuple):
    """The options of an endpoint."""

    authentication: bool = False
    secure: bool = False
    read: bool = False
    update: bool = False
    delete: bool = False


class Token(NamedTuple):
    user: str
    expires_at: float


class Letter(NamedTuple):
    """A reset mail."""

    user: str
    email: str
    sent_at: float
    used: bool = False

    def public(self, token: str) -> dict[str, Any]:
        html = TEMPLATE.replace("{{email}}", self.email).replace("{{verificationtoken}}", token)
        times = {"sentAt": iso(self.sent_at), "expiresAt": iso(self.sent_at + 3600)}
        names = {"email": self.email, "templateName": "forgotten", "html": html, "verificationToken": token}
        return {**names, "endpoint": GARDENERS, **times, "used": self.used}


class Refused(Exception):
    """What the model says a verb is refused with."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status, message)


@dataclass
class State:
    """All that can be gone back to, and who may do what with it."""

    time: StoppedTime
    records: dict[str, dict[str, Item]]
    rules: dict[str, Rules]
    tokens: dict[str, Token] = field(default_factory=dict)
    mails: dict[str, Letter] = field(default_factory=dict)
    skew: float = 0.0

    def copy(self) -> State:
        records = {name: dict(table) for name, table in self.records.items()}
        return State(self.time, records, dict(self.rules), dict(self.tokens), dict(self.mails), self.skew)

    @property
    def now(self) -> float:
        return self.time.now + self.skew

    def table(self, endpoint: str) -> dict[str, Item]:
        return self.records.setdefault(endpoint, {})

    def is_live(self, token: str) -> bool:
        found = self.tokens[token]
        return found.user in self.table(GARDENERS) and found.expires_at > self.now

    def user_of(self, token: str | None) -> str:
        """The user whom a token makes known; raises what a request is refused with."""
        found = self.tokens.get(token or "")
        if found is None or found.user not in self.table(GARDENERS):
            raise Refused(401, texts.NO_TOKEN)
        if found.expires_at <= self.now:
            raise Refused(401, texts.TOKEN_EXPIRED)
        return found.user

    def caller(self, endpoint: str, token: str | None) -> str | None:
        """The user whom a request shows, where that counts; raises what it is refused with."""
        rules = self.rules.get(endpoint)
        if rules is None:
            raise Refused(400)
        if token == MASTER:
            return MASTER
        return self.user_of(token) if rules.secure or rules.authentication else None

    def may(self, what: str, endpoint: str, user: str | None, unique_id: str, item: Item) -> bool:
        rules = self.rules[endpoint]
        if user == MASTER:
            return True
        if rules.authentication:
            return user == unique_id
        return not rules.secure or getattr(rules, what) or item.owner in (None, user)

    def readable(self, endpoint: str, user: str | None) -> dict[str, Any]:
        return {
            key: item.public(key, password=endpoint != GARDENERS)
            for key, item in self.table(endpoint).items()
            if self.may("read", endpoint, user, key, item)
        }

    def changeable(self, what: str, endpoint: str, user: str | None, unique_id: str) -> Item:
        item = self.table(endpoint).get(unique_id)
        if item is not None and self.may(what, endpoint, user, unique_id, item):
            return item
        if item is None or not self.may("read", endpoint, user, unique_id, item):
            raise Refused(400)
        raise Refused(403)

    def user_with(self, member: str, value: str) -> str | None:
        users = self.table(GARDENERS).items()
        return next((key for key, item in users if json.loads(item.data).get(member) == value), None)

    def files(self) -> dict[str, bytes]:
        """The uploaded files, by the ids of their records."""
        tables = self.records.values()
        return {key: item.file for table in tables for key, item in table.items() if item.file is not None}


@dataclass(eq=False)
class Seat:
    """A listener: what it must hear, and what its messages add up to."""

    ear: Ear
    endpoint: str
    token: str | None
    user: str | None
    view: dict[str, Any]
    must_hear: list[Any] = field(default_factory=list)
    ended: tuple[int, str] | None = None
    replayed: int = 0

    def replay(self) -> None:
        """Bring the view up to date, as a page does."""
        for message in self.ear.heard[self.replayed :]:
            told = message["record"]
            for record in told if isinstance(told, list) else [told]:
                assert (record["uniqueId"] in self.view) == (message["type"] != "POST"), "told twice, or not at all"
                if message["type"] == "DELETE":
                    del self.view[record["uniqueId"]]
                else:
                    self.view[record["uniqueId"]] = record
        self.replayed = len(self.ear.heard)


def merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {name: merged(old[name], value) if name in old else value for name, value in new.items()}


def kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def pick(among: Iterable[Any], number: int) -> Any:
    """One of them, by a number that was drawn."""
    choices = list(among)
    return choices[number // 5 % len(choices)]


def exists(number: int) -> bool:
    """Whether what is picked by the number is to be there, which is so four times in five."""
    return number % 5 != 4


MUST: dict[str, tuple[str, ...]] = {}  # what each verb has to do at least once, over all sequences
DID: Counter[tuple[str, str]] = Counter()  # how often it has
VERBS: list[Callable[[Garden, Random], None]] = []


def verb(must: str, *, weight: int = 2, **drawn: Draw) -> Callable[[Callable[..., None]], object]:
    """Make a step of sequences of a method, which comes as often as its weight says.

    It is ``refused``, or says itself in ``happened`` what it did, or else is ``done``; whether it was ``heard``,
    or ``ended`` a listener, is seen from here. All that it ``must`` do it has to do at least once.
    """

    def decorate(method: Callable[..., None]) -> object:
        MUST[method.__name__] = tuple(must.split(", "))

        def step(self: Garden, chance: Random) -> None:
            arguments = {name: draw(chance) for name, draw in drawn.items()}
            print(f"{method.__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})")
            self.happened = set()
            listening = list(self.open_seats())
            heard = [len(seat.must_hear) for seat in listening]
            method(self, **arguments)
            if heard != [len(seat.must_hear) for seat in listening]:
                self.happened.add("heard")
            if any(seat.ended for seat in listening):
                self.happened.add("ended")
            if not self.happened & {"refused", "idle"}:
                self.happened.add("done")
            DID.update((method.__name__, what) for what in self.happened)

        VERBS.extend([step] * weight)
        return method

    return decorate


class Garden:
    """The model, and the emulator beside it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "data.json"
        self.files = Path(f"{self.path}.files")
        tree = json.loads(GARDEN.read_text())
        tree["_projects"][KEY]["resetTemplates"] = {"forgotten": TEMPLATE}
        tree["_endpoints"][TOOLS] = {"project": KEY, "secure": True, "othersCanDelete": True}
        tree[TOOLS] = {"spade": {"data": {"more": {"old": 1}}, "owner": ADA, "createdAt": AGO, "updatedAt": AGO}}
        self.path.write_text(json.dumps(tree))
        self.time = StoppedTime()
        self.state = State(
            self.time,
            {
                name: {
                    key: Item(json.dumps(item["data"]), item["createdAt"], item["updatedAt"], item.get("owner"))
                    for key, item in tree[name].items()
                }
                for name in (PLANTS, GARDENERS, DIARY, CHORES, TOOLS)
            },
            {
                PLANTS: Rules(),
                GARDENERS: Rules(authentication=True),
                DIARY: Rules(secure=True),
                CHORES: Rules(secure=True, read=True),
                TOOLS: Rules(secure=True, delete=True),
            },
        )
        self.left: set[str] = set()  # files of records that only the checkpoints of a killed emulator had
        self.numbers = count(1)
        self.happened: set[str] = set()
        self.start()
        self.open_session(ADA, "ada", "apricot")
        self.open_session(BEN, "ben", "bramble")
        self.begin()

    def start(self) -> None:
        store = open_store(Options(data=str(self.path)))
        self.backend = Backend(store, Clock(self.time), Gate(), Files(str(self.files)))
        self.worlds = Worlds(self.backend.world, prepare=lambda world: world.states.begin())
        self.state.skew, self.seats, self.draft = 0.0, list[Seat](), None
        yesterday = self.state.now - 86400
        for token in [token for token, found in self.state.tokens.items() if found.expires_at < yesterday]:
            del self.state.tokens[token]

    draft: Any

    def begin(self) -> None:
        """Let this be what ``reset`` goes back to; whoever is logged in listens everywhere, as pages do."""
        self.backend.begin()
        self.marks = {"": self.state.copy()}
        self.taken = self.state.copy()  # what undo could put back
        for token in self.live_tokens()[-2:]:
            self.listen_everywhere(token)

    # What happens in the model

    def tell(self, verb: str, endpoint: str, items: dict[str, Item]) -> None:
        """One message to everyone who may read these records, which have one owner."""
        records = [item.public(key, password=endpoint != GARDENERS) for key, item in items.items()]
        unique_id, item = next(iter(items.items()))
        for seat in self.open_seats():
            if seat.endpoint == endpoint and self.state.may("read", endpoint, seat.user, unique_id, item):
                seat.must_hear.append({"type": verb, "record": records if len(records) > 1 else records[0]})

    def put(self, verb: str, endpoint: str, items: dict[str, Item]) -> None:
        self.state.table(endpoint).update(items)
        self.tell(verb, endpoint, items)

    def open_seats(self) -> Iterator[Seat]:
        return (seat for seat in self.seats if seat.ended is None)

    def end(self, how: tuple[int, str], *, tokens: object = (), endpoints: object = ()) -> None:
        for seat in self.open_seats():
            if seat.token in tokens or seat.endpoint in endpoints:  # type: ignore[operator]
                seat.ended = how

    def end_expired(self) -> None:
        over = [token for token, found in self.state.tokens.items() if found.expires_at <= self.state.now]
        self.end(EXPIRED, tokens=over)

    def forget(self, tokens: list[str]) -> None:
        self.end(EXPIRED, tokens=tokens)
        for token in tokens:
            del self.state.tokens[token]

    def item(self, record: Any, data: Any, owner: str | None = None, file: bytes | None = None) -> Item:
        """The new item beside the record that a verb has answered."""
        assert not any(record.unique_id in table for table in self.state.records.values())
        now = iso(self.state.now)
        return Item(json.dumps(data), now, now, None if owner == MASTER else owner, file)

    def changed(self, item: Item, data: Any) -> Item:
        return item._replace(data=json.dumps(data), updated=iso(self.state.now))

    # Picking

    def live_tokens(self) -> list[str]:
        return [token for token in self.state.tokens if self.state.is_live(token)]

    def someone(self, number: int, *, master: bool = True) -> str | None:
        """The token of somebody who is logged in, or none that counts, or the master key."""
        live = self.live_tokens()
        if live and exists(number):
            return str(pick(live, number))
        dead = [token for token in self.state.tokens if token not in live]
        return pick([None, UNKNOWN, *dead, *([MASTER] * 2 if master else ())], number)  # type: ignore[no-any-return]

    def an_id(self, endpoint: str, number: int, token: str | None = None) -> str:
        """The id of a record, more often than not of somebody's own."""
        table = self.state.table(endpoint)
        if not table or not exists(number):
            return "nobody"
        found = self.state.tokens.get(token or "")
        own = [key for key, item in table.items() if found and found.user in (key, item.owner)]
        return str(pick(own if own and number % 2 else table, number))

    def ask(self, endpoint: str, token: str | None, *, key: str = KEY, **shows: Any) -> Any:
        if token == MASTER:
            return knock(endpoint, key=key, master_key=MASTER_KEY, **shows)
        return knock(endpoint, key=key, token=token, **shows)

    def perform(self, refusal: Refused | None, verb: Callable[..., Any], request: Any) -> Any:
        """Call a verb, which must be refused like that, or not at all."""
        if refusal is None:
            return verb(request)
        self.happened.add("refused")
        with refused(*refusal.args):
            verb(request)
        return None

    # Verbs: records

    @verb("done, refused, heard, by the master key", weight=4, endpoint=one_of(*ORDINARY), who=number, data=data)
    def create(self, endpoint: str, who: int, data: Any) -> None:
        token = self.someone(who)
        request = self.ask(endpoint, token, data=data)
        try:
            owner = self.state.caller(endpoint, token)
        except Refused as refusal:
            self.perform(refusal, self.backend.create, request)
        else:
            record = self.perform(None, self.backend.create, request)
            self.put("POST", endpoint, {record.unique_id: self.item(record, data, owner)})
            if owner == MASTER:
                self.happened.add("by the master key")

    @verb(
        "done, refused, heard, several",
        weight=3,
        endpoint=one_of(*ORDINARY),
        who=number,
        contents=contents,
    )
    def upload(self, endpoint: str, who: int, contents: list[bytes]) -> None:
        token = self.someone(who)
        request = self.ask(endpoint, token, content=(FORM["Content-Type"], None, b""))
        try:
            owner = self.state.caller(endpoint, token)
        except Refused as refusal:
            self.perform(refusal, lambda request: self.backend.start_upload(request, 100), request)
        else:
            taken = self.backend.start_upload(request, 100)
            taken.feed(form(text("bed", b"1"), *map(file, contents)))
            made = self.backend.upload(request, taken)
            records = [made] if hasattr(made, "unique_id") else list(made)
            facts = {"originalName": "a.txt", "mimeType": "text/plain"}
            data = [{**facts, "size": len(content), "metadata": {"bed": "1"}} for content in contents]
            items = {
                record.unique_id: self.item(record, datum, owner, content)
                for record, datum, content in zip(records, data, contents, strict=True)
            }
            self.put("POST", endpoint, items)
            if len(items) > 1:
                self.happened.add("several")

    @verb(
        "done, refused, heard, force, merge, replace, deep, of another, forbidden",
        weight=6,
        endpoint=one_of(*ORDINARY),
        who=number,
        which=number,
        data=data,
        strategy=one_of("force", "merge", "merge", "merge", "replace", "replace", "strange"),
    )
    def update(self, endpoint: str, who: int, which: int, data: Any, strategy: str) -> None:
        token = self.someone(who)
        unique_id = self.an_id(endpoint, which, token)
        request = self.ask(endpoint, token, data=data, unique_id=unique_id, strategy=strategy)
        try:
            user = self.state.caller(endpoint, token)
            if strategy == "strange":
                raise Refused(400)
            item = self.state.changeable("update", endpoint, user, unique_id)
            old = json.loads(item.data)
            if strategy == "merge" and not (isinstance(old, dict) and isinstance(data, dict)):
                raise Refused(400)
            if strategy == "replace" and kind(old) is not kind(data):
                raise Refused(400)
        except Refused as refusal:
            self.perform(refusal, self.backend.update, request)
            if refusal.args[0] == 403:
                self.happened.add("forbidden")
        else:
            new = merged(old, data) if strategy == "merge" else data
            self.perform(None, self.backend.update, request)
            self.put("PUT", endpoint, {unique_id: self.changed(item, new)})
            self.happened.add(strategy)
            if strategy == "merge" and new != old | data:
                self.happened.add("deep")
            if user and item.owner not in (None, user):
                self.happened.add("of another")

    @verb(
        "done, refused, heard, ended, of another, forbidden, file",
        weight=5,
        endpoint=one_of(*ORDINARY, *ORDINARY, GARDENERS),
        who=number,
        which=number,
    )
    def delete(self, endpoint: str, who: int, which: int) -> None:
        token = self.someone(who)
        unique_id = self.an_id(endpoint, which, token)
        request = self.ask(endpoint, token, unique_id=unique_id)
        try:
            user = self.state.caller(endpoint, token)
            item = self.state.changeable("delete", endpoint, user, unique_id)
        except Refused as refusal:
            self.perform(refusal, self.backend.delete, request)
            if refusal.args[0] == 403:
                self.happened.add("forbidden")
        else:
            self.perform(None, self.backend.delete, request)
            self.tell("DELETE", endpoint, {unique_id: item})
            del self.state.table(endpoint)[unique_id]
            if endpoint == GARDENERS:
                self.forget([token for token, found in self.state.tokens.items() if found.user == unique_id])
            if user and item.owner not in (None, user):
                self.happened.add("of another")
            if item.file is not None:
                self.happened.add("file")

    # Verbs: users

    @verb("done, refused", weight=1, name=one_of(*NAMES))
    def register(self, name: str) -> None:
        data = {"username": name, "password": f"{name}'s", "email": f"{name}@garden.example"}
        taken = any(self.state.user_with(member, data[member]) for member in ("username", "email"))
        record = self.perform(Refused(400) if taken else None, self.backend.register, knock(GARDENERS, data))
        if record:
            self.put("POST", GARDENERS, {record.unique_id: self.item(record, data)})

    def open_session(self, user: str, name: str, password: str) -> str:
        request = knock(GARDENERS, {"username": name, "password": password})
        record, session = self.perform(None, self.backend.login, request)
        assert record.public() == self.state.readable(GARDENERS, user)[user]
        self.state.tokens[session.token] = Token(user, self.state.now + 3600)
        return str(session.token)

    @verb("done, refused, wrong password", weight=3, which=number, right=one_of(True, True, True, False))
    def login(self, which: int, right: bool) -> None:
        """A page that logs in listens everywhere."""
        user = self.an_id(GARDENERS, which)
        known = self.state.table(GARDENERS).get(user)
        data = json.loads(known.data) if known else {"username": "nobody", "password": "any"}
        if known and right:
            self.listen_everywhere(self.open_session(user, data["username"], data["password"]))
            return
        data = {"username": data["username"], "password": "another" if known else data["password"]}
        self.perform(Refused(401), self.backend.login, knock(GARDENERS, data))
        if known:
            self.happened.add("wrong password")

    @verb(
        "done, refused, heard",
        weight=3,
        who=number,
        which=number,
        name=one_of(*NAMES),
        change=one_of("password", "username", "empty", "all"),
    )
    def update_user(self, who: int, which: int, name: str, change: str) -> None:
        token = self.someone(who)
        unique_id = self.an_id(GARDENERS, which, token)
        changes: dict[str, dict[str, Any]] = {
            "password": {"password": "new"},
            "username": {"username": name},
            "empty": {"password": ""},
            "all": {"username": name, "password": "new", "more": [1]},
        }
        new = changes[change]
        strategy = "force" if change == "all" else "merge"
        request = self.ask(GARDENERS, token, data=new, unique_id=unique_id, strategy=strategy)
        try:
            user = self.state.caller(GARDENERS, token)
            item = self.state.changeable("update", GARDENERS, user, unique_id)
            if change == "empty" or (
                "username" in new and self.state.user_with("username", name) not in (None, unique_id)
            ):
                raise Refused(400)
        except Refused as refusal:
            self.perform(refusal, self.backend.update, request)
        else:
            self.perform(None, self.backend.update, request)
            data = new if change == "all" else json.loads(item.data) | new
            self.put("PUT", GARDENERS, {unique_id: self.changed(item, data)})

    @verb("done, refused, ended", weight=1, who=number)
    def logout(self, who: int) -> None:
        token = self.someone(who, master=False)
        try:
            self.state.user_of(token)
        except Refused:
            self.perform(Refused(400), self.backend.logout, knock(GARDENERS, token=token))
        else:
            self.perform(None, self.backend.logout, knock(GARDENERS, token=token))
            self.forget([token or ""])

    @verb("done, refused", weight=3, which=number, template=one_of("forgotten", "forgotten", "forgotten", "strange"))
    def ask_for_mail(self, which: int, template: str) -> None:
        addresses = (json.loads(item.data).get("email") for item in self.state.table(GARDENERS).values())
        known = list(filter(None, addresses))
        email = pick(known, which) if known and exists(which) else "nobody@garden.example"
        user = self.state.user_with("email", email)
        refusal = None if user and template == "forgotten" else Refused(400)
        self.perform(refusal, self.backend.send_reset, knock(GARDENERS, {"email": email, "templateName": template}))
        if user and refusal is None:
            mail: Any = self.backend.mails()[-1]
            self.state.mails[mail["verificationToken"]] = Letter(user, email, self.state.now)

    @verb("done, refused, heard, ended, used, expired", weight=4, which=number, same=one_of(True, True, True, False))
    def set_password(self, which: int, same: bool) -> None:
        mails = self.state.mails
        token = pick(mails, which) if mails and exists(which) else UNKNOWN
        mail = mails.get(token)
        item = self.state.table(GARDENERS).get(mail.user) if mail else None
        data = {"verificationToken": token, "password": "reset", "passwordConfirmation": "reset" if same else "other"}
        request = knock(GARDENERS, data)
        if mail and item and same and not mail.used and mail.sent_at + 3600 > self.state.now:
            self.perform(None, self.backend.reset_password, request)
            new = json.loads(item.data) | {"password": "reset"}
            self.put("PUT", GARDENERS, {mail.user: self.changed(item, new)})
            mails[token] = mail._replace(used=True)
            self.forget([token for token, found in self.state.tokens.items() if found.user == mail.user])
        else:
            self.perform(Refused(400), self.backend.reset_password, request)
            if mail and item and same:
                self.happened.add("used" if mail.used else "expired")

    @verb("done, ended, idle", weight=1, who=number)
    def expire(self, who: int) -> None:
        token = self.someone(who, master=False)  # None is everybody's
        live = [known for known in self.live_tokens() if token in (None, known)]
        orphans = [key for key, found in self.state.tokens.items() if found.user not in self.state.table(GARDENERS)]
        assert not orphans, "who is deleted has no token"
        assert self.backend.expire_tokens(token=token)["expired"] == len(live)
        for known in live:
            self.state.tokens[known] = self.state.tokens[known]._replace(expires_at=self.state.now)
        self.end(EXPIRED, tokens=live)
        if not live:
            self.happened.add("idle")

    # Verbs: time, options

    @verb("done, ended", seconds=one_of(1, 60, 600, 600, 1800, 3600))
    def advance(self, seconds: int) -> None:
        self.backend.advance(seconds)
        self.state.skew += seconds
        self.end_expired()

    @verb("done", seconds=one_of(1, 1800))
    def set_back(self, seconds: int) -> None:
        self.backend.set_time(iso(self.state.now - seconds))
        self.state.skew -= seconds

    @verb("done, ended", seconds=one_of(1, 1, 60, 600, 1800, 3601))
    def time_passes(self, seconds: int) -> None:
        self.time.now += seconds
        self.backend.tick()
        self.end_expired()

    @verb("done, ended", endpoint=one_of(*ORDINARY), secure=flag, read=flag, update=flag, delete=flag)
    def change_options(
        self, endpoint: str, secure: bool | None, read: bool | None, update: bool | None, delete: bool | None
    ) -> None:
        given = {"secure": secure, "read": read, "update": update, "delete": delete}
        others: dict[str, Any] = {f"others_can_{name}": value for name, value in given.items() if name != "secure"}
        self.backend.change_endpoint(endpoint, secure=secure, **others)
        known = self.state.rules.get(endpoint, Rules())
        self.state.rules[endpoint] = known._replace(**{name: v for name, v in given.items() if v is not None})
        self.end(CHANGED, endpoints=[endpoint])

    @verb("done, ended, idle", weight=1)
    def delete_endpoint(self) -> None:
        if TOOLS not in self.state.rules:
            self.happened.add("idle")
            return
        self.taken = self.state.copy()
        assert self.backend.delete_endpoint(TOOLS)["deleted"] == len(self.state.table(TOOLS))
        del self.state.rules[TOOLS]
        self.state.records.pop(TOOLS, None)
        self.end(CHANGED, endpoints=[TOOLS])

    # Verbs: listeners

    def take_seat(self, endpoint: str, token: str | None) -> None:
        ear = Ear()
        request = knock(endpoint, token=token)
        try:
            user = self.state.caller(endpoint, token)
        except Refused as refusal:
            self.perform(refusal, lambda request: self.backend.listen(request, ear), request)
        else:
            self.backend.listen(request, ear)
            counts = token if user else None  # where no token is asked for, none counts
            self.seats.append(Seat(ear, endpoint, counts, user, self.state.readable(endpoint, user)))

    def listen_everywhere(self, token: str) -> None:
        for endpoint in self.state.rules:
            self.take_seat(endpoint, token)

    @verb("done, refused", endpoint=one_of(*ORDINARY, GARDENERS), who=number)
    def listen(self, endpoint: str, who: int) -> None:
        self.take_seat(endpoint, self.someone(who, master=False))

    @verb("done", weight=1, which=number)
    def leave(self, which: int) -> None:
        seats = list(self.open_seats())
        if not seats:
            self.happened.add("idle")
            return
        seat = pick(seats, which)
        assert self.backend.leave(seat.endpoint, seat.ear, 1000)
        self.seats.remove(seat)

    @verb("done, ended", weight=1, endpoint=one_of(*ORDINARY))
    def close_listeners(self, endpoint: str) -> None:
        if endpoint in self.state.rules:
            self.backend.close_listeners(code=3000, reason="a drill", endpoint=endpoint)
            self.end((3000, "a drill"), endpoints=[endpoint])

    # Verbs: going back

    @verb("done", weight=3, name=one_of("a", "b"))
    def checkpoint(self, name: str) -> None:
        self.backend.checkpoint(name)
        self.marks[name] = self.state.copy()

    @verb("done, heard, ended, reset, POST, PUT, DELETE, a lost place, a file, a mail, earlier", weight=4, which=number)
    def go_back(self, which: int) -> None:
        names = [name for name in self.marks if name] if which % 2 else []
        name = pick(names or [""], which)
        before, self.state = self.state, self.marks[name].copy()
        self.taken = before
        if name:
            self.backend.restore(name)
        else:
            self.backend.reset()
            self.happened.add("reset")
        after = self.state
        self.end(EXPIRED, tokens=[token for token in before.tokens if token not in after.tokens])
        self.end_expired()
        readers = {endpoint: rules[:3] for endpoint, rules in before.rules.items()}
        changed = [key for key, rules in readers.items() if key not in after.rules or after.rules[key][:3] != rules]
        self.end(CHANGED, endpoints=changed)
        for endpoint in after.rules:
            old, new = before.records.get(endpoint, {}), after.table(endpoint)
            for key in old.keys() - new.keys():
                self.tell("DELETE", endpoint, {key: old[key]})
                self.happened.add("DELETE")
            for key in new:
                if old.get(key) != new[key]:
                    self.tell("PUT" if key in old else "POST", endpoint, {key: new[key]})
                    self.happened.add("PUT" if key in old else "POST")
            if list(new) != [*(key for key in old if key in new), *(key for key in new if key not in old)]:
                self.happened.add("a lost place")
        if after.files().keys() - before.files().keys():
            self.happened.add("a file")
        if after.mails != before.mails:
            self.happened.add("a mail")
        if after.skew < before.skew:
            self.happened.add("earlier")
        for seat in self.seats:  # in which order it is told of the difference is open
            assert sorted(map(repr, seat.ear.heard)) == sorted(map(repr, seat.must_hear))
            seat.must_hear[:] = seat.ear.heard

    # Verbs: the process, the disk, and a person with an editor

    @verb("done, idle", weight=3)
    def save(self) -> None:
        """What the server does twice a second; the draft is written while other things happen."""
        if self.draft:
            self.backend.store.file.end_save(self.draft, self.draft.write())
            self.draft = None
        else:
            self.backend.store.file.begin_save()  # which finds that something has changed, perhaps, and waits for quiet
            self.draft = self.backend.store.file.begin_save()
            self.happened.add("idle")

    @verb("heard, POST, PUT, DELETE", endpoint=one_of(PLANTS, DIARY, CHORES), which=number, data=data)
    def edit(self, endpoint: str, which: int, data: Any) -> None:
        """Somebody adds, changes or deletes a line of the data file, which may be behind what is stored."""
        tree, table, now = json.loads(self.path.read_text()), self.state.table(endpoint), iso(self.time.now)
        lines = tree.setdefault(endpoint, {})
        there = [key for key in lines if key in table or "file" not in lines[key]]  # a file that is gone stays so
        key = pick(there, which) if there and which % 3 else f"by-hand-{next(self.numbers)}"
        line = lines[key] = lines.get(key, {"createdAt": now}) | {"data": data, "updatedAt": now}
        if which % 3 == 1:
            del lines[key]
        self.path.write_text(json.dumps(tree))
        self.backend.tick()
        self.end_expired()
        old = table.get(key)
        new = Item(json.dumps(data), line["createdAt"], now, line.get("owner"), old.file if old else None)
        if key in lines and old != new:
            self.put("PUT" if old else "POST", endpoint, {key: new})
            self.happened.add("PUT" if old else "POST")
        elif old and key not in lines:
            self.tell("DELETE", endpoint, {key: table.pop(key)})
            self.happened.add("DELETE")

    @verb("done, replayed", weight=1)
    def kill_and_restart(self) -> None:
        journal = Path(f"{self.path}.journal")
        if journal.exists() and journal.stat().st_size:
            self.happened.add("replayed")
        killed(self.backend.store)
        self.left |= {key for mark in (self.taken, *self.marks.values()) for key in mark.files()}
        self.start()
        self.begin()

    @verb("done", weight=1)
    def stop_and_restart(self) -> None:
        self.backend.close()
        self.start()
        self.begin()

    # Verbs: worlds

    @verb("done", weight=1)
    def fork(self) -> None:
        """A world begins as everything began; what happens in it is seen and heard nowhere else."""
        self.worlds.fork(OTHER)
        world, begun, ear = Backend.of(self.worlds.named(OTHER)), self.marks[""], Ear()
        self.assert_equal(world, begun, OTHER)
        world.change_endpoint(PLANTS, secure=False)
        world.listen(knock(PLANTS, key=OTHER), ear)
        for endpoint in begun.rules:
            for unique_id in begun.table(endpoint):
                world.delete(self.ask(endpoint, MASTER, key=OTHER, unique_id=unique_id))
        world.create(knock(PLANTS, "only here", key=OTHER))
        world.advance(3600)
        self.worlds.drop(OTHER)
        assert ear.types == ["DELETE"] * len(begun.table(PLANTS)) + ["POST"]
        assert ear.ended == DROPPED

    # What must hold

    def assert_equal(self, backend: Backend, state: State, key: str) -> None:
        """What everybody reads is what the model says, and in its order."""
        for endpoint in state.rules:
            everything = list(state.readable(endpoint, MASTER).values())
            assert json.dumps(backend.records(endpoint)) == json.dumps(everything)
            for token in [None, *state.tokens]:
                try:
                    expected = state.readable(endpoint, state.caller(endpoint, token))
                except Refused as refusal:
                    with refused(*refusal.args):
                        backend.read(self.ask(endpoint, token, key=key))
                else:
                    found = backend.read(self.ask(endpoint, token, key=key))
                    records = [found] if hasattr(found, "unique_id") else found
                    assert [record.public() for record in records] == list(expected.values())
            for unique_id, item in state.table(endpoint).items():
                if item.file is not None:
                    _, path = backend.download(self.ask(endpoint, MASTER, key=key, unique_id=unique_id))
                    assert Path(path).read_bytes() == item.file
        assert backend.mails() == [mail.public(token) for token, mail in state.mails.items()]

    def check(self) -> None:
        self.get_equals_the_model()
        self.files_are_kept_as_long_as_somebody_can_come_back_to_them()
        self.listeners_hear_what_they_may_read_and_end_for_a_cause()

    def get_equals_the_model(self) -> None:
        self.assert_equal(self.backend, self.state, KEY)

    def files_are_kept_as_long_as_somebody_can_come_back_to_them(self) -> None:
        wanted = {key for state in (self.state, self.taken, *self.marks.values()) for key in state.files()}
        assert {path.name for path in self.files.glob("*")} - self.left == wanted - self.left

    def listeners_hear_what_they_may_read_and_end_for_a_cause(self) -> None:
        for seat in self.seats:
            assert seat.ear.ended == seat.ended
            assert seat.ear.heard == seat.must_hear
            seat.replay()
            if seat.ended is None:
                assert seat.view == self.state.readable(seat.endpoint, seat.user)
        assert len(self.backend.hub) == len(list(self.open_seats()))


STEPS = 40


def play(sequence: int, steps: Iterable[int]) -> None:
    """Go through those steps of a sequence, each of which has its own dice."""
    garden = Garden()
    try:
        garden.check()
        for step in steps:
            chance = Random(sequence * 1000 + step)
            chance.choice(VERBS)(garden, chance)
            garden.check()
        garden.backend.close()
    finally:
        garden.folder.cleanup()


def fails(sequence: int, steps: Iterable[int]) -> bool:
    try:
        play(sequence, steps)
    except (Exception, pytest.fail.Exception):
        return True
    return False


def shortened(sequence: int) -> list[int]:
    """The steps of a failing sequence that are enough to fail."""
    steps = list(range(STEPS))
    for step in range(STEPS):
        fewer = [other for other in steps if other != step]
        if fails(sequence, fewer):
            steps = fewer
    return steps


def test_every_sequence_of_verbs_does_what_the_model_says(
    pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    most = pytestconfig.getoption("--sequences")
    caplog.set_level(logging.WARNING)
    DID.clear()
    for sequence in range(most):
        if fails(sequence, range(STEPS)):
            steps = shortened(sequence)
            capsys.readouterr()
            print(f"sequence {sequence} fails, and so do these steps of it:")
            play(sequence, steps)
    capsys.readouterr()
    for name, words in MUST.items():
        print(f"{name}: {', '.join(f'{word} {DID[name, word]}' for word in words)}")
    never = [f"{name}: {word}" for name, words in MUST.items() for word in words if not DID[name, word]]
    assert not never or most < ENOUGH, "what has to happen, and never did"
