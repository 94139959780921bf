"""Sequences of verbs against a model that is a dictionary: what is stored, what is heard, and how it ends.

``pytest tests/test_sequences.py --sequences 5000`` is the long run; the sequences are the same every time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rested_emulator import (
    BadRequest,
    Clock,
    Draft,
    Forbidden,
    Gate,
    Options,
    Record,
    Refusal,
    TokenExpired,
    Unauthenticated,
    open_store,
    timestamp,
)
from tests.conftest import CHORES, DIARY, GARDEN, GARDENERS, PLANTS, Backend, Ear, StoppedTime, knock
from tests.test_journal import killed
from tests.wire import CHANGED, EXPIRED

TOOLS = "garden/tools"  # an endpoint that comes and goes
ORDINARY = (PLANTS, DIARY, CHORES, TOOLS)
NAMES = ("ada", "ben", "cleo", "dora")

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
bodies = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
picks = st.integers(0, 999)
flags = st.none() | st.booleans()


class Item(NamedTuple):
    """A record as the model has it; the data as JSON, since Python takes 1, 1.0 and True for the same."""

    data: str
    created: str
    updated: str
    owner: str | None = None

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


@dataclass
class State:
    """All that can be gone back to."""

    records: dict[str, dict[str, Item]]
    rules: dict[str, Rules]
    tokens: dict[str, Token]
    skew: float = 0.0

    def copy(self) -> State:
        records = {name: dict(table) for name, table in self.records.items()}
        return State(records, dict(self.rules), dict(self.tokens), self.skew)


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
            record = message["record"]
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


class Refused(Exception):
    """What the model says a verb is refused with."""

    def __init__(self, kind: type[Refusal]) -> None:
        super().__init__()
        self.kind = kind


class Garden(RuleBasedStateMachine):
    """The model, and the emulator beside it."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "data.json"
        self.path.write_bytes(GARDEN.read_bytes())
        self.time = StoppedTime()
        self.seats: list[Seat] = []
        self.draft: Draft | None = None
        tree = json.loads(self.path.read_text())
        self.state = State(
            {
                name: {
                    key: Item(json.dumps(item["data"]), item["createdAt"], item["updatedAt"], item.get("owner"))
                    for key, item in tree[name].items()
                }
                for name in (PLANTS, GARDENERS, DIARY, CHORES)
            },
            {PLANTS: Rules(), GARDENERS: Rules(True), DIARY: Rules(secure=True), CHORES: Rules(secure=True, read=True)},
            {},
        )
        self.start()

    def start(self) -> None:
        self.backend = Backend(open_store(Options(data=str(self.path))), Clock(self.time), Gate())
        self.backend.begin()
        self.state.skew, self.seats, self.draft = 0.0, [], None
        self.marks = {"": self.state.copy()}

    def teardown(self) -> None:
        self.backend.close()
        self._folder.cleanup()

    # What the model says

    @property
    def now(self) -> float:
        return self.time.now + self.state.skew

    def table(self, endpoint: str) -> dict[str, Item]:
        return self.state.records.setdefault(endpoint, {})

    def user_of(self, token: str | None) -> str | None:
        """The user whom a token makes known; raises what a request is refused with."""
        found = self.state.tokens.get(token or "")
        if found is None or found.user not in self.table(GARDENERS):
            raise Refused(Unauthenticated)
        if found.expires_at <= self.now:
            raise Refused(TokenExpired)
        return found.user

    def caller(self, endpoint: str, token: str | None) -> str | None:
        """The user whom a request shows, where that counts; raises what it is refused with."""
        rules = self.state.rules.get(endpoint)
        if rules is None:
            raise Refused(BadRequest)
        return self.user_of(token) if rules.secure or rules.authentication else None

    def may(self, what: str, endpoint: str, user: str | None, unique_id: str, item: Item) -> bool:
        rules = self.state.rules[endpoint]
        if rules.authentication:
            return user == unique_id
        return not rules.secure or getattr(rules, what) or item.owner in (None, user)

    def readable(self, endpoint: str, user: str | None) -> dict[str, Any]:
        rules = self.state.rules[endpoint]
        return {
            key: item.public(key, password=not rules.authentication)
            for key, item in self.table(endpoint).items()
            if self.may("read", endpoint, user, key, item)
        }

    def changeable(self, what: str, endpoint: str, token: str | None, unique_id: str) -> Item:
        user = self.caller(endpoint, token)
        item = self.table(endpoint).get(unique_id)
        if item is not None and self.may(what, endpoint, user, unique_id, item):
            return item
        if item is None or not self.may("read", endpoint, user, unique_id, item):
            raise Refused(BadRequest)
        raise Refused(Forbidden)

    # What happens in the model

    def tell(self, verb: str, endpoint: str, unique_id: str, item: Item) -> None:
        record = item.public(unique_id, password=endpoint != GARDENERS)
        for seat in self.open_seats():
            if seat.endpoint == endpoint and self.may("read", endpoint, seat.user, unique_id, item):
                seat.must_hear.append({"type": verb, "record": record})

    def open_seats(self) -> Iterator[Seat]:
        return (seat for seat in self.seats if seat.ended is None)

    def end(self, how: tuple[int, str], *, tokens: object = (), endpoints: object = ()) -> None:
        for seat in self.open_seats():
            if seat.token in tokens or seat.endpoint in endpoints:  # type: ignore[operator]
                seat.ended = how

    def end_expired(self) -> None:
        over = [token for token, found in self.state.tokens.items() if found.expires_at <= self.now]
        self.end(EXPIRED, tokens=over)

    def keep(self, verb: str, endpoint: str, record: Record, data: Any, owner: str | None, created: str = "") -> None:
        now = timestamp(self.now)
        item = Item(json.dumps(data), created or now, now, owner)
        self.table(endpoint)[record.unique_id] = item
        self.tell(verb, endpoint, record.unique_id, item)

    # Picking

    def a_token(self, pick: int) -> str | None:
        tokens = [None, *self.state.tokens]
        return tokens[pick % len(tokens)]

    def an_id(self, endpoint: str, pick: int) -> str:
        ids = [*self.table(endpoint), "nobody"]
        return ids[pick % len(ids)]

    def perform(self, refusal: type[Refusal] | None, verb: Any, approach: Any) -> Any:
        """Call a verb, which must be refused like that, or not at all."""
        if refusal is None:
            return verb(approach)
        with pytest.raises(Refusal) as raised:
            verb(approach)
        assert raised.type is refusal
        return None

    # Rules: records

    @rule(endpoint=st.sampled_from(ORDINARY), token=picks, data=bodies)
    def create(self, endpoint: str, token: int, data: Any) -> None:
        shown = self.a_token(token)
        approach = knock(endpoint, data, token=shown)
        try:
            owner = self.caller(endpoint, shown)
        except Refused as refusal:
            self.perform(refusal.kind, self.backend.create, approach)
        else:
            record = self.perform(None, self.backend.create, approach)
            assert record.unique_id not in self.table(endpoint)
            self.keep("POST", endpoint, record, data, owner)

    @rule(
        endpoint=st.sampled_from(ORDINARY),
        token=picks,
        pick=picks,
        data=bodies,
        strategy=st.sampled_from(("force", "merge", "replace", "strange")),
    )
    def update(self, endpoint: str, token: int, pick: int, data: Any, strategy: str) -> None:
        shown, unique_id = self.a_token(token), self.an_id(endpoint, pick)
        approach = knock(endpoint, data, token=shown, unique_id=unique_id, strategy=strategy)
        try:
            self.caller(endpoint, shown)
            if strategy == "strange":
                raise Refused(BadRequest)
            item = self.changeable("update", endpoint, shown, unique_id)
            old = json.loads(item.data)
            if strategy == "merge" and not (isinstance(old, dict) and isinstance(data, dict)):
                raise Refused(BadRequest)
            if strategy == "replace" and kind(old) is not kind(data):
                raise Refused(BadRequest)
        except Refused as refusal:
            self.perform(refusal.kind, self.backend.update, approach)
        else:
            record = self.perform(None, self.backend.update, approach)
            self.keep(
                "PUT", endpoint, record, merged(old, data) if strategy == "merge" else data, item.owner, item.created
            )

    @rule(endpoint=st.sampled_from((*ORDINARY, GARDENERS)), token=picks, pick=picks)
    def delete(self, endpoint: str, token: int, pick: int) -> None:
        shown, unique_id = self.a_token(token), self.an_id(endpoint, pick)
        approach = knock(endpoint, token=shown, unique_id=unique_id)
        try:
            item = self.changeable("delete", endpoint, shown, unique_id)
        except Refused as refusal:
            self.perform(refusal.kind, self.backend.delete, approach)
        else:
            self.perform(None, self.backend.delete, approach)
            self.tell("DELETE", endpoint, unique_id, item)
            del self.table(endpoint)[unique_id]
            if endpoint == GARDENERS:
                self.forget([token for token, found in self.state.tokens.items() if found.user == unique_id])

    # Rules: users

    def named(self, name: str) -> str | None:
        users = self.table(GARDENERS).items()
        return next((key for key, item in users if json.loads(item.data)["username"] == name), None)

    def forget(self, tokens: list[str]) -> None:
        self.end(EXPIRED, tokens=tokens)
        for token in tokens:
            del self.state.tokens[token]

    @rule(name=st.sampled_from(NAMES))
    def register(self, name: str) -> None:
        data = {"username": name, "password": f"{name}'s"}
        refusal = BadRequest if self.named(name) else None
        record = self.perform(refusal, self.backend.register, knock(GARDENERS, data))
        if record:
            self.keep("POST", GARDENERS, record, data, None)

    @rule(name=st.sampled_from(NAMES), right=st.booleans())
    def login(self, name: str, right: bool) -> None:
        user = self.named(name)
        known = json.loads(self.table(GARDENERS)[user].data)["password"] if user else "any"
        data = {"username": name, "password": known if right else "another"}
        refusal = None if user and right else Unauthenticated
        done = self.perform(refusal, self.backend.login, knock(GARDENERS, data))
        if user and done:
            record, session = done
            assert record.public() == self.readable(GARDENERS, user)[user]
            self.state.tokens[session.token] = Token(user, self.now + 3600)

    @rule(token=picks, pick=picks, change=st.sampled_from(("password", "username", "empty", "all")))
    def update_user(self, token: int, pick: int, change: str) -> None:
        shown, unique_id, name = self.a_token(token), self.an_id(GARDENERS, pick), NAMES[pick % len(NAMES)]
        new = {"password": {"password": "new"}, "username": {"username": name}, "empty": {"password": ""}}.get(
            change, {"username": name, "password": "new", "more": [1]}
        )
        approach = knock(
            GARDENERS, new, token=shown, unique_id=unique_id, strategy="force" if change == "all" else "merge"
        )
        try:
            item = self.changeable("update", GARDENERS, shown, unique_id)
            if change == "empty" or ("username" in new and self.named(name) not in (None, unique_id)):
                raise Refused(BadRequest)
        except Refused as refusal:
            self.perform(refusal.kind, self.backend.update, approach)
        else:
            record = self.perform(None, self.backend.update, approach)
            data = new if change == "all" else merged(json.loads(item.data), new)
            self.keep("PUT", GARDENERS, record, data, None, item.created)

    @rule(token=picks)
    def logout(self, token: int) -> None:
        shown = self.a_token(token)
        try:
            self.user_of(shown)
        except Refused:
            self.perform(BadRequest, self.backend.logout, knock(GARDENERS, token=shown))
        else:
            self.perform(None, self.backend.logout, knock(GARDENERS, token=shown))
            self.forget([shown or ""])

    @rule(token=picks)
    def expire(self, token: int) -> None:
        shown = self.a_token(token)  # None is everybody's
        live = [key for key, found in self.state.tokens.items() if found.expires_at > self.now and shown in (None, key)]
        assert self.backend.expire_tokens(token=shown)["expired"] == len(live)
        for key in live:
            self.state.tokens[key] = self.state.tokens[key]._replace(expires_at=self.now)
        self.end(EXPIRED, tokens=live)

    # Rules: time, options

    @rule(seconds=st.sampled_from((1, 1800, 3600)))
    def advance(self, seconds: int) -> None:
        self.backend.advance(seconds)
        self.state.skew += seconds
        self.end_expired()

    @rule(seconds=st.sampled_from((1, 600, 3601)))
    def time_passes(self, seconds: int) -> None:
        self.time.now += seconds
        self.backend.tick()
        self.end_expired()

    @rule(endpoint=st.sampled_from(ORDINARY), secure=flags, read=flags, update=flags, delete=flags)
    def change_options(
        self, endpoint: str, secure: bool | None, read: bool | None, update: bool | None, delete: bool | None
    ) -> None:
        given = {"secure": secure, "read": read, "update": update, "delete": delete}
        others: dict[str, Any] = {f"others_can_{name}": value for name, value in given.items() if name != "secure"}
        self.backend.change_endpoint(endpoint, secure=secure, **others)
        known = self.state.rules.get(endpoint, Rules())
        self.state.rules[endpoint] = known._replace(**{name: v for name, v in given.items() if v is not None})
        self.end(CHANGED, endpoints=[endpoint])

    @precondition(lambda self: TOOLS in self.state.rules)
    @rule()
    def delete_endpoint(self) -> None:
        assert self.backend.delete_endpoint(TOOLS)["deleted"] == len(self.table(TOOLS))
        del self.state.rules[TOOLS]
        self.state.records.pop(TOOLS, None)
        self.end(CHANGED, endpoints=[TOOLS])

    # Rules: listeners

    @rule(endpoint=st.sampled_from((*ORDINARY, GARDENERS)), token=picks)
    def listen(self, endpoint: str, token: int) -> None:
        shown, ear = self.a_token(token), Ear()
        approach = knock(endpoint, token=shown)
        try:
            user = self.caller(endpoint, shown)
        except Refused as refusal:
            self.perform(refusal.kind, lambda approach: self.backend.listen(approach, ear), approach)
        else:
            self.backend.listen(approach, ear)
            shown = shown if user else None  # where no token is asked for, none counts
            self.seats.append(Seat(ear, endpoint, shown, user, self.readable(endpoint, user)))

    @precondition(lambda self: any(self.open_seats()))
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        seats = list(self.open_seats())
        seat = seats[pick % len(seats)]
        assert self.backend.leave(seat.endpoint, seat.ear, 1000)
        self.seats.remove(seat)

    @rule(endpoint=st.sampled_from(ORDINARY))
    def close_listeners(self, endpoint: str) -> None:
        if endpoint in self.state.rules:
            self.backend.close_listeners(code=3000, reason="a drill", endpoint=endpoint)
            self.end((3000, "a drill"), endpoints=[endpoint])

    # Rules: going back

    @rule(name=st.sampled_from("ab"))
    def checkpoint(self, name: str) -> None:
        self.backend.checkpoint(name)
        self.marks[name] = self.state.copy()

    @rule(name=st.sampled_from(("", "a", "b")))
    def go_back(self, name: str) -> None:
        if name not in self.marks:
            return
        before, self.state = self.state, self.marks[name].copy()
        if name:
            self.backend.restore(name)
        else:
            self.backend.reset()
        after = self.state
        gone = [token for token, found in before.tokens.items() if found.user in before.records[GARDENERS]]
        self.end(EXPIRED, tokens=[token for token in gone if token not in after.tokens])
        self.end_expired()
        self.backend.tick()  # what is due by the time that it is now
        readers = {endpoint: rules[:3] for endpoint, rules in before.rules.items()}
        changed = [key for key, rules in readers.items() if key not in after.rules or after.rules[key][:3] != rules]
        self.end(CHANGED, endpoints=changed)
        for endpoint in after.rules:
            old, new = before.records.get(endpoint, {}), self.table(endpoint)
            for key in old.keys() - new.keys():
                self.tell("DELETE", endpoint, key, old[key])
            for key in new:
                if old.get(key) != new[key]:
                    self.tell("PUT" if key in old else "POST", endpoint, key, new[key])
        for seat in self.seats:  # in which order it is told of the difference is open
            count = len(seat.must_hear)
            assert sorted(map(repr, seat.ear.heard)) == sorted(map(repr, seat.must_hear))
            seat.must_hear[:] = seat.ear.heard[:count]

    # Rules: the process and the disk

    @rule()
    def save(self) -> None:
        """What the server does twice a second; the draft is written while other things happen."""
        if self.draft:
            self.backend.store.end_save(self.draft, self.draft.write())
        self.draft = self.backend.store.begin_save()

    @rule()
    def kill_and_restart(self) -> None:
        killed(self.backend.store)
        self.start()

    @rule()
    def stop_and_restart(self) -> None:
        self.backend.close()
        self.start()

    # What must hold

    @invariant()
    def get_equals_the_model(self) -> None:
        for endpoint, rules in self.state.rules.items():
            everything = [
                item.public(key, password=not rules.authentication) for key, item in self.table(endpoint).items()
            ]
            assert json.dumps(self.backend.records(endpoint)) == json.dumps(everything)
            for token in [None, *self.state.tokens]:
                try:
                    expected = self.readable(endpoint, self.caller(endpoint, token))
                except Refused as refusal:
                    self.perform(refusal.kind, self.backend.read, knock(endpoint, token=token))
                else:
                    found = self.backend.read(knock(endpoint, token=token))
                    records = [found] if isinstance(found, Record) else found
                    assert [record.public() for record in records] == list(expected.values())

    @invariant()
    def listeners_hear_what_they_may_read_and_end_for_a_cause(self) -> None:
        for seat in self.seats:
            assert seat.ear.ended == seat.ended
            assert seat.ear.heard == seat.must_hear
            seat.replay()
            if seat.ended is None:
                assert seat.view == self.readable(seat.endpoint, seat.user)
        assert len(self.backend.hub) == len(list(self.open_seats()))


def test_every_sequence_of_verbs_does_what_the_model_says(pytestconfig: pytest.Config) -> None:
    most = pytestconfig.getoption("--sequences")
    run_state_machine_as_test(
        Garden,
        settings=settings(
            max_examples=most,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
