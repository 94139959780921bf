#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "tornado>=6.6.1,<6.7", "tinydb>=4.9,<5", "multipart>=2,<3", "jsonata-python>=0.6,<0.8", "trustme>=1.2,<2",
#     "cryptography>=42"
# ]
# ///
"""A local stand-in for RESTED_DEV: JSON endpoints over HTTP, and every change pushed over a WebSocket.

Run ``python rested_emulator.py`` and use the printed URL in place of the service's, or start one in a
test with ``with RestedEmulator() as emulator:``.

The file is a column of sections. Each uses only what stands above it; ``grep -n '^# -'`` lists them:

    Vocabulary       every literal of the wire, once
    Errors           what can be refused, and what each refusal answers
    Model            frozen values and pure validation
    Clock            the only reader of time
    Store            projects, endpoints, records and sessions, in TinyDB
    Access           what a request shows, who that is, what they may touch
    Accounts         users and tokens
    Uploads          files on disk, and what takes a multipart body apart
    Live             who listens where
    Faults           what goes wrong on purpose, between the verbs and their doors
    Evidence         what was asked and what was pushed, for tests to read
    World            the verbs by who calls them, and how the parts of a world are put together
    Worlds           worlds by API key, for tests side by side
    HTTP             a request becomes a verb, its outcome an answer
    WebSocket        the same URL, the other protocol
    Lane             plain requests past Tornado, and everything else to it byte for byte
    Control          the owner's verbs over HTTP
    Options          one typed value of all that can be set from outside
    Start            what the options stand for: data, files, TLS, pages, timers
    Server           one emulator in an event loop: its port, its clock's alarm, its end
    Python           the test fixture, in a thread of its own
    Command line     argv, banner, exit codes

Down to Worlds everything is synchronous and knows neither Tornado nor a socket: a verb is atomic, and
messages leave in the order of the writes. A request flows like this:

    bytes -> Exchange -> Request -> Api.answer -> Faults -> Service verb -> Store, then Publish
    bytes <- Exchange <- Answer  <- Record or Refusal        Socket.send <- Faults <-'

Words, one for each concept:

    world            an emulated service of its own, with data, clock, faults, sockets; an ``Emulation``
    request          what a client sends over HTTP, handshakes included; verbs take it as a ``Request``
    verb             what clients, the owner, or who asks for a report can call; an ``Operation`` is a client's
    refusal          why a request is not carried out, for the answer, the close frame and the log alike
    listener         who has a WebSocket of an endpoint open, and as whom; the ``Channel`` leads there
    close, cut       how a connection ends: in order, a WebSocket with a close frame; or without a word
    stop, drop       a program, a timer, waiting or a fault ends; a world, a record or a session is taken away
    change           what has happened to a record; its ``Push`` is the message that listeners get
    fault            what goes wrong on purpose; it *hits* a request, and what it does to it is its ``Effect``
    evidence         the requests, messages and ends of sockets that were seen
    checkpoint       tables to go back to; a ``Step`` is one change of a table, as the journal has it
    draft            what is to become a file, until it takes that file's place

Clauses in parentheses, as in "(contract 7.4)", number the rules of the emulated service; "True to the
service" in sample_data/REFERENCE.md says which of them its documentation states.

Errors:

    RestedError
    +-- OptionError          a wrong option, or a wrong argument of an owner's verb
    |   +-- Misfit           what a data file may not say, and where it says so
    +-- DataFileError        a data file or journal that cannot be read
    +-- Refusal              what a client is told: message, status, hint, close reason
        +-- OriginRefused    a page that may neither ask nor read the answer
        +-- NotSeen          what the owner waits for did not happen in time
"""

from __future__ import annotations

import gc
import signal
import sys

if __name__ == "__main__":
    gc.disable()  # until it serves: what a start makes stays, and looking through it takes a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while imports run, Ctrl-C ends it without a traceback

if sys.version_info < (3, 11):  # noqa: UP036 - told before an import fails that does not say so
    LACKING = f"Python 3.11 or newer, and this is {sys.version.split()[0]}: python3.11 {__file__}"
else:
    try:
        import tornado  # noqa: F401 - only to know that it is there: plain requests pass it by
        from tinydb import TinyDB
        from tinydb.storages import Storage
        from tinydb.table import Table
    except ImportError as error:
        WANTED = '"tornado>=6.6.1,<6.7" "tinydb>=4.9,<5"'
        LACKING = f"packages that are missing ({error}): {sys.executable} -m pip install {WANTED}"
    else:
        LACKING = ""
if LACKING:
    LACKING = f"rested-emulator takes {LACKING} (or: uv run {__file__}, which brings all it takes)"
    if __name__ != "__main__":
        raise ImportError(LACKING)
    print(LACKING, file=sys.stderr)
    sys.exit(2)

import asyncio
import atexit
import contextlib
import dataclasses
import errno
import functools
import inspect
import itertools
import json
import logging
import math
import os
import re
import socket
import stat
import struct
import subprocess
import threading
import weakref
import zlib
from collections import Counter, deque
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from heapq import heappop, heappush
from http import HTTPStatus
from io import FileIO
from json.encoder import encode_basestring
from operator import attrgetter
from time import time as machine_time
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Concatenate,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    TextIO,
    TypeAlias,
    TypeVar,
    cast,
)
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

if TYPE_CHECKING:  # each is imported where it is used: the first answer does not need it
    import argparse
    import ipaddress
    import random
    import ssl
    from concurrent.futures import ThreadPoolExecutor

    from tornado.httpserver import HTTPServer
    from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine
    from tornado.iostream import IOStream
    from tornado.platform.asyncio import BaseAsyncIOLoop
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

try:
    import fcntl
    import resource
except ImportError:  # Windows has neither these locks nor these limits
    fcntl = resource = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # which only Windows has
    msvcrt = None  # type: ignore[assignment]

__version__ = "0.2.0"
__all__ = ("DataFileError", "OptionError", "Options", "Refusal", "RestedEmulator", "RestedError", "World", "main")

# - Vocabulary ---------------------------------------------------------------------------------------

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

API_PREFIX = "/api/1/ce/"
CONTROL_PREFIX = "/__emulator__/"
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")

ACCESS_TOKEN_COOKIE = "__Secure-rested-access-token"
PLAIN_COOKIE = "rested-access-token"

JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"

STRATEGIES = ("force", "merge", "replace")  # how PUT combines the old data with the new (contract 4.3)

SAMPLE_PROJECT = "examples"
SAMPLE_KEY = "d59eb2859c284168ac48aef65046d5dd"
SAMPLE_TIME = "2021-06-28T17:18:44.000Z"
DEFAULT_TTL = 3600.0

log = logging.getLogger("rested_emulator")

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class CloseCode(IntEnum):
    """Why the emulator ends a WebSocket (contract 7.2 and 7.4)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    # No frame carries the next two (RFC 6455, section 7.4.1): they stand for a close frame without a code, and for
    # a connection that was lost without any.
    NO_CODE = 1005
    LOST = 1006
    REFUSED = 4000


class Message(StrEnum):
    """What refusals and closed sockets say, the service's wording where it is known (contract 5.1).

    ``status`` is that of the answer which says it (contract 5.2 to 5.7), 0 where only a socket closes with it.
    """

    status: int

    def __new__(cls, text: str, status: int = 0) -> Self:
        message = str.__new__(cls, text)
        message._value_, message.status = text, status
        return message

    KEY_MISSING = "API Key missing.", 403
    NOT_VALID = "Endpoint or API Key not valid.", 400
    WRONG_MASTER_KEY = "Master Key not valid.", 403
    ORIGIN_REFUSED = "Origin not allowed.", 403
    NO_ORIGIN = "Request without origin not allowed.", 403
    HOST_REFUSED = "Host not allowed.", 403
    WRONG_HOST = "Host not valid.", 400
    CONTROL_REFUSED = "Control request not allowed.", 403
    NO_TOKEN = "No Access token or invalid.", 401
    TOKEN_EXPIRED = "Access token expired.", 401
    OPTIONS_CHANGED = "Options of the endpoint are changed."
    WRONG_CREDENTIALS = "Credentials not valid.", 401
    NO_USER = "No user was found.", 401
    USER_EXISTS = "User exists already.", 400
    MEMBER_MISSING = "Username or email and password are required.", 400
    WRONG_CONTENT_TYPE = "Content-Type must be application/json or text/plain.", 400
    NO_BODY = "Body is empty.", 400
    WRONG_BODY = "Body is not valid.", 400
    WRONG_PARAMETER = "Parameter not valid.", 400
    ONE_UNIQUE_ID = "Exactly one uniqueId is required.", 400
    NO_TEMPLATE = "Template was not found.", 400
    WRONG_VERIFICATION = "Verification token not valid.", 400
    PASSWORDS_DIFFER = "Password and confirmation are not the same.", 400
    NO_RECORD = "No record was found.", 400
    NOT_OWNER = "Only the owner of the data can modify it.", 403
    NOT_FOUND = "Nothing is here.", 404
    WRONG_METHOD = "Method not allowed.", 405
    TOO_LARGE = "Body is too large.", 413
    WRONG_FILES = "Files are not valid.", 400
    NO_FILE = "The record has no file.", 400
    WRONG_HANDSHAKE = "WebSocket handshake not valid.", 400
    WRONG_RANGE = "Range not satisfiable.", 416
    WRONG_EXPRESSION = "JSONata expression not valid.", 400
    NOT_INSTALLED = "A package is missing.", 501
    TOO_MANY_SOCKETS = "Too many open connections.", 503
    NOT_STORED = "The change could not be stored.", 507
    NOT_SEEN = "It did not happen in time.", 408
    FAULT_HIT = "The emulator fails as it was told to.", 503
    DROPPED = "The world is dropped.", 503
    STOPPING = "The emulator stops.", 503
    BUG = "The emulator failed.", 500


class Operation(StrEnum):
    """What a request asks for, under the name of the verb of Service that does it."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    REGISTER = "register"
    LOGIN = "login"
    LOGOUT = "logout"
    SEND_RESET = "send_reset"
    RESET_PASSWORD = "reset_password"
    LISTEN = "listen"

    @property
    def honours_master_key(self) -> bool:
        """Whether a master key counts here; elsewhere it is ignored (contract 4.5)."""
        return self in (Operation.CREATE, Operation.READ, Operation.UPDATE, Operation.DELETE)

    @property
    def is_open(self) -> bool:
        """Whether the operation stands open to those who are not logged in (contract 6.1)."""
        return not self.honours_master_key and self is not Operation.LISTEN


# - Errors -------------------------------------------------------------------------------------------


class RestedError(Exception):
    """Everything the emulator raises on purpose."""


class OptionError(RestedError):
    """An option, or an argument of an owner's verb, that cannot be used; the text names it."""


class Misfit(OptionError):
    """Something that a data file may not say; ``way`` is its path in the file's JSON, member names and indexes."""

    def __init__(self, text: str, *way: str | int) -> None:
        super().__init__(text)
        self.way = way


class DataFileError(RestedError):
    """A data file that cannot be read; the text names the file and the place in it."""


class Refusal(RestedError):
    """A request that is not carried out.

    One value with two faces: HTTP answers it with ``status``, ``message`` and ``hint``, a WebSocket
    closes with 4000 and ``reason``. ``message`` is fixed text and brings its status, ``hint`` says which rule refused
    this request and what lifts it. ``hidden`` refusals may not be read by the page that asked, so their
    answer carries no CORS headers. ``body`` replaces the usual body of an error.
    """

    def __init__(
        self,
        message: Message,
        hint: str,
        *,
        status: int | None = None,
        reason: Message | None = None,
        hidden: bool = False,
        headers: Mapping[str, str] | None = None,
        body: Json = None,
    ) -> None:
        super().__init__(f"{message} ({hint})")
        self.message = message
        self.hint = hint
        self.status = status or message.status
        self.reason = reason or message
        self.hidden = hidden
        self.headers = headers or {}
        self.body = body


class OriginRefused(Refusal):
    """The page's origin may neither ask nor read the answer (contract 9.1)."""

    def __init__(self, hint: str) -> None:
        super().__init__(Message.ORIGIN_REFUSED, hint, hidden=True)


class NotSeen(Refusal):
    """What the owner waits for did not happen in time."""


def wrong_method(method: str, allowed: Sequence[str]) -> Refusal:
    """Make the refusal of a method outside ``allowed`` (contract 1.7)."""
    names = ", ".join(allowed)
    # RFC 9110, section 15.5.6, wants the header.
    return Refusal(Message.WRONG_METHOD, f"{shown(method)} is not one of {names}.", headers={"Allow": names})


def not_installed(what: str, package: str) -> Refusal:
    """Make the refusal of a request that takes a package which is not installed."""
    return Refusal(Message.NOT_INSTALLED, f"{what} take a package that is missing: pip install '{package}'")


def not_stored(error: OSError, path: str | None = None) -> Refusal:
    """Make the refusal of a change that the disk refuses, so it is not made; reading goes on."""
    hint = f"{path or error.filename or 'a file'}: {error.strerror}; it works again once that is mended."
    return Refusal(Message.NOT_STORED, hint)


def printable(text: str) -> str:
    """Escape the control and invisible characters in a text that a terminal is to show."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shown(value: object, limit: int = 120) -> str:
    """Quote a value from outside for a hint or a log line: control characters escaped, length bounded."""
    text = str(value)
    return repr(text if len(text) <= limit else text[:limit] + "…")


# - Model --------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """One entry of an endpoint (contract 3.1), kept as the JSON that clients get.

    ``wire`` is ``{"data":…,"uniqueId":…,"updatedAt":…,"createdAt":…}`` in the order of the service's
    messages (contract 7.3). Encoded once, it serves the answer, the message, the list and the data file;
    data and times are read out of it. ``owner`` is a user's unique id, ``more`` holds the other members that
    the data file has; clients see neither.
    """

    unique_id: str
    wire: bytes
    owner: str | None = None
    more: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        unique_id: str,
        data: bytes,
        created_at: str,
        updated_at: str,
        owner: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> Self:
        """Make a record of its parts, the data as JSON."""
        times = f',"updatedAt":"{updated_at}","createdAt":"{created_at}"}}'.encode()
        wire = b'{"data":%b,"uniqueId":%b%b' % (data, encode_text(unique_id), times)
        return cls(unique_id, wire, owner or None, more)

    @property
    def packed_data(self) -> bytes:
        """The data as JSON."""
        # The data may hold the same text, but it stands before the id, and the id itself has no bare quote.
        return self.wire[8 : self.wire.rindex(b',"uniqueId":"')]

    @property
    def data(self) -> Json:
        return decode(self.packed_data)

    # A time has always 24 characters, so both have their place at the end of ``wire``.

    @property
    def created_at(self) -> str:
        return self.wire[-26:-2].decode()

    @property
    def updated_at(self) -> str:
        return self.wire[-65:-41].decode()

    @property
    def file(self) -> dict[str, Any] | None:
        """The ``originalName``, ``mimeType`` and ``size`` of an uploaded file, if it is one (contract 8.1)."""
        return self.more.get("file") if self.more else None

    def public(self) -> dict[str, Json]:
        """Decode the members that clients see."""
        members: dict[str, Json] = json.loads(self.wire)
        return members

    def with_data(self, data: bytes, updated_at: str | None = None) -> Record:
        """Copy the record with other data, given as JSON."""
        updated_at = updated_at or self.updated_at
        return Record.of(self.unique_id, data, self.created_at, updated_at, self.owner, self.more)

    def without_password(self) -> Record:
        """Copy a user's record without the password, which no answer shows (contract 6.5)."""
        # Decoding a record takes longer than searching it for the name of a member.
        data = members_of(self.data) if b'"password":' in self.wire else {}
        if "password" not in data:
            return self
        return self.with_data(encode({name: value for name, value in data.items() if name != "password"}))


class Listing(tuple[Record, ...]):
    """Several records, as one answer or message shows them."""

    @functools.cached_property
    def wire(self) -> bytes:
        """The array that GET answers (contract 4.2); joined when it is asked for first."""
        return join_array([record.wire for record in self])

    @property
    def packed_data(self) -> bytes:
        """The array of the data alone."""
        return join_array([record.packed_data for record in self])


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and its options (contract 2.4)."""

    name: str
    project: str
    authentication: bool = False
    secure: bool = False
    others_can_read: bool = False
    others_can_update: bool = False
    others_can_delete: bool = False
    description: str = ""

    @property
    def needs_token(self) -> bool:
        """Whether only logged-in users are served (contract 6.1 and 6.8)."""
        return self.secure or self.authentication

    def shows(self, record: Record) -> Record:
        """Return a record as clients of this endpoint see it: users without their passwords (contract 6.5)."""
        return record.without_password() if self.authentication else record


@dataclass(frozen=True)
class Project:
    """A project and its options (contract 2.1); ``token_ttl`` in seconds, ``reset_templates`` HTML by name."""

    key: str
    name: str
    master_key: str | None = None
    allowed_origins: tuple[str, ...] = ()
    disallow_no_origin: bool = False
    token_ttl: float = DEFAULT_TTL
    reset_templates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """One login: ``token`` is valid for ``user`` of ``endpoint`` until ``expires_at`` (seconds, UTC)."""

    token: str
    endpoint: str
    user: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to a user who forgot the password (contract 6.9); ``token`` works once, until ``expires_at``."""

    token: str
    endpoint: str
    user: str
    email: str
    template_name: str
    html: str
    sent_at: float
    expires_at: float
    used: bool = False

    def public(self) -> dict[str, Json]:
        """Return the mail as the outbox shows it."""
        return {
            "email": self.email,
            "templateName": self.template_name,
            "html": self.html,
            "verificationToken": self.token,
            "endpoint": self.endpoint,
            "sentAt": timestamp(self.sent_at),
            "expiresAt": timestamp(self.expires_at),
            "used": self.used,
        }


class Change(NamedTuple):
    """A change of a record that listeners are told of; ``type`` is the method that made it (contract 7.3).

    Files that are uploaded together are one message: then ``listing`` has all their records, ``record`` the first.
    """

    type: str
    record: Record
    listing: Listing | None = None


class Parameters(NamedTuple):
    """The query parameters that the service has; all others are ignored (contract 1.4).

    ``flags`` are the flags that are set, of FLAG_OPERATIONS; ``warnings`` name parameters that are ignored and were
    probably meant to be others. ``from_console`` is the emulator's own, and tells the traffic of its console apart.
    """

    key: str | None = None
    master_key: str | None = None
    access_token: str | None = None
    # Not split at commas: whether a value is one id or several depends on the endpoint's records (contract 4.2).
    unique_ids: tuple[str, ...] = ()
    strategy: str = "force"
    data_only: bool = False
    jsonata: str | None = None
    from_console: bool = False
    malformed: bool = False
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


NO_PARAMETERS = Parameters()


@dataclass(slots=True)
class Request:
    """What a client sends, as far as verbs look at it: an endpoint, and what URL, headers and body say.

    Headers are by their usual spelling, as ``Content-Type``; those that came several times are joined. ``body`` is
    None when it was over the limit, and so never read.
    """

    endpoint: str = ""
    parameters: Parameters = NO_PARAMETERS
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    body: bytes | None = b""

    @property
    def origin(self) -> str | None:
        """The origin of the page that sends it; None where no page does."""
        return self.headers.get("Origin")

    @property
    def host(self) -> str | None:
        """The name and port that the client has connected to, as it says."""
        return self.headers.get("Host")


# The flags that count for some operations only.
FLAG_OPERATIONS = MappingProxyType(
    {
        "login": (Operation.LOGIN,),
        "logout": (Operation.LOGOUT,),
        "noATCookie": (Operation.LOGIN,),
        "passwordreset": (Operation.SEND_RESET, Operation.RESET_PASSWORD),
        "fileOnly": (Operation.READ,),
        "stream": (Operation.READ,),
    }
)
FLAGS = (*FLAG_OPERATIONS, "dataOnly")
# The parameters that have a value.
PARAMETERS = frozenset(("key", "masterKey", "accessToken", "uniqueId", "strategy", "jsonata", "from"))
CONSOLE = "console"  # as ``from`` in the query
SPELLINGS = MappingProxyType(
    {name.lower(): name for name in (*PARAMETERS, *FLAGS)} | {"uniqueids": "uniqueId", "apikey": "key"}
)

ENDPOINT_NAME = re.compile(r"(?=.{5,254}\Z)(?!.*--)[a-z0-9][a-z0-9-]*(?:/[a-z0-9-]+)*(?<!-)\Z")
KEY = re.compile(r"(?!\s|\ufeff)[^\x00-\x1f\x7f-\x9f]+(?<!\s)\Z")
PROJECT_NAME = re.compile(r"[A-Za-z0-9 _-]{5,254}\Z")
# A proxy may make ws of http (Vite's rewriteWsOrigin does); the last three are where pages of app shells come from.
ORIGIN = re.compile(
    r"(https?|wss?|capacitor|ionic|tauri)://(\[[0-9a-f:.]+\]|[^\s/?#@:,\[\]\\]+)(?::(\d{1,5}))?\Z",
    re.IGNORECASE | re.ASCII,
)
DEFAULT_PORTS = MappingProxyType({"http": 80, "https": 443, "ws": 80, "wss": 443})
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?\Z", re.ASCII)
SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|KB|MB|GB)?\Z", re.IGNORECASE | re.ASCII)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z", re.ASCII)
MAX_DEPTH = 512
# Characters of a unique id: with each of them percent-encoded, it still fits into a URL.
LONGEST_ID = 1000
CONTROL_CHARACTER = re.compile(r"[\0-\x1f\x7f-\x9f]")
CREDENTIALS = ("username", "email")
# Characters of JSON that is parsed without the garbage collector, since half as many objects may come of it.
MANY_OBJECTS = 100_000
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
# Signed bytes: an opening bracket leads one level down, a closing one up again.
BRACKETS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")
NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
LONGEST_REMEMBERED = 2000  # characters of a query
LONGEST_GUESSED = 254  # characters of a text whose meaning is guessed
# Characters of a name, and names: difflib is slow, and a refusal has to be quick.
LONGEST_COMPARED, MOST_COMPARED = 60, 100
MOST_WARNINGS = 5  # for one request
LONGEST = 100 * 365 * 86400.0  # the longest duration in seconds, a hundred years


def closest(text: str, names: Sequence[str]) -> str | None:
    """Return the name that a text is probably meant to be, for a hint; None if it is like none of them."""
    if len(text) > LONGEST_GUESSED:
        return None
    meant = "/".join(filter(None, unquote(text).strip().lower().replace("_", "-").split("/")))
    if not meant:
        return None
    if meant in names:
        return meant
    if inside := next((name for name in names if name.endswith(f"/{meant}")), None):
        return inside
    if len(meant) > LONGEST_COMPARED:
        return None
    import difflib

    likely = [name for name in names[:MOST_COMPARED] if abs(len(name) - len(meant)) <= 3]
    return next(iter(difflib.get_close_matches(meant, likely, 1, 0.8)), None)


def check_endpoint_name(name: str) -> str:
    """Return the name, or raise OptionError where it breaks the rule of contract 2.3."""
    if ENDPOINT_NAME.match(name):
        return name
    raise OptionError(
        f"{shown(name)} is no endpoint name: 5 to 254 characters of a-z, 0-9, - and /, "
        "not beginning or ending with - or /, no -- and no //"
    )


def check_project_name(name: str) -> str:
    """Return the name, or raise OptionError where it breaks the rule of contract 2.2."""
    if PROJECT_NAME.match(name):
        return name
    raise OptionError(f"{shown(name)} is no project name: 5 to 254 letters, digits, spaces, - and _")


def check_key(key: str, name: str = "key") -> str:
    """Return a key, token, id or name, any text that shows as it is (contract 2.6); raise OptionError for another."""
    if KEY.match(key):
        return key
    wrong = f"{shown(key)}, with control characters in it or white space around it" if key else "empty"
    raise OptionError(f"{name} is {wrong}; it takes any other text")


def check_unique_id(text: str) -> str:
    """Return the id; raise OptionError for one that no request can name (contract 2.6)."""
    if 0 < len(text) <= LONGEST_ID and not CONTROL_CHARACTER.search(text):
        return text
    raise OptionError(f"uniqueId is {shown(text)}; it takes 1 to {LONGEST_ID} characters, no control characters")


def why_no_user(data: Json, *, needs_password: bool = True) -> str | None:
    """Say why data is no user's (contract 6.2); None if it is."""
    if not isinstance(data, dict):
        return f"a user is an object, not {kind_of(data)}"
    names = [name for name in CREDENTIALS if name in data]
    required = [*(names or CREDENTIALS), *(["password"] if needs_password or "password" in data else [])]
    wrong = [name for name in required if not isinstance(data.get(name), str) or not data[name]]
    if not wrong:
        return None
    return f"member {wrong[0] if names else 'username or email'} must be a text that is not empty"


def check_ttl(seconds: float) -> float:
    """Return a lifetime of tokens in seconds; raise OptionError for one that is none."""
    if 0 < seconds <= LONGEST:
        return float(seconds)
    raise OptionError(f"tokenTtl is {seconds:g}; it takes seconds, more than 0 and up to a hundred years")


def check_saved(project: Project) -> Project:
    """Return the project with its values in the form in which they are kept; raise OptionError for a wrong one."""
    return replace(
        project,
        name=check_project_name(project.name),
        key=check_key(project.key),
        master_key=check_key(project.master_key, "masterKey") if project.master_key else None,
        allowed_origins=parse_origins(project.allowed_origins),
        token_ttl=check_ttl(project.token_ttl),
    )


def parse_origin(text: str) -> str | None:
    """Return an origin as scheme, lower-case host and port, default ports dropped; None for another text."""
    match = ORIGIN.match(text)
    if match is None:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    default = DEFAULT_PORTS.get(scheme)
    port = int(match[3]) if match[3] else default
    is_port = port is None or 0 < port < 65536
    if not is_port or (host.startswith("[") and getattr(parse_address(host), "version", 0) != 6):
        return None
    return f"{scheme}://{host}" if port == default else f"{scheme}://{host}:{port}"


def origin_host(origin: str) -> str:
    """Return the host of an origin, an IPv6 address in its brackets; empty for another text."""
    match = ORIGIN.match(origin)
    return match[2].lower() if match else ""


def is_loopback_origin(origin: str) -> bool:
    """Whether an origin is a page of this machine."""
    return parse_origin(origin) is not None and is_loopback(origin_host(origin))


def parse_origins(texts: Iterable[str]) -> tuple[str, ...]:
    """Read allowed origins, of which each text may have several with commas (contract 2.7); raises OptionError."""
    origins = []
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        if text:
            origin = parse_origin(text.removesuffix("/"))
            if origin is None:
                hint = "; name none to allow every one" if "*" in text else ""
                raise OptionError(f"{shown(text)} is no origin: http:// or https://, host, maybe :port{hint}")
            origins.append(origin)
    return tuple(dict.fromkeys(origins))


def is_loopback(host: str) -> bool:
    """Whether a host name, as in an origin or a Host header, means this machine alone."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host name spells out, in brackets or not; None for any other name."""
    import ipaddress

    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def parse_duration(value: str | float) -> float:
    """Read seconds from a number or from text like 30, 500ms, 10s, 5m, 1h; raises OptionError."""
    match = DURATION.match(value) if isinstance(value, str) else None
    if match:
        value = float(match[1]) * {"ms": 0.001, "m": 60, "h": 3600}.get(match[2], 1)
    if not isinstance(value, str | bool) and 0 <= value <= LONGEST:
        return float(value)
    raise OptionError(f"{shown(value)} is no duration: write 30 (seconds), 500ms, 10s, 5m or 1h")


def parse_moment(text: str, name: str) -> float:
    """Read seconds since 1970 from a time in ISO 8601, UTC if it names no zone; raises OptionError."""
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        # A zone can lead out of the years that Python writes.
        timestamp(seconds)
    except (ValueError, OverflowError):
        raise OptionError(f"{name} {shown(text)} is no time; write 2030-01-01T00:00:00Z") from None
    return seconds


def parse_size(value: str | int) -> int:
    """Read bytes from a number or from text like 100KB or 1MB (1,000,000 bytes); raises OptionError."""
    match = SIZE.match(str(value))
    size = float(match[1]) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}.get((match[2] or "").upper(), 1) if match else 0
    if 1 <= size <= 1e9:
        return round(size)
    raise OptionError(f"{shown(value)} is no size: write 5000 (bytes), 100KB or 1MB, up to 1GB")


def parse_parameters(query: str) -> Parameters:
    """Read a query string; the last of a repeated parameter counts (contract 1.4, 1.5 and 4.2).

    Never raises: a malformed query is refused in its turn, after key, origin and token (contract 5.6).
    """
    # A long one is not remembered: it takes memory, and hardly comes again.
    read = parse_query if len(query) <= LONGEST_REMEMBERED else parse_query.__wrapped__
    return read(query)


@functools.lru_cache(256)
def parse_query(query: str) -> Parameters:
    """Do the work of ``parse_parameters``; the latest queries are remembered."""
    if "%" in query or "+" in query:
        pairs = parse_qsl(query, keep_blank_values=True)
    else:
        # Most queries have nothing to decode, and without parse_qsl they are read sooner.
        pairs = [part.partition("=")[::2] for part in query.split("&")]
    last = dict(pairs)
    is_plain = PARAMETERS.issuperset(last)
    sent = unquote_to_bytes(query) if "%" in query else b""
    # What is not UTF-8 gets lost on the way to a text and back.
    is_utf8 = not sent or sent.decode(errors="ignore").encode() == sent
    return Parameters(
        key=last.get("key"),
        master_key=last.get("masterKey"),
        access_token=last.get("accessToken"),
        unique_ids=tuple([value for name, value in pairs if name == "uniqueId" and value]),
        strategy=last.get("strategy", "force"),
        data_only=last.get("dataOnly") == "true",
        jsonata=last.get("jsonata"),
        from_console=last.get("from") == CONSOLE,
        malformed=not (query.isascii() and is_utf8),
        flags=() if is_plain else tuple(name for name in FLAG_OPERATIONS if last.get(name) == "true"),
        warnings=() if is_plain else look_at_parameters(last),
    )


def split_ids(value: str) -> list[str]:
    """Split a value that is no id as a whole into ids: at commas, without white space around (contract 4.2)."""
    return [part for part in map(str.strip, value.split(",")) if part]


def look_at_parameters(last: Mapping[str, str]) -> tuple[str, ...]:
    """Return warnings of parameters that are ignored as they are written (contract 1.4 and 1.5)."""
    warnings = []
    for name, value in last.items():
        if name in FLAGS:
            if value not in ("true", "false", "0"):
                warnings.append(f"{name}={shown(value, 20)} counts as not set: a flag is set by true alone.")
        elif name not in PARAMETERS:
            meant = SPELLINGS.get(re.sub(r"\[.*|[_-]", "", name[:20]).lower())
            if meant:
                several = " once more for each, or with commas" if meant == "uniqueId" and "[" in name else ""
                warnings.append(f"{shown(name, 20)} counts for nothing: the parameter is called {meant}{several}.")
    return tuple(warnings[:MOST_WARNINGS])


def parse_body(request: Request, deepest: int = MAX_DEPTH) -> bytes:
    """Read the data in a body as JSON; text becomes a string (contract 3.3 and 3.4).

    Raises Refusal for a wrong type, and for a body that is empty, malformed or too large.
    """
    check_encoding(request.headers.get("Content-Encoding"))
    media_type = check_content_type(request.headers.get("Content-Type"))
    body = request.body
    if body is None:
        raise Refusal(Message.TOO_LARGE, "The body is over the limit; raise it with --max-body.")
    if not body:
        raise Refusal(Message.NO_BODY, "Send the data in the body.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Refusal(Message.WRONG_BODY, f"The body is not UTF-8: byte {error.start + 1}.") from None
    return encode(text) if media_type == "text/plain" else parse_json(text, deepest)


# What fetch and XMLHttpRequest send with a text whose type the page does not name.
DEFAULT_TYPE = "text/plain;charset=utf-8"
# What JavaScript's String() makes of undefined, of objects, and of arrays of objects.
NO_VALUE = re.compile(r"(undefined|\[object \w+\](,\[object \w+\])*)\s*\Z")


def look_at_body(request: Request) -> tuple[str, ...]:
    """Return a warning of a body that is valid, and was probably meant to be another value."""
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.lower().replace(" ", "")
    is_json = kind.startswith("application/json")
    if is_json and not (request.body or b"").startswith(b'"'):
        return ()
    try:
        text = decode(parse_body(request))
        if isinstance(text, str) and NO_VALUE.match(text):
            return (f"The body is the text {shown(text, 40)}: something was sent that JSON.stringify had not seen.",)
        value = decode(parse_json(text)) if isinstance(text, str) and text.lstrip()[:1] in ("{", "[") else None
    except Refusal:
        # The body is refused, and that says why; or it is a text that only begins like JSON.
        return ()
    if not isinstance(value, dict | list):
        return ()
    if is_json:
        return (f"The body is a text that holds {kind_of(value)} as JSON: JSON.stringify was called twice.",)
    if kind != DEFAULT_TYPE:
        # The client has named the type itself, so it means a text.
        return ()
    why = f"its Content-Type is {shown(content_type)}, as fetch sends it unless told otherwise"
    return (f"The body is JSON and counts as text, since {why}; send Content-Type: application/json.",)


def check_encoding(encoding: str | None) -> None:
    """Raise Refusal for a body that is compressed."""
    if encoding and encoding.strip().lower() != "identity":
        raise Refusal(Message.WRONG_BODY, f"Content-Encoding {shown(encoding)} is not understood.")


@functools.lru_cache(8)
def check_content_type(kind: str | None) -> str:
    """Return ``application/json`` or ``text/plain``; raise Refusal for anything else."""
    media_type, *options = (part.strip(" \t").lower() for part in (kind or "").split(";"))
    if "," in (kind or "") or media_type not in ("application/json", "text/plain"):
        raise Refusal(
            Message.WRONG_CONTENT_TYPE,
            f"Content-Type is {shown(kind) if kind else 'missing'}; send the header Content-Type: application/json"
            + (", and files with POST to an endpoint for records." if media_type == "multipart/form-data" else "."),
        )
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise Refusal(Message.WRONG_CONTENT_TYPE, f"Charset {shown(value)} is not utf-8.")
    return media_type


def refuse_constant(name: str) -> NoReturn:
    """Raise ValueError for what Python's JSON has beyond RFC 8259: NaN and Infinity."""
    raise ValueError(f"{name} is not JSON")


ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
DECODER = json.JSONDecoder(parse_constant=refuse_constant)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector from walking through many new objects, none of which is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def parse_json(text: str, deepest: int = MAX_DEPTH) -> bytes:
    """Check JSON as RFC 8259 says, nested 512 levels at most (contract 3.4), and write it anew; raises Refusal."""
    try:
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("A byte order mark is not JSON", text, 0)
        with without_collections() if len(text) > MANY_OBJECTS else contextlib.nullcontext():
            value: Json = DECODER.decode(text)
        check_depth(text, deepest)
        # Writing finds what Python reads and JSON cannot hold: 1e400, lone surrogates.
        return encode(value)
    except json.JSONDecodeError as error:
        hint = f"{error.msg}: line {error.lineno} column {error.colno}.{how_it_begins(text)}"
        raise Refusal(Message.WRONG_BODY, hint) from None
    except UnicodeEncodeError:
        raise Refusal(Message.WRONG_BODY, "The body has a lone surrogate.") from None
    except ValueError as error:
        # Python's own words would advise to call sys.set_int_max_str_digits.
        why = "a number has more than 4300 digits" if "digits" in str(error) else str(error)
        raise Refusal(Message.WRONG_BODY, f"Not JSON: {why}.") from None
    except RecursionError:
        raise Refusal(Message.WRONG_BODY, f"Nested deeper than {deepest} levels.") from None


MISTAKEN_FOR_JSON = (
    (re.compile(r"\[object "), "an object was sent without JSON.stringify"),
    (re.compile(r"(undefined|None|True|False)\b"), "a value was sent without JSON.stringify"),
    (re.compile(r"<"), "that is HTML or XML"),
    (re.compile(r"--"), "that is multipart/form-data: leave the Content-Type header out, the client makes it"),
    (re.compile(r"[\[{]?\s*'"), "JSON has double quotes, not single ones"),
    (re.compile(r"\{\s*\w"), "JSON has its names in double quotes"),
    (re.compile(r"[\w.%+\[\]-]+="), "that is a form; send JSON, as JSON.stringify makes it"),
)


def how_it_begins(text: str) -> str:
    """Quote the first word of a body that is no JSON, and say what the body looks like."""
    # A value is not quoted: it may be a password.
    start = text.lstrip()[:100]
    first = re.match(r"[^=:]{0,20}[=:]?", start)
    if not start or first is None:
        return ""
    looks = next((f": {what}" for pattern, what in MISTAKEN_FOR_JSON if pattern.match(start)), "")
    return f" The body begins with {shown(first[0])}{looks}."


def check_depth(text: str, deepest: int = MAX_DEPTH) -> None:
    """Raise ValueError where JSON is nested too deep."""
    # Most bodies have fewer brackets than that in all, and are done with.
    if text.count("[") + text.count("{") <= deepest:
        return
    steps = STRING.sub("", text).encode().translate(BRACKETS, NO_BRACKETS)
    if max(itertools.accumulate(memoryview(steps).cast("b")), default=0) > deepest:
        raise ValueError(f"nested deeper than {deepest} levels")


def count_members(text: str) -> int:
    """Count the members of all objects in JSON."""
    return STRING.sub("", text).count(":")


def encode(value: object) -> bytes:
    """Write JSON as it goes over the wire: compact, UTF-8, text outside ASCII not escaped (contract 7.3)."""
    return ENCODER.encode(value).encode()


def encode_text(text: str) -> bytes:
    """Write a text as JSON; does the same as ``encode``, and quicker."""
    return encode_basestring(text).encode()


def join_array(items: list[bytes]) -> bytes:
    """Write a JSON array of items that are JSON; changes the list."""
    if not items:
        return b"[]"
    # With the brackets joined to it afterwards, a long array would be copied twice.
    items[0] = b"[" + items[0]
    items[-1] += b"]"
    return b",".join(items)


def decode(packed: bytes) -> Json:
    """Read the value of JSON that ``encode`` wrote."""
    value: Json = DECODER.decode(packed.decode())
    return value


def check_strategy(name: str) -> str:
    """Return the name of a strategy; raises Refusal for another (contract 4.3)."""
    if name in STRATEGIES:
        return name
    raise Refusal(Message.WRONG_PARAMETER, f"Strategy {shown(name)} is not one of {', '.join(STRATEGIES)}.")


def apply_strategy(old: bytes, new: bytes, strategy: str) -> bytes:
    """Return the data after a PUT, all as JSON (contract 4.3); raises Refusal."""
    if strategy == "force":
        return new
    before, after = decode(old), decode(new)
    if strategy == "replace" and kind_of(before) == kind_of(after):
        return new
    if strategy == "merge" and isinstance(before, dict) and isinstance(after, dict):
        return encode(merge(before, after))
    hint = f"Strategy {strategy} cannot put {kind_of(after)} onto {kind_of(before)}; force can."
    raise Refusal(Message.WRONG_PARAMETER, hint)


def merge(old: dict[str, Json], new: dict[str, Json]) -> dict[str, Json]:
    """Merge two objects member by member and all the way down; replace everything else (contract 4.3)."""
    merged = dict(old)
    for name, value in new.items():
        before = old.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = merge(before, value) if both else value  # type: ignore[arg-type]
    return merged


JSON_TYPES = MappingProxyType(
    {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
)


def members_of(value: Json) -> dict[str, Json]:
    """Return the members of an object; none for any other value."""
    return value if isinstance(value, dict) else {}


def kind_of(value: Json) -> str:
    """Name the type of a JSON value."""
    return JSON_TYPES.get(type(value), "an object")


def check_kind(value: object, kind: str, name: str) -> Any:
    """Return the value if it fits a Python annotation, given as text; raise OptionError if not."""
    # Most values are of this kind, and a data file may have hundreds of thousands.
    if isinstance(value, str) and kind == "str" and value.isascii():
        return value
    annotation = kind.removesuffix(" | None")
    if annotation == "Json" or (value is None and annotation != kind):
        return value
    # In Python a bool is an int; in JSON it is no number.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation == "bool" and isinstance(value, bool):
        return value
    if annotation == "str" and isinstance(value, str):
        return check_utf8(value, name)
    if annotation == "int" and is_number and isinstance(value, int):
        return value
    if annotation == "float" and is_number:
        return check_finite(cast(float, value), name)
    if annotation in ("Sequence[str]", "tuple[str, ...]") and isinstance(value, list | tuple) and are_texts(value):
        return tuple(value)
    if annotation == "Mapping[str, Json]" and isinstance(value, dict):
        return value
    if annotation == "Mapping[str, str]" and isinstance(value, dict) and are_texts((*value, *value.values())):
        return {check_utf8(key, name): check_utf8(text, name) for key, text in value.items()}
    words = {"bool": "true or false", "str": "a text", "int": "a whole number", "float": "a number"}
    words |= {"Mapping[str, str]": "an object of texts", "Mapping[str, Json]": "an object"}
    given = "missing or null" if value is None else shown(value)
    raise OptionError(f"{name} is {given}; it takes {words.get(annotation, 'a list of texts')}")


def are_texts(values: Iterable[object]) -> bool:
    """Whether all of the values are texts."""
    return all(isinstance(value, str) for value in values)


def check_members(kind: type, values: Mapping[str, object], place: str = "") -> dict[str, Any]:
    """Return the values of a dataclass's fields that are not None; raise OptionError for one of a wrong kind."""
    return {
        item.name: check_kind(values[item.name], str(item.type), place + camel(item.name))
        for item in dataclasses.fields(kind)
        if values.get(item.name) is not None
    }


def check_utf8(text: str, name: str) -> str:
    """Return the text; raise OptionError for one with lone surrogates, which cannot be kept as JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{name} is {shown(text)}, which is not UTF-8") from None
    return text


def check_finite(value: float, name: str) -> float:
    """Return the number as a float; raise OptionError for one that is no number of seconds."""
    if -1e12 < value < 1e12:
        return float(value)
    raise OptionError(f"{name} is {shown(value)}; it takes a finite number below 1e12")


def timestamp(moment: float) -> str:
    """Write a time as the service does: UTC, whole seconds, milliseconds always .000 (contract 3.1)."""
    return write_second(math.floor(moment))


@functools.lru_cache(maxsize=1024)
def write_second(second: int) -> str:
    """Write a whole second; what one status tells of, or one client makes, is mostly of a few."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def new_id() -> str:
    """Make a unique id, key or token: a version-4 UUID without dashes (contract 2.6)."""
    return as_id(os.urandom(16))


def as_id(digits: bytes) -> str:
    """Make a unique id of 16 bytes."""
    id_bytes = bytearray(digits)
    # RFC 9562, section 5.4, has version and variant in these six bits.
    id_bytes[6] = id_bytes[6] & 0x0F | 0x40
    id_bytes[8] = id_bytes[8] & 0x3F | 0x80
    return id_bytes.hex()


def camel(name: str) -> str:
    """Spell a Python name as JSON does: ``others_can_read`` is ``othersCanRead``."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


# - Clock --------------------------------------------------------------------------------------------


ClockState: TypeAlias = "tuple[float, float | None]"  # the ``skew`` and ``frozen`` of a Clock


class Clock:
    """The emulator's time, which the owner can advance and freeze, with alarms and timers that follow it.

    Moments are seconds since 1970, UTC. ``skew`` is by how many seconds the owner has set it ahead of the machine,
    ``frozen`` the machine's time when it was frozen, None while it goes on. ``on_earlier`` is called when the next
    alarm may be due earlier than ``until_next`` said before, with this clock.
    """

    def __init__(
        self, read: Callable[[], float] | None = None, on_earlier: Callable[[Clock], None] = lambda _: None
    ) -> None:
        self._read = read or machine_time
        self._on_earlier = on_earlier
        self._last = self._started = self._read()
        self._lost = 0.0  # seconds that the machine's clock was set back
        self.skew = 0.0
        self.frozen: float | None = None
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def another(self) -> Clock:
        """Make a clock by the same machine's time, not set by anybody yet."""
        return Clock(self._read, self._on_earlier)

    def _machine_time(self) -> float:
        """Read the machine's time; where its clock was set back, time goes on from where it was."""
        # Not time.monotonic(): it stands still while a machine sleeps, and tokens expire all the same.
        reading = self._read()
        if reading < self._last:
            self._lost += self._last - reading
        self._last = reading
        return reading + self._lost

    def now(self) -> float:
        """Return the present moment; it goes back only by ``restore``."""
        return (self._machine_time() if self.frozen is None else self.frozen) + self.skew

    def moments(self) -> tuple[float, float]:
        """Return what ``now`` and ``uptime`` do, by one look at the machine's clock."""
        time = self._machine_time()
        return (time if self.frozen is None else self.frozen) + self.skew, time - self._started

    def timestamp(self) -> str:
        """Return the present moment as the service writes it."""
        return timestamp(self.now())

    def uptime(self) -> float:
        """Return the seconds since the start, without what the owner advanced."""
        return self._machine_time() - self._started

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Call ``action`` at a moment, or at the next ``ring`` if it is past."""
        heappush(self._alarms, (moment, next(self._numbers), action))
        if self._alarms[0][0] == moment:
            self._on_earlier(self)

    def every(self, seconds: float, action: Callable[[], object]) -> None:
        """Call ``action`` every so many seconds, of which a thousandth is the fewest, the first time after as many."""
        # A moment is a float, to which too little adds nothing: the next one would be now for ever.
        seconds = max(seconds, 0.001)
        self._timers.append((seconds, action))
        self._start_timer(self.now(), seconds, action)

    def _start_timer(self, last: float, seconds: float, action: Callable[[], object]) -> None:
        """Call ``action`` at the next multiple of ``seconds`` after ``last``; skip multiples that are past."""
        due = last + seconds * (1 + max(0, (self.now() - last) // seconds))

        def ring() -> None:
            # First, so that an action that raises does not end its timer.
            self._start_timer(due, seconds, action)
            action()

        self.at(due, ring)

    def stop(self) -> None:
        """Forget all alarms and timers, and with them the objects that they would keep in memory."""
        self._alarms.clear()
        self._timers.clear()

    def until_next(self) -> float:
        """Return the seconds until the next alarm; infinite without one, or while the clock is frozen."""
        wait = max(0.0, self._alarms[0][0] - self.now()) if self._alarms else math.inf
        return math.inf if wait and self.frozen is not None else wait

    def ring(self) -> None:
        """Do everything that is due by now, in the order of its moments."""
        now = self.now()
        while self._alarms and self._alarms[0][0] <= now:
            heappop(self._alarms)[2]()

    def advance(self, seconds: float) -> None:
        """Move the time on; what is due by then happens before the call returns."""
        self.skew += seconds
        self.ring()
        # Whoever asked ``until_next`` before would wait too long now.
        self._on_earlier(self)

    def freeze(self) -> None:
        """Stop the clock; ``advance`` still moves it."""
        if self.frozen is None:
            self.frozen = self._machine_time()

    def unfreeze(self) -> None:
        """Let a frozen clock go on from where it stands."""
        if self.frozen is not None:
            self.skew = self.skew + self.frozen - self._machine_time()
            self.frozen = None
            self._on_earlier(self)

    @property
    def state(self) -> ClockState:
        """How the owner has set it, for ``restore``."""
        return self.skew, self.frozen

    def restore(self, state: ClockState) -> None:
        """Set the clock as it was; timers begin anew, other alarms are forgotten."""
        self.skew, self.frozen = state
        self._alarms.clear()
        for seconds, action in self._timers:
            self._start_timer(self.now(), seconds, action)


# - Store --------------------------------------------------------------------------------------------

PROJECTS, ENDPOINTS, SESSIONS, MAILS, WRITTEN = "_projects", "_endpoints", "_sessions", "_mails", "_written"

# The tables of a data file by name, each with its documents by id. In an endpoint's table a document is a Record,
# in every other it is the JSON object of the file.
Document: TypeAlias = "dict[str, Any]"
Tree: TypeAlias = "dict[str, dict[str, Any]]"


class Documents(MutableMapping[str, Any]):
    """A table: documents by id, in order. It is copied on write, so that a checkpoint costs nothing.

    Copies share one dictionary and never change it again; each keeps its own changes beside it, and makes a
    dictionary of its own once the changes are many. Documents themselves are replaced, never changed.
    """

    __slots__ = ("_added", "_changes", "_is_shared", "_shared", "_shares_changes")

    def __init__(self, documents: dict[str, Any] | None = None) -> None:
        self._become({} if documents is None else documents)

    def _become(self, documents: dict[str, Any]) -> None:
        """Take a dictionary that nobody shares, without changes beside it."""
        self._shared = documents
        # New documents, those that replace shared ones, and GONE for shared ones that were deleted.
        self._changes: dict[str, Any] = {}
        # By how many the documents outnumber the shared ones.
        self._added = 0
        self._is_shared = self._shares_changes = False

    def copy(self) -> Documents:
        """Copy the table, whatever its size, in the same short time."""
        twin = Documents(self._shared)
        twin._changes, twin._added = self._changes, self._added
        for table in (self, twin):
            table._is_shared = table._shares_changes = True
        return twin

    def get(self, key: str, default: Any = None) -> Any:
        if key in self._changes:
            document = self._changes[key]
            return default if document is GONE else document
        return self._shared.get(key, default)

    def __getitem__(self, key: str) -> Any:
        document = self.get(key, GONE)
        if document is GONE:
            raise KeyError(key)
        return document

    def __contains__(self, key: object) -> bool:
        return self.get(cast("str", key), GONE) is not GONE

    def __len__(self) -> int:
        return len(self._shared) + self._added

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def items(self) -> ItemsView[str, Any]:
        return self._whole().items()

    def values(self) -> Iterable[Any]:  # type: ignore[override]
        shared, changes = self._shared, self._changes
        if not changes:
            return shared.values()
        # By map, since this takes a third of the time of a new dictionary, and every listing comes here.
        documents = list(map(changes.get, shared, shared.values()))
        if GONE in changes.values():
            documents = [document for document in documents if document is not GONE]
        return documents + [document for key, document in changes.items() if key not in shared]

    def _whole(self) -> dict[str, Any]:
        """Return all documents as a dictionary, which must not be changed."""
        if not self._changes:
            return self._shared
        whole = self._shared | self._changes
        for key in [key for key, document in self._changes.items() if document is GONE]:
            del whole[key]
        return whole

    def __setitem__(self, key: str, document: Any) -> None:
        if self._changes.get(key) is GONE:
            # It comes back at the end, and not at the place that it has among the shared documents.
            self._become(self._whole())
        if not self._is_shared:
            self._shared[key] = document
            return
        self._own_changes()
        if key not in self._changes:
            self._added += key not in self._shared
        self._changes[key] = document
        # In proportion to the table, so that each change bears no more than a few documents of a new dictionary.
        if len(self._changes) > FEW_CHANGES and len(self._changes) > len(self._shared) // 8:
            self._become(self._whole())

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        if not self._is_shared:
            del self._shared[key]
            return
        self._own_changes()
        self._added -= 1
        if key in self._shared:
            self._changes[key] = GONE
        else:
            del self._changes[key]

    def _own_changes(self) -> None:
        """Copy the changes where another table has them too, before one is added."""
        if self._shares_changes:
            self._changes, self._shares_changes = dict(self._changes), False

    def changed(self, other: Documents) -> dict[str, None]:
        """Return the ids whose documents are not the same in both tables, in order."""
        mine: Mapping[str, Any] = self
        theirs: Mapping[str, Any] = other
        if self._shared is other._shared:
            # What neither has changed is the same: the cost is that of the changes, not of the table.
            keys = {**self._changes, **other._changes}
        else:
            mine, theirs = self._whole(), other._whole()
            keys = {**mine, **theirs}
        return {
            key: None for key in keys if (here := mine.get(key)) is not (there := theirs.get(key)) and here != there
        }

    def moved(self, other: Documents) -> set[str]:
        """Return ids in both tables that have another place here than in the other one."""
        if self._shared is other._shared:
            # Shared documents have the same places in both, so only added ones can differ.
            here, there = ([key for key in table._changes if key not in self._shared] for table in (self, other))
        else:
            here, there = list(self), list(other)
        places = {key: place for place, key in enumerate(there)}
        last, moved = -1, set()
        for key in here:
            place = places.get(key, last)
            if place < last:
                moved.add(key)
            last = max(last, place)
        return moved

    def put_behind(self, documents: Mapping[str, tuple[str, Any]]) -> None:
        """Insert documents, or move them: each key is the id of the document to go behind, ``""`` the front."""
        whole: dict[str, Any] = {}
        replaced = {key for key, _ in documents.values()}

        def follow(key: str) -> None:
            while key in documents:
                key, document = documents[key]
                whole[key] = document

        follow("")
        for key, document in self._whole().items():
            if key not in replaced:
                whole[key] = document
                follow(key)
        self._become(whole)


GONE = object()  # stands for a document that was deleted
FEW_CHANGES = 256
NO_DOCUMENTS = Documents()
Tables: TypeAlias = "dict[str, Documents]"  # by name


def grow(tree: Mapping[str, Mapping[str, Any]]) -> Tables:
    """Make tables of a tree, or copy tables; changes of the one do not show in the other."""
    return {
        name: table.copy() if isinstance(table, Documents) else Documents(dict(table)) for name, table in tree.items()
    }


class Step(NamedTuple):
    """One change of the tables, which the journal holds as one JSON array.

    It puts ``document`` into ``table``; without a document it deletes the one of that id, without an id the
    whole table. ``after`` is the id of the document to go behind, empty for the front; without it, a document
    replaces the one of its id, or goes to the end.
    """

    table: str
    document_id: str | None = None
    document: Document | Record | None = None
    after: str | None = None


def sample_project() -> Tree:
    """Return what a new data file begins with: the project of the service's documentation (contract 1.6)."""
    return {
        PROJECTS: {SAMPLE_KEY: {"name": SAMPLE_PROJECT}},
        ENDPOINTS: {
            "examples/unsecure-endpoint": {"project": SAMPLE_KEY},
            "examples/auth": {"project": SAMPLE_KEY, "authentication": True},
            "secure-endpoint": {"project": SAMPLE_KEY, "secure": True},
        },
    }


# Errors of rename(2) and unlink(2) for a mount point, and for a file in a folder of another user.
# Windows says EACCES for one that is open.
NOT_REPLACED = (errno.EBUSY, errno.EXDEV, errno.EPERM, *(() if fcntl else (errno.EACCES,)))
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
MOST_TRIES = 20  # for a lock
# Far behind the process id in the file: Windows lets nobody else read what is locked.
LOCKED_BYTE = 2**30
CONTINUED = b'{"continues":%d}\n'
CONTINUES = re.compile(rb'\{"continues":(\d+)\}\Z')
PAGE = 4096
MARK = b"\n// rested-emulator writes over the first %d bytes the %d below, whose sum is %d; its next start goes on\n"
MARKED = re.compile(re.escape(MARK).replace(b"%d", rb"(\d+)"))


def open_bytes(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file for bytes, on every system."""
    # Windows has O_BINARY, and without it writes a carriage return before each line feed.
    return os.open(path, flags | getattr(os, "O_BINARY", 0), mode)


def delete_file(path: str) -> None:
    """Delete a file, if it is there and the system lets it."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def open_private(path: str, flags: int) -> int:
    """Open a file that no other user may read; an ``opener`` for ``open``."""
    return open_bytes(path, flags, 0o600)


class Lock:
    """A locked file beside a data file, which keeps other emulators off it."""

    def __init__(self, owned: str) -> None:
        self._owned = owned
        self._path = f"{owned}.lock"
        self.file: int | None = None  # its descriptor, while it is locked
        self._why_none = ""  # where the disk has no locks

    def take(self) -> bool:
        """Make the file and lock it; raises OptionError where another emulator has, or OSError.

        Tells whether the disk gives a file an inode that lasts.
        """
        file, tries = self._open(), 1
        # The emulator before this one may have deleted the file after it was opened here: that is no lock. On a disk
        # that gives the same file another inode each time, the tries run out.
        while tries < MOST_TRIES and not is_at(self._path, file):
            os.close(file)
            file, tries = self._open(), tries + 1
        self.file = file
        if self._why_none:
            told = "%s: the disk has no locks (%s), so nothing keeps a second emulator off it"
            log.warning(told, self._owned, self._why_none)
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        return tries < MOST_TRIES and os.fstat(file).st_ino != 0

    def _open(self) -> int:
        try:
            file = open_bytes(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            place, hint = self._owned, ""
            if error.errno == errno.ENOENT:
                hint = f"; a data file is made where it is missing, its folder {os.path.dirname(self._owned)} is not"
            elif error.errno == errno.EACCES and os.path.exists(self._path):
                place, hint = self._path, "; it is another user's, whose emulator runs, or was killed: then delete it"
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                hint = "; its folder has to take its lock and its journal"
            raise OSError(error.errno, f"{error.strerror}{hint}", place) from None
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif msvcrt:
                self._lock_byte(file, msvcrt.LK_NBLCK)  # type: ignore[attr-defined]
            else:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        except (BlockingIOError, PermissionError):
            owner = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            hint = "stop that one, name another data file, or use --memory"
            raise OptionError(f"{self._owned} is in use by another emulator, process {owner}; {hint}") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(file)
                raise OSError(error.errno, error.strerror, self._owned) from None
            self._why_none = str(error.strerror)
        return file

    def _lock_byte(self, file: int, mode: int) -> None:
        """Lock or unlock, on Windows, the one byte that stands for the whole file."""
        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, mode, 1)  # type: ignore[attr-defined]
        finally:
            os.lseek(file, 0, os.SEEK_SET)

    def release(self) -> None:
        """Delete the file and let go of it, if it is locked."""
        if self.file is None:
            return
        if fcntl:
            # While it is still locked: after that, it may be the lock of the next emulator.
            delete_file(self._path)
        elif msvcrt:
            with contextlib.suppress(OSError):
                self._lock_byte(self.file, msvcrt.LK_UNLCK)  # type: ignore[attr-defined]
        self.leave()
        if not fcntl:
            # Windows deletes no file that is open, so this does not hit the lock of the next emulator.
            delete_file(self._path)

    def leave(self) -> None:
        """Close the file; after a fork the lock stays the parent's."""
        # To unlock it would take it from the parent: flock(2) belongs to the open file, which both have.
        if self.file is not None:
            os.close(self.file)
            self.file = None


class FileStamp(NamedTuple):
    """What stat(2) says of a file: size in bytes, times of modification and of change in nanoseconds, inode.

    ``sum`` is the CRC-32 of its bytes, where these were read.
    """

    size: int
    modified: int
    changed: int
    inode: int
    sum: int | None = None

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Journal:
    """What has changed since the data file was written, on disk: a line of JSON for the steps of a verb.

    It says which content of the data file it continues, by a line with the sum of that content. ``size`` is that of
    what was appended, in bytes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._file: int | None = None
        self._continued: int | None = None  # the last sum in it

    def read(self) -> tuple[list[Step], list[int]]:
        """Return the steps in a journal that was left, and the sums of what it continues, which may be none.

        A last line without its end was never acknowledged and is left out. Raises DataFileError for
        anything else that is no journal.
        """
        try:
            with open(self.path, "rb") as file:
                *lines, torn = file.read().split(b"\n")
        except FileNotFoundError:
            return [], []
        if torn:
            log.info("%s: the last line is torn; what it held was never acknowledged", self.path)
        steps: list[Step] = []
        sums: list[int] = []
        for number, line in enumerate(lines, 1):
            if match := CONTINUES.match(line):
                sums.append(int(match[1]))
            else:
                steps += read_steps(self.path, number, line)
        self.size = os.path.getsize(self.path) - len(torn)
        if torn:
            os.truncate(self.path, self.size)
        self._continued = sums[-1] if sums else None
        return steps, sums

    def is_there(self) -> bool:
        """Whether it is open where it was, with all that was appended. Raises OSError."""
        if self._file is None:
            return False
        status = os.fstat(self._file)
        if status.st_size > self.size:
            # A torn line, which a full disk did not let be taken back.
            os.ftruncate(self._file, self.size)
        return status.st_nlink > 0 and status.st_size >= self.size

    def open(self) -> None:
        """Open it to append to it. Raises OSError."""
        self._file = open_bytes(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self.size:
            # What is behind is a torn line.
            os.ftruncate(self._file, self.size)
        else:
            self.size, self._continued = os.fstat(self._file).st_size, None

    def append(self, line: bytes, continues: int | None) -> None:
        """Append a line, behind one with the sum that it continues if the last sum is another. Raises OSError."""
        assert self._file is not None
        if continues not in (None, self._continued):
            line = CONTINUED % continues + line
        # In one write(2), and not to be repeated: half a line is taken back, and the change refused.
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += len(line)
        self._continued = continues

    def shorten(self, done: int, continues: int | None) -> None:
        """Cut off the first bytes, whose changes the data file has by now. Raises OSError."""
        draft = f"{self.path}.tmp"
        with open(self.path, "rb") as file:
            file.seek(done)
            rest = CONTINUED % continues + file.read()
        try:
            with open(draft, "wb", buffering=0, opener=open_private) as file:
                write_all(file, rest)
            # Windows replaces no file that is open.
            self.close()
            os.replace(draft, self.path)
            self.size = len(rest)
        except OSError as error:
            # The long one stays, and does no harm: a step that is done twice is done.
            delete_file(draft)
            if error.errno not in NOT_REPLACED:
                raise

    def drop(self) -> None:
        """Delete it, as the data file has everything. Raises OSError; it may stay, and does no harm."""
        self.close()
        try:
            os.unlink(self.path)
        except OSError as error:
            if error.errno in NOT_REPLACED:
                # It is mounted by itself, in a container.
                os.truncate(self.path, 0)
            elif error.errno != errno.ENOENT:
                raise
        self.size = 0

    def close(self) -> None:
        """Close it; to append, it is opened again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class JsonFile(Storage):
    """A TinyDB storage that keeps the tables in memory, and on disk as a data file and a journal.

    From TinyDB are the layout of the data file, ``{table: {document id: document}}``, and the two classes that
    may be replaced: this Storage, and the Table (see Records). All else is ours, since TinyDB writes the whole
    file at every change: what changes is appended to ``<data file>.journal`` before it is answered, a line of
    JSON for the steps of a verb; the data file is written anew now and then, and then the journal is deleted.

    Without a ``path`` nothing is kept. Nothing is fsynced but the data file: a killed process loses
    nothing that the system has taken, a power cut may lose what the journal holds.

    A person may edit the data file meanwhile. While it is ``watched``, an edit that was not taken over
    is never overwritten: what the emulator has then goes to ``<data file>.kept`` when it stops. An edit
    shows in the file's stamp, and in its sum if the stamp has changed or the file is to be replaced:
    a copy may bring old times along, and some disks count time in seconds.
    """

    def __init__(self, path: str | None, tree: Mapping[str, Mapping[str, Any]], *, watched: bool = False) -> None:
        # The name as it was given, whatever the working directory may become, and the file that it led to: a link
        # is followed, not replaced. Without a file, both are empty.
        self._name = os.path.join(os.getcwd(), path) if path else ""
        self.path = os.path.realpath(path) if path else ""
        self.journal = Journal(f"{self.path}.journal")
        self.tables = grow(tree)
        self.changed = False
        self._watched = watched and path is not None
        # The data file as it was last read or written: its stamp, sum and tables.
        self._stamp_then: FileStamp | None = None
        self._had_name = True  # when it was read, or since it was made
        self._sum: int | None = None
        self._base: Tables = {}
        # The data file as somebody else wrote it.
        self._edited: FileStamp | None = None
        self._lock = Lock(self.path)
        self._has_inodes = True
        self._was_quiet = False
        self._was_there = True
        self._saves = 0
        self._told: set[str] = set()

    def lock(self) -> None:
        """Keep other emulators off this data file; raises OptionError where one has it, or OSError."""
        if not self._lock.take():
            self._forget_inodes()
        # What an emulator that was killed has left.
        for draft in (f"{self.path}.tmp", f"{self.path}.draft", f"{self.journal.path}.tmp"):
            delete_file(draft)
            if os.path.lexists(draft):
                raise OSError(errno.EEXIST, "it stands where the data file is drafted; delete it", draft)

    def _tell(self, text: str, *values: object) -> None:
        """Log a warning, the first time only."""
        if text not in self._told:
            self._told.add(text)
            log.warning(text, *values)

    def _forget_inodes(self) -> None:
        """Compare files without their inodes, on a disk that gives the same file another one each time."""
        self._has_inodes = False
        self._tell("%s: the disk has no inodes that last, so an edit is known by size, time and sum alone", self.path)

    def load(self, path: str) -> None:
        """Read the data file, by the name it was given. Raises DataFileError, or OSError."""
        # For writing, so that a file that cannot be written fails now and not at the first change.
        try:
            os.close(open_bytes(path, os.O_RDWR))
        except OSError as error:
            hint = "; with --memory it is only read" if os.access(path, os.R_OK) else ""
            raise OSError(error.errno, f"{error.strerror}{hint}", path) from None
        stamp = self._summed()
        self.tables = grow(load_tree(path))
        self.remember(grow(self.tables), stamp)
        # Some disks count no names.
        self._had_name = os.stat(self.path).st_nlink > 0

    def _stamp(self) -> FileStamp | None:
        """Return the present stamp of the data file; None if there is none.

        A link in its place, or a name that leads to another file by now, has a stamp of its own.
        """
        try:
            stamp = FileStamp.of(os.lstat(self._name if self._leads_elsewhere() else self.path))
        except OSError:
            return None
        return stamp if self._has_inodes else stamp._replace(inode=0)

    def _leads_elsewhere(self) -> bool:
        """Whether the name that was given leads to another file by now."""
        if os.path.islink(self.path):
            return True
        return os.path.lexists(self._name) and os.path.realpath(self._name) != os.path.realpath(self.path)

    def _why_no_place(self) -> str | None:
        """Say why what is in the data file's place may be neither read nor replaced; None if it may."""
        if self._leads_elsewhere():
            return f"leads to {os.path.realpath(self._name)} by now; start anew to use that, or put the data file back"
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            return "is no regular file by now; put the data file back"
        if self._is_unlinked():
            return "was replaced outside of its mount, where nobody sees what is written here; mount its folder instead"
        return None

    def _is_unlinked(self) -> bool:
        """Whether the data file has no name any more, as one that is mounted by itself and replaced on the host."""
        try:
            return self._had_name and os.stat(self.path).st_nlink == 0
        except OSError:
            return False

    def _summed(self) -> FileStamp | None:
        """Return the data file's stamp with its sum, after finishing a write that was killed. Raises OSError."""
        finish_writing(self.path)
        stamp, total = self._stamp(), sum_of(self.path)
        return None if stamp is None or total is None else stamp._replace(sum=total)

    def remember(self, tables: Tables, stamp: FileStamp | None) -> None:
        """Take note of what the data file holds: these tables, and of its stamp with its sum."""
        self._stamp_then = stamp._replace(sum=None) if stamp else None
        self._sum = stamp.sum if stamp else None
        self._edited = None
        self._base = tables if self._watched else {}

    def edit(self) -> FileStamp | None:
        """Return the data file's stamp if somebody else has written it; None if not, or if it is not watched."""
        stamp = self._stamp() if self._watched else None
        if stamp is None or stamp == self._stamp_then:
            return None
        if stamp == self._edited:
            return stamp
        if self._leads_elsewhere() or self._is_unlinked() or self._sum is None or self._sum_now() != self._sum:
            self._edited = stamp
            return stamp
        # The content is the same: the file was only touched, or the disk has given it another inode.
        if self._stamp_then and stamp._replace(inode=self._stamp_then.inode) == self._stamp_then:
            self._forget_inodes()
            stamp = stamp._replace(inode=0)
        self._stamp_then = stamp
        return None

    def _sum_now(self) -> int | None:
        """Return the present sum of the data file, after finishing a write that was killed, if that can be."""
        with contextlib.suppress(OSError):
            finish_writing(self.path)
        return sum_of(self.path)

    def read_edit(self) -> tuple[list[Step], Tables, FileStamp | None]:
        """Return the steps that an edit of the data file means, and what to ``remember`` once they are done.

        A person has edited what the file held, so the edit is compared with that: changes that are in the
        journal alone stay. Raises DataFileError, or OSError.
        """
        if why := self._why_no_place():
            raise DataFileError(f"{self._name}: {why}")
        stamp = self._summed()
        edited, _ = read_data_file(self.path)
        pairs = [(name, self._base.get(name, NO_DOCUMENTS), edited.get(name, {})) for name in {**self._base, **edited}]
        return [step for pair in pairs for step in edit_of(*pair)], grow(edited), stamp

    def steps_in_journal(self) -> tuple[list[Step], bool]:
        """Read the journal of an emulator that was killed, and tell whether it continues this data file."""
        steps, sums = self.journal.read()
        # Version 0.1.0 wrote no sums.
        return steps, self._sum in sums or not sums

    def commit(self, steps: Sequence[Step]) -> None:
        """Append the steps to the journal, all or none; raises Refusal where the disk refuses."""
        if not self.path:
            return
        line = b"[%b]\n" % b",".join([pack_step(step) for step in steps])
        try:
            self._append(line)
        except OSError as error:
            raise not_stored(error, self.journal.path) from None
        self._was_quiet = False

    def _append(self, line: bytes, continues: int | None = None) -> None:
        """Append a line to the journal, which continues the data file, or what it is about to be. Raises OSError."""
        if not self.journal.is_there():
            self._open_journal()
        self.journal.append(line, self._sum if continues is None else continues)

    def _open_journal(self) -> None:
        """Open the journal to append to it; write the data file first if that is gone, or the journal was cut."""
        self.journal.close()
        size = os.path.getsize(self.journal.path) if os.path.exists(self.journal.path) else 0
        if self._stamp() is None or size < self.journal.size:
            self.changed = True
            self.save()
            if self.changed:
                raise OSError(errno.EBUSY, "the journal is gone, and the data file has an edit that is not taken over")
        self.journal.open()

    def read(self) -> Tree:
        """Return the live tables, for TinyDB: a copy would cost every write the whole tree."""
        return cast("Tree", self.tables)

    def write(self, data: object) -> None:
        """Take note of a change of the tables, which TinyDB has made in place."""
        self.changed = True

    def begin_save(self) -> Draft | None:
        """Return a draft to be written and handed to ``end_save``, if it is time for one; changes may come meanwhile.

        It is time when nothing changed since the last call, or when the journal has outgrown the data file.
        """
        saved = self._stamp_then.size if self._stamp_then else 0
        is_time = self._was_quiet or self.journal.size > max(saved, 2**20)
        was_there, self._was_there = self._was_there, self._stamp() is not None
        self._was_quiet = True
        # vim moves a file away before it writes the new one: what came back in between, the new one would take away.
        has_just_gone = was_there and not self._was_there
        if not is_time or has_just_gone or not self.path or not self._wants_saving():
            return None
        return self._draft("draft")

    def _draft(self, ending: str) -> Draft:
        self._saves += 1
        path = f"{self.path}.{ending}"
        return Draft(self.path, path, grow(self.tables), self._saves, self.journal.size, self._watched)

    def end_save(self, draft: Draft, written: tuple[FileStamp, int | None]) -> None:
        """Put a written draft in the place of the data file; the journal keeps what came since. Raises OSError.

        ``written`` is what ``Draft.write`` returned. A draft is deleted unused if something else was saved
        meanwhile, or the data file edited.
        """
        stamp, replaced_sum = written
        try:
            if draft.number != self._saves or self._is_edited(replaced_sum):
                return
            has_more = self.journal.size != draft.journaled
            if has_more:
                # A kill may come between the two files: then the long journal has to continue the new data file too.
                self._append(b"", stamp.sum)
            self.remember(draft.tables, self._replace(draft.path, stamp))
            if has_more:
                self.journal.shorten(draft.journaled, self._sum)
            else:
                self.drop_journal()
        finally:
            delete_file(draft.path)

    def _is_edited(self, total: int | None) -> bool:
        """Whether somebody else has written the data file, which has this sum; None if there is no file."""
        if self._watched and total not in (None, self._sum):
            # An edit within the time that the disk's clock takes to move on leaves the stamp as it was.
            self._stamp_then = None
        return self.edit() is not None

    def _wants_saving(self) -> bool:
        """Whether the data file lacks something, and may be written."""
        return (self.changed or self._stamp() is None) and self.edit() is None

    def save(self) -> None:
        """Write the data file if anything changed: whole and at once, or not at all. Raises OSError."""
        if not self.path or not self._wants_saving():
            return
        # Under a name of its own, since another thread may be writing the draft of ``begin_save``.
        draft = self._draft("tmp")
        self.end_save(draft, draft.write())

    def _replace(self, draft: str, written: FileStamp) -> FileStamp:
        """Let a draft take the data file's place, mode and owner, and return its stamp there. Raises OSError."""
        try:
            if why := self._why_no_place():
                raise OSError(errno.EINVAL, why)
            # Some disks have none of these, and the first save replaces no file.
            with contextlib.suppress(OSError):
                before = os.stat(self.path)
                os.chmod(draft, stat.S_IMODE(before.st_mode))
                if os.name != "nt":  # in a container root writes the files of another user, who is to edit them
                    os.chown(draft, before.st_uid, before.st_gid)
            is_in_place = self._put_in_place(draft, self.path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None
        stamp = self._stamp()
        # Size or time of modification have changed: somebody has written the file since.
        if stamp is None or stamp.size != written.size or (not is_in_place and stamp.modified != written.modified):
            return written
        # A rename changes the time of change, and writing in place everything.
        return stamp._replace(sum=written.sum)

    def _put_in_place(self, draft: str, path: str) -> bool:
        """Let a draft replace a file, and tell whether it had to be copied into it instead. Raises OSError."""
        try:
            os.replace(draft, path)
        except OSError as error:
            if error.errno not in NOT_REPLACED:
                raise
            with open(draft, "rb") as file:
                write_over(path, file.read())
            os.unlink(draft)
            hint = "if it is mounted by itself, mount its folder: the journal beside it has to last as long as it does"
            self._tell(f"%s cannot be replaced (%s), so it is written in place; {hint}", path, error.strerror)
            return True
        return False

    def drop_journal(self) -> None:
        """Delete the journal, as the data file has everything. Raises OSError; it may stay, and does no harm."""
        self.changed = False
        self.journal.drop()

    def close(self) -> None:
        """Save, close what is open and release the lock. Raises OSError; then the journal still has everything.

        An edit that is not taken over stays, and so does the journal: once the edit is mended, the next
        start reads both.
        """
        try:
            self.save()
            if self.edit():
                write_tree(self.path, f"{self.path}.kept.tmp", self.tables)
                self._put_in_place(f"{self.path}.kept.tmp", f"{self.path}.kept")
                told = "%s was edited, and that is not taken over; what the emulator had is in %s.kept"
                log.warning(told, *[self.path] * 2)
        finally:
            self.unlock()

    def unlock(self) -> None:
        """Close what is open and release the lock, saving nothing."""
        self._lock.release()
        self.journal.close()

    def leave_to_parent(self) -> None:
        """Close what is open; after a fork the lock stays the parent's."""
        self.journal.close()
        self._lock.leave()


class Draft(NamedTuple):
    """A data file to be: the tables, the number of the save, and how many bytes of the journal are in them."""

    data_path: str
    path: str
    tables: Tables
    number: int
    journaled: int
    is_watched: bool

    def write(self) -> tuple[FileStamp, int | None]:
        """Write the draft, in any thread; return its stamp and the sum of the data file to replace. Raises OSError."""
        stamp = write_tree(self.data_path, self.path, self.tables)
        return stamp, sum_of(self.data_path) if self.is_watched else None


def is_at(path: str, descriptor: int) -> bool:
    """Whether an open file is the one at that path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def write_tree(path: str, draft: str, tree: Tables) -> FileStamp:
    """Write tables to a draft that no more users may read than the file, or leave none. Raises OSError for the file."""
    total = 0
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o666
        with open(draft, "wb", opener=lambda name, flags: open_bytes(name, flags, mode)) as file:
            for block in blocks_of(tree):
                total = zlib.crc32(block, total)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return FileStamp.of(os.fstat(file.fileno()))._replace(sum=total)
    except OSError as error:
        delete_file(draft)
        raise OSError(error.errno, error.strerror, path) from None


def sum_of(path: str) -> int | None:
    """Return the CRC-32 of a file's bytes; None for what is no regular file or cannot be read."""
    # To open a pipe would wait for its writer.
    if not os.path.isfile(path):
        return None
    total = 0
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
        return total
    return None


def write_over(path: str, content: bytes) -> None:
    """Write a file in place, so that a kill at any moment leaves its old content or the new one. Raises OSError.

    The new content is written behind the old one first, then over it. Between the two stands a mark, by which
    ``finish_writing`` knows what to do; it begins a page, so that the system writes it whole or not at all.
    Once the new content is on the disk behind the old one it is safe, so what fails after that is only logged.
    """
    finish_writing(path)
    with open(path, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            file.seek(-(-max(size, len(content)) // PAGE) * PAGE)
            write_all(file, MARK % (size, len(content), zlib.crc32(content)) + content)
            end = file.tell()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
        if os.fstat(file.fileno()).st_size != end:
            raise OSError(errno.EBUSY, "somebody else has written it meanwhile")
        try:
            write_and_cut(file, content)
        except OSError as error:
            log.warning("%s: %s, amid writing in place; the next start, or the next writing, goes on", path, error)


def write_and_cut(file: FileIO, content: bytes) -> None:
    """Write the content, which already stands further behind, over the beginning of a file, and cut the rest."""
    file.seek(0)
    write_all(file, content)
    # Before the cut: on the disk, one of the two has to be whole.
    os.fsync(file.fileno())
    # Never to lengthen what somebody else has written meanwhile.
    if os.fstat(file.fileno()).st_size > len(content):
        file.truncate()
    os.fsync(file.fileno())


def finish_writing(path: str) -> None:
    """Finish a ``write_over`` that was killed, or undo it. Raises OSError."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        whole = file.read()
    place = whole.find(MARK[:20])
    mark = MARKED.match(whole, place) if place >= 0 and place % PAGE == 0 else None
    if mark is None:
        return
    size, new_size, total = map(int, mark.groups())
    content = whole[mark.end() :]
    with open(path, "r+b", buffering=0) as file:
        if len(content) < new_size:
            file.truncate(size)
        elif len(content) == new_size and zlib.crc32(content) == total:
            write_and_cut(file, content)


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of the content to a file without a buffer, whose ``write`` may take less."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def blocks_of(tree: Tables) -> Iterator[bytes]:
    """Write tables as JSON with a line for each document: quick to do, and fit for eyes and diffs.

    The last line has the sum of all before, by which ``load_written`` knows that nobody edited the file.
    """
    total = 0
    opening = b"{"
    for name, table in tree.items():
        lines = (b"  %b: %b" % (encode_text(key), pack_document(document)) for key, document in table.items())
        block, comma = b"%b\n%b: {\n" % (opening, encode_text(name)), b""
        while batch := list(itertools.islice(lines, BATCH)):
            block += comma + b",\n".join(batch)
            total = zlib.crc32(block, total)
            yield block
            block, comma = b"", b",\n"
        block += b"\n}" if table else b"}"
        total = zlib.crc32(block, total)
        yield block
        opening = b","
    yield b'%b\n"%b": {"by": {"emulator": %b, "sum": %d}}\n}\n' % (
        opening, WRITTEN.encode(), encode_text(__version__), total,
    )  # fmt: skip


def pack_document(document: Document | Record) -> bytes:
    """Write a document as data file and journal have it: a record with the members that clients do not see."""
    if not isinstance(document, Record):
        return encode(document)
    inside = document.more or {}
    if document.owner:
        inside = {"owner": document.owner} | inside
    return b"%b,%b" % (document.wire[:-1], encode(inside)[1:]) if inside else document.wire


def pack_step(step: Step) -> bytes:
    """Write a step as the journal has it."""
    table, document_id, document, after = step
    parts = [encode_text(table), encode(document_id), b"null" if document is None else pack_document(document)]
    return b"[%b]" % b",".join(parts if after is None else [*parts, encode_text(after)])


def edit_of(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Step]:
    """Return the steps that turn one table of a data file into another; their order does not count."""
    yield from (Step(name, key) for key in before if key not in after)
    yield from (Step(name, key, document) for key, document in after.items() if before.get(key) != document)


def read_steps(path: str, number: int, line: bytes) -> list[Step]:
    """Read the steps in a line of a journal; raises DataFileError with its place."""
    place = f"{path}: line {number}"
    try:
        steps = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataFileError(f"{place} column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{place} column 1: {error}") from None
    nothing = type(None)
    shapes = ((str, nothing, nothing), (str, str, nothing), (str, str, dict), (str, str, dict, str))
    for step in steps if isinstance(steps, list) else [None]:
        if isinstance(step, list) and tuple(map(type, step)) in shapes:
            continue
        raise DataFileError(f"{place} column 1: {shown(step, 60)} is no step of a journal")
    try:
        return [
            Step(table, key, None if document is None else read_document(table, key, document), *after)
            for table, key, document, *after in steps
        ]
    except (OptionError, UnicodeEncodeError) as error:
        raise DataFileError(f"{place} column 1: {error}") from None


MOST_MAILS = 1000
MAIL_TEXTS = ("endpoint", "user", "email", "template_name", "html")
BATCH = 1000  # documents in a block that is written at once
RECORD_MEMBERS = ("data", "uniqueId", "updatedAt", "createdAt", "owner")
LAST_LINE = re.compile(rb',\n"_written": \{"by": \{"emulator": "[^"]*", "sum": (\d+)\}\}\n\}\n\Z')
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|[^\s\[\]{}",:]+')


def load_tree(path: str) -> Tree:
    """Read a data file (sample_data/REFERENCE.md, "The data file"). Raises DataFileError with the place, or OSError."""
    tree, is_edited = read_data_file(path)
    if is_edited:
        tell_dropped(path, drop_gone(tree))
    return tree


def read_data_file(path: str) -> tuple[Tree, bool]:
    """Read a data file, and tell whether a person has edited it; raises as ``load_tree`` does."""
    with without_collections():
        try:
            written = load_written(path)
            return (load_edited(path), True) if written is None else (complete_tree(written, has_users=True), False)
        except OptionError as error:
            raise DataFileError(f"{path}: {error}") from None


# A record as clients get it: the last member is a time, and has no quote inside.
PLAIN_LINE = re.compile(rb'  "([^"\\]*)": (\{.*","createdAt":"[^"]{24}"\}),?\n')


def load_written(path: str) -> Tree | None:
    """Read a data file that is as ``blocks_of`` wrote it; None if somebody edited it.

    What the emulator wrote is valid, and has a line for each document, so records need not be parsed again.
    """
    tree: Tree = {}
    name, is_endpoint = "", False
    table: dict[str, Any] = {}
    # In a third of the time of Record(...), which counts with 100,000 records.
    make = functools.partial(tuple.__new__, Record)
    with open(path, "rb") as file:
        if not stands_as_written(file):
            return None
        for line in file:
            if is_endpoint and (plain := PLAIN_LINE.fullmatch(line)):
                key = plain[1].decode()
                table[key] = make((key, plain[2], None, None))
            elif line[:3] == b'  "':
                [(key, document)] = json.loads(b"{%b}" % line.rstrip(b",\n")).items()
                table[key] = read_document(name, key, document)
            elif line[:1] == b'"':
                text, _, _ = line.partition(b": {")
                name = json.loads(text)
                table = tree[name] = {}
                is_endpoint = not name.startswith("_")
    del tree[WRITTEN]
    return tree


def stands_as_written(file: BinaryIO) -> bool:
    """Whether the last line of a data file has the sum of all before; leaves the file at its beginning."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 200))
    match = LAST_LINE.search(file.read())
    if match is None:
        return False
    left, total = end - len(match[0]), 0
    file.seek(0)
    while left > 0 and (block := file.read(min(left, 2**20))):
        total = zlib.crc32(block, total)
        left -= len(block)
    file.seek(0)
    return total == int(match[1])


def load_edited(path: str) -> Tree:
    """Read a data file that a person wrote, and check all of it. Raises DataFileError, or OptionError."""
    with open(path, "rb") as file:
        text = decode_text(file.read())
    try:
        tree = check_tree(parse_tree(text))
    except json.JSONDecodeError as error:
        raise DataFileError(f"{path}: {why_no_json(text, error)}") from None
    except Misfit as error:
        raise DataFileError(f"{path}: {place_in(text, find_in(text, error.way))}: {error}") from None
    except (ValueError, RecursionError):
        raise DataFileError(f"{path}: {find_misfit(text)}") from None
    warn_of_unknown(path, tree)
    return tree


def read_data(data: Mapping[str, Json], projects: Mapping[str, Any]) -> Tree:
    """Check a data file that a verb was given, ``projects`` count where it has none. Raises OptionError with the place.

    As of a file on disk, what belongs to users who are not there is dropped if anybody has edited it.
    """
    name = "the data that was given"
    try:
        # A copy, since a test in Python goes on with its own.
        given = json.loads(encode(data))
        with without_collections():
            tree = check_tree(given if given.get(PROJECTS) else given | {PROJECTS: dict(projects)})
    except Misfit as error:
        raise OptionError(f"{way_in(given, error.way)}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"data cannot be kept as JSON: {error}") from None
    warn_of_unknown(name, tree)
    if not is_as_written(given):
        tell_dropped(name, drop_gone(tree))
    return tree


def is_as_written(given: Tree) -> bool:
    """Whether a decoded data file is as the emulator wrote it, which its last line has the sum of."""
    tables = {name: table for name, table in given.items() if name != WRITTEN}
    if WRITTEN not in given or not all(isinstance(table, dict) for table in tables.values()):
        return False
    *_, last = blocks_of(grow(tables))
    return bool(json.loads(b'{"": 0' + last)[WRITTEN] == given[WRITTEN])


def way_in(data: Any, way: Iterable[str | int]) -> str:
    """Write the way to a part of a data file: ``data["notes/open"]["a1"]``."""
    place = "data"
    for step in way:
        if isinstance(data, dict) and isinstance(step, int):
            step = list(data)[step]
        data = data[step]
        place += f"[{encode(step).decode()}]"
    return place


def check_data_once(text: str) -> None:
    """Raise OptionError, with the place, where the data file in a verb's arguments says something twice."""
    for name, _, value in parts_of(text, skip(text, 0, SPACES)):
        if name == "data":
            check_once(text, value)


def warn_of_unknown(path: str, tree: Tree) -> None:
    """Say in the log which tables and options of a data file mean nothing to the emulator."""
    for name in tree:
        if name.startswith("_") and name not in (PROJECTS, ENDPOINTS, SESSIONS, MAILS):
            log.warning("%s: table %s is kept, and means nothing to the emulator", path, shown(name))
    for table, kind, id_field in ((PROJECTS, Project, "key"), (ENDPOINTS, Endpoint, "name")):
        options = {camel(item.name) for item in dataclasses.fields(kind)} - {id_field}
        for key, document in tree.get(table, {}).items():
            for name in document.keys() - options:
                told = "%s: %s of %s %s is kept, and means nothing to the emulator; there are: %s"
                log.warning(told, path, shown(name), table[1:-1], shown(key, 12), ", ".join(sorted(options)))


def decode_text(content: bytes) -> str:
    """Decode UTF-8, with a byte order mark or without; raises OptionError with the place of what is none."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    # Windows' editors have saved as UTF-16; that is told by its byte order mark, or by where its zeros are.
    encoding = json.detect_encoding(content)
    with contextlib.suppress(UnicodeDecodeError):
        if encoding.startswith(("utf-16", "utf-32")) and content.strip(b"\0"):
            content.decode(encoding)
            raise OptionError(f"line 1 column 1: {encoding[:6].upper()}, not UTF-8; save it as UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise OptionError(f"{place_in(before, len(before))}: not UTF-8") from None


def parse_tree(text: str) -> object:
    """Decode the JSON of a data file; raises OptionError where it says something twice, and as ``json.loads`` does.

    Repeated names inside ``data`` are the user's own, and the last one counts (contract 3.4).
    """
    says_twice = False

    def as_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal says_twice
        value = dict(members)
        says_twice |= len(value) < len(members)
        return value

    tree = json.loads(text, object_pairs_hook=as_object)
    # It may be inside of data; to find the place takes longer than all the rest.
    if says_twice and isinstance(tree, dict):
        check_once(text, skip(text, 0, SPACES))
    return tree


def check_once(text: str, at: int, *way: str | int) -> None:
    """Raise OptionError where an object of a data file, or one inside of it other than ``data``, has a name twice."""
    names: dict[str | int, int] = {}
    for name, begin, value in parts_of(text, at):
        if name in names:
            what = ("table ", "", "member ")[min(len(way), 2)] + shown(name)
            what = ", ".join([f"table {shown(way[0])}", *map(shown, way[1:]), what]) if way else what
            first = place_in(text, names[name])
            raise OptionError(f"{place_in(text, begin)}: {what} is there twice, first at {first}; take one of them out")
        names[name] = begin
        is_data = name == "data" and len(way) == 2 and not str(way[0]).startswith("_")
        if text[value] == "{" and not is_data:
            check_once(text, value, *way, name)
        for number, _, item in parts_of(text, value) if text[value] == "[" and not way else ():
            if {member for member, _, _ in parts_of(text, item)} == ANSWERED:  # any other item is data
                check_once(text, item, name, f"item {int(number) + 1}")


SPACES = re.compile(r"[ \t\n\r]*")
BETWEEN = re.compile(r"[ \t\n\r]*[:,]?[ \t\n\r]*")
SCANNER = json.JSONDecoder()


def parts_of(text: str, at: int) -> Iterator[tuple[str | int, int, int]]:
    """Return the members or items of the JSON at an index: name or number, index of the name, index of the value."""
    closing = {"{": "}", "[": "]"}.get(text[at])
    begin = skip(text, at + 1, SPACES)
    for number in itertools.count() if closing else ():
        if text[begin] == closing:
            return
        name: str | int = number
        value = begin
        if closing == "}":
            name, end = SCANNER.raw_decode(text, begin)
            value = skip(text, end, BETWEEN)
        yield name, begin, value
        _, end = SCANNER.raw_decode(text, value)
        begin = skip(text, end, BETWEEN)


def skip(text: str, at: int, pattern: re.Pattern[str]) -> int:
    """Return the index behind what a pattern matches at an index, or that index."""
    match = pattern.match(text, at)
    return match.end() if match else at


def find_in(text: str, way: Sequence[str | int]) -> int:
    """Return the index where a part of JSON begins."""
    at = begin = skip(text, 0, SPACES)
    for step in way:
        for number, (name, where, value) in enumerate(parts_of(text, at)):
            if step in (name, number):
                begin, at = where, value
                break
    return begin


# What people write that JSON does not have.
NOT_JSON = (
    (re.compile(r"//|/\*|#"), "a comment, which JSON does not have"),
    (re.compile(r"'"), "single quotes; JSON takes double ones"),
    (re.compile("[\u2018-\u201f\xab\xbb]"), "typographic quotes; JSON takes straight double ones"),
    (re.compile(r"<{7}|={7}|>{7}|\|{7}"), "a mark of a merge conflict"),
    (re.compile("\0"), "a zero byte, of which a power cut may leave many"),
)


def why_no_json(text: str, error: json.JSONDecodeError) -> str:
    """Say where a text is no JSON, and what the person who edited it has probably done."""
    at = error.pos if error.msg.startswith("Invalid") else skip(text, error.pos, SPACES)
    before, rest = text[: error.pos].rstrip(), text[at : at + 20]
    if error.msg.startswith("Illegal trailing comma") or (rest[:1] in ("]", "}") and before.endswith(",")):
        # Python 3.13 has the place of the comma itself, others that of the bracket behind.
        at = error.pos if rest.startswith(",") else len(before) - 1
        cause = "a trailing comma, which JSON does not have before a closing bracket"
    else:
        cause = cause_of(error.msg, before, rest, is_glued=text[: error.pos] == before)
    return f"{place_in(text, at)}: not JSON: {cause}"


def cause_of(message: str, before: str, rest: str, *, is_glued: bool) -> str:
    """Say what a person has probably done, by the message of ``json`` and the text before and behind the place."""
    if message.startswith("Invalid control character"):
        return "a line break or tab inside a text; write \\n or \\t, or close the text with a double quote"
    if message.startswith("Invalid"):
        return "a backslash inside a text is written twice: \\\\"
    if message.startswith("Unterminated"):
        return "the text that begins here has no closing quote"
    if not rest:
        return "the file ends before everything is closed" if before else "the file is empty; delete it for a new one"
    for pattern, cause in NOT_JSON:
        if pattern.match(rest):
            return cause
    if message.startswith("Extra data"):
        return "one closing bracket too many" if rest[0] in "]}" else "more behind the end of the JSON"
    if rest[0] == ",":
        return "a comma too many"
    if message.startswith("Expecting property name"):
        return "a name without double quotes"
    if message.startswith("Expecting ':'"):
        return "a colon is missing before this"
    if message.startswith("Expecting ','"):
        if rest[0] in "]}":
            return f"{rest[0]} where a bracket of the other kind is open"
        if is_glued and before[-1:].isdigit() and re.match(r"[\w.]", rest):
            return "a number that JSON does not write like this"
        return "a comma is missing before this, or a quote inside the text before has no backslash"
    word = re.match(r"[\w.+-]+|.", rest, re.DOTALL)
    return f"{shown(word[0] if word else rest)} is no value; texts take double quotes, words are true, false, null"


def place_in(text: str, position: int) -> str:
    """Write a position as an editor counts, lines and columns from 1."""
    return f"line {text.count(chr(10), 0, position) + 1} column {position - text.rfind(chr(10), 0, position)}"


def find_misfit(text: str) -> str:
    """Say where a text has the first token that Python reads and JSON cannot hold, and what is wrong with it."""
    depth = 0
    for match in TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        # Data is within a record, a table and the file.
        if depth > MAX_DEPTH + 3:
            return f"{place_in(text, match.start())}: nested deeper than {MAX_DEPTH} levels"
        try:
            if match[0] not in "[]{}":
                encode(json.loads(match[0]))
        except ValueError:
            return f"{place_in(text, match.start())}: {shown(match[0], 20)} cannot be kept as JSON"
    return "cannot be kept as JSON"


def check_tree(tree: object) -> Tree:
    """Check a decoded data file, and return it as the emulator keeps it, with what a hand-made one may leave out.

    Raises Misfit for what a data file may not say, and ValueError for what Python reads and JSON cannot hold: NaN,
    1e400, lone surrogates.
    """
    with misfits_at():
        tables = check_object(tree, "the file", 'an object of tables, as {"notes/open": {"a1": {"data": 1}}}')
    return complete_tree({name: read_table(name, table) for name, table in tables.items() if name != WRITTEN})


def read_table(name: str, table: object) -> dict[str, Any]:
    """Return a decoded table; the values of a plain list become records. Raises as ``check_tree`` does."""
    # Raises for a lone surrogate.
    encode_text(name)
    is_reserved = name.startswith("_")
    if isinstance(table, list) and not is_reserved:
        return read_list(name, table)
    with misfits_at(name):
        takes = "an object" if is_reserved else "an object of records by uniqueId, or a list of values"
        documents = check_object(table, f"table {shown(name)}", takes)
    return {key: read_document(name, key, document) for key, document in documents.items()}


# The members of a record as GET answers it.
ANSWERED = frozenset(("data", "uniqueId", "updatedAt", "createdAt"))


def read_list(name: str, values: list[Any]) -> dict[str, Any]:
    """Make records of a table that is a plain list of values, or of records as GET answers them.

    Their ids and times are the same at every start. A value's ``id`` is the record's, for the sake of
    json-server's files. Raises as ``check_tree`` does.
    """
    table: dict[str, Any] = {}
    for number, value in enumerate(values):
        try:
            if isinstance(value, dict) and value.keys() == ANSWERED:
                unique_id, document = check_kind(value["uniqueId"], "str", "uniqueId"), value
            else:
                unique_id, document = id_in_list(name, number, value), {"data": value}
            if unique_id in table:
                raise OptionError(f"id {shown(unique_id)} is there twice; each needs its own, or none")
            table[unique_id] = read_record(unique_id, document)
        except OptionError as error:
            raise Misfit(f"table {shown(name)}, item {number + 1}: {error}", name, number) from None
    return table


def id_in_list(name: str, number: int, value: Json) -> str:
    """Return the unique id of a value in a list: its own ``id``, or one made of the table's name and the place."""
    own_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(own_id, str):
        return own_id
    if isinstance(own_id, int | float) and not isinstance(own_id, bool):
        return encode(own_id).decode()
    from hashlib import sha256

    return as_id(sha256(f"{name} {number}".encode()).digest()[:16])


@contextlib.contextmanager
def misfits_at(*way: str | int) -> Iterator[None]:
    """Raise Misfit, with this path, for an OptionError that is raised inside."""
    try:
        yield
    except OptionError as error:
        raise Misfit(str(error), *way) from None


def complete_tree(tree: Tree, *, has_users: bool = False) -> Tree:
    """Return a tree with the projects and endpoints that a file may leave out; raises Misfit for a wrong document.

    Records are taken as they are, but for those of authentication endpoints, unless these are known to be users.
    """
    checked: Tree = {PROJECTS: {}, ENDPOINTS: {}, SESSIONS: {}} | tree
    checked[ENDPOINTS] = dict(checked[ENDPOINTS])
    if not checked[PROJECTS]:
        checked[PROJECTS] = sample_project()[PROJECTS]
    default = next(iter(checked[PROJECTS]))
    for name in checked:
        if not name.startswith("_") and name not in checked[ENDPOINTS]:
            with misfits_at(name):
                checked[ENDPOINTS][check_table_name(name)] = {"project": default}
    for key, document in checked[PROJECTS].items():
        with misfits_at(PROJECTS, key):
            read_project(key, document)
    for name, document in checked[ENDPOINTS].items():
        with misfits_at(ENDPOINTS, name):
            project = read_endpoint(name, document).project or default
            if project not in checked[PROJECTS]:
                raise OptionError(f"endpoint {shown(name)}: project {shown(project)} is not there")
        checked[ENDPOINTS][name] = document | {"project": project}
    for table, read in ((SESSIONS, read_session), (MAILS, read_mail)):
        for token, document in checked.get(table, {}).items():
            with misfits_at(table, token):
                read(token, document)
    for name, document in checked[ENDPOINTS].items():
        if document.get("authentication") and not has_users:
            check_users(name, checked.get(name, {}).values())
    # An empty table has done its part: no step of the journal takes it away, so it would bring its endpoint back.
    return {name: table for name, table in checked.items() if table or name.startswith("_")}


def check_table_name(name: str) -> str:
    """Return the name of a table if it can be an endpoint's; raise OptionError if not."""
    try:
        return check_endpoint_name(name)
    except OptionError as error:
        better = f"my/{name.lower()}"
        hint = f"; name the table {better}, or likewise" if ENDPOINT_NAME.match(better) else ""
        raise OptionError(f"table {shown(name)}: {error}{hint}") from None


def check_users(name: str, records: Iterable[Record]) -> None:
    """Raise Misfit for the first record that is no user, or has the name of another one.

    A user may lack the password: then nobody can log in as this user until it is set.
    """
    # Unique ids by ("username", name) and by ("email", address).
    users: dict[tuple[str, str], str] = {}
    for number, record in enumerate(records):
        data: Any = record.data
        why = why_no_user(data, needs_password=False)
        for member in () if why else (name for name in CREDENTIALS if name in data):
            other = users.setdefault((member, data[member]), record.unique_id)
            if other != record.unique_id:
                why = f"{member} {shown(data[member])} is that of {shown(other)} too"
        if why:
            raise Misfit(f"table {shown(name)}, {shown(record.unique_id)}: {why}", name, number)


def drop_gone(tree: Tree, users: set[str] | None = None) -> Counter[str]:
    """Delete sessions, mails and owners of users who are not in a tree, or of those of ``users``; returns how many.

    So a person may delete a user's line and nothing else. This is for files that a person edited: where a user
    is deleted over the API, the records keep their owner.
    """
    endpoints = [read_endpoint(name, document) for name, document in tree[ENDPOINTS].items()]
    users_of = {endpoint.name: tree.get(endpoint.name, {}) for endpoint in endpoints if endpoint.authentication}
    dropped: Counter[str] = Counter()
    for name, what in ((SESSIONS, "sessions"), (MAILS, "mails")):
        for token, document in list(tree.get(name, {}).items()):
            user = document["user"]
            if user not in users_of.get(document["endpoint"], {}) and (users is None or user in users):
                del tree[name][token]
                dropped[what] += 1
    for endpoint in endpoints:
        table = tree.get(endpoint.name, {})
        gone = {record.owner for record in table.values() if users is None or record.owner in users} - {None}
        # An owner may be a user of any authentication endpoint of the project.
        for other in endpoints if gone else ():
            if other.project == endpoint.project:
                gone -= users_of.get(other.name, {}).keys()
        for key, record in table.items() if gone else ():
            if record.owner in gone:
                table[key] = record._replace(owner=None)
                dropped["owners of records"] += 1
    return dropped


def tell_dropped(path: str, dropped: Mapping[str, int]) -> None:
    """Say in the log what a data file lost that belonged to users who are not there."""
    if dropped:
        told = ", ".join(f"{what}: {count}" for what, count in dropped.items())
        log.warning("%s: dropped what belonged to users who are not there, %s", path, told)


def read_document(table: str, key: str, document: object) -> Document | Record:
    """Return a decoded document as the tree has it; raises Misfit, or ValueError."""
    try:
        if not table.startswith("_"):
            return read_record(key, check_object(document, "", 'a record, as {"data": 1}'))
        members = check_object(document, "", "an object")
        # Both raise for what JSON cannot hold.
        encode_text(key)
        encode_flat(members)
        return members
    except OptionError as error:
        raise Misfit(f"table {shown(table)}, {shown(key)}: {str(error).removeprefix(': ')}", table, key) from None


def check_object(value: object, place: str, takes: str) -> dict[str, Any]:
    """Return the value if it is a JSON object; raise OptionError that says what it ``takes`` if not."""
    if isinstance(value, dict):
        return value
    raise OptionError(f"{place}: not an object but {kind_of(cast(Json, value))}; it takes {takes}")


def read_members(kind: type, document: Document, place: str) -> dict[str, Any]:
    """Return the members of a document that a dataclass has, by field name; raises OptionError."""
    members = {item.name: document.get(camel(item.name)) for item in dataclasses.fields(kind)}
    return check_members(kind, members, f"{place}: ")


def document_of(value: Project | Endpoint | Mail, id_field: str) -> Document:
    """Make the document of a value, whose ``id_field`` is the document's id."""
    return {camel(name): member for name, member in dataclasses.asdict(value).items() if name != id_field}


def read_project(key: str, document: Document) -> Project:
    """Make a project of its document; raises OptionError."""
    place = f"project {shown(key)}"
    members = {"name": SAMPLE_PROJECT} | read_members(Project, document, place)
    try:
        return check_saved(Project(**members | {"key": key}))
    except OptionError as error:
        raise OptionError(f"{place}: {error}") from None


def read_endpoint(name: str, document: Document) -> Endpoint:
    """Make an endpoint of its document; raises OptionError."""
    members = read_members(Endpoint, document, f"endpoint {shown(name)}")
    return Endpoint(**{"project": ""} | members | {"name": check_endpoint_name(name)})


def read_record(unique_id: str, document: Document) -> Record:
    """Make a record of its document; raises OptionError, or ValueError for what is no JSON."""
    check_unique_id(unique_id)
    if "data" not in document:
        raise OptionError('has no data; a record is {"data": …}')
    created_at = check_time(document, "createdAt", SAMPLE_TIME)
    updated_at = check_time(document, "updatedAt", created_at)
    owner = check_kind(document.get("owner"), "str | None", "owner")
    more = {name: value for name, value in document.items() if name not in RECORD_MEMBERS}
    encode_flat(more)
    if "file" in more:
        check_file(more["file"])
    return Record.of(unique_id, encode_flat(document["data"]), created_at, updated_at, owner, more or None)


def encode_flat(value: object) -> bytes:
    """Write a value as JSON; raises OptionError if it is nested too deep, ValueError for what is no JSON."""
    packed = encode(value)
    if packed.count(b"[") + packed.count(b"{") > MAX_DEPTH:
        try:
            check_depth(packed.decode())
        except ValueError as error:
            raise OptionError(str(error)) from None
    return packed


def check_file(file: object) -> None:
    """Raise OptionError where a record's ``file`` is not what an upload makes."""
    members = check_object(file, "file", "originalName, mimeType and size")
    for name, kind in (("originalName", "str"), ("mimeType", "str"), ("size", "int")):
        check_kind(members.get(name), kind, f"file: {name}")
    if members["size"] < 0:
        raise OptionError(f"file: size is {members['size']}; it takes a number of bytes")


def check_time(document: Document, name: str, default: str) -> str:
    """Return the time that a document has under a name; raises OptionError for one in another form."""
    value: str = check_kind(document.get(name, default), "str", name)
    if is_time(value):
        return value
    raise OptionError(f"{name} is {shown(value)}; times are like {SAMPLE_TIME}")


@functools.lru_cache(256)
def is_time(text: str) -> bool:
    """Whether a text is a time as records have it, and one of the calendar."""
    try:
        return TIME.match(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def read_session(token: str, document: Document) -> Session:
    """Make a session of its document; raises OptionError."""
    place = f"session {shown(token[:6])}"
    endpoint, user = (check_kind(document.get(name), "str", f"{place}: {name}") for name in ("endpoint", "user"))
    check_key(token, f"{place}: token")
    return Session(token, check_endpoint_name(endpoint), user, read_moment(document, "expiresAt", place))


def read_mail(token: str, document: Document) -> Mail:
    """Make a mail of its document; raises OptionError."""
    place = f"mail {shown(token[:6])}"
    texts = {name: check_kind(document.get(camel(name)), "str", f"{place}: {camel(name)}") for name in MAIL_TEXTS}
    sent_at, expires_at = (read_moment(document, name, place) for name in ("sentAt", "expiresAt"))
    used = check_kind(document.get("used", False), "bool", f"{place}: used")
    return Mail(token=token, sent_at=sent_at, expires_at=expires_at, used=used, **texts)


def read_moment(document: Document, name: str, place: str) -> float:
    """Read the moment, in seconds, that a document has under a name; raises OptionError."""
    return parse_moment(check_kind(document.get(name), "str", f"{place}: {name}"), f"{place}: {name}")


def write_moment(seconds: float) -> str:
    """Write a moment as a document has it, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Records(Table):
    """A TinyDB table with text ids that is changed in place; TinyDB's own copies all of it at every change.

    Only changes come here. What is read is read from the storage's tables: TinyDB's queries make a dictionary
    of each document at every call, and a Record is none.
    """

    document_id_class = str  # type: ignore[assignment]

    def put(self, document_id: str, document: Document | Record) -> None:
        """Add a document, or replace the one of that id where it stands."""
        self._update_table(lambda table: table.__setitem__(document_id, document))

    def put_behind(self, documents: Mapping[str, tuple[str, Document | Record]]) -> None:
        """Insert documents behind others, as ``Documents.put_behind`` does."""
        self._update_table(lambda table: table.put_behind(documents))

    def _update_table(self, updater: Callable[[Any], None]) -> None:
        """Change the table; TinyDB calls this for every change."""
        tables: Any = self._storage.read()
        if self.name not in tables:
            tables[self.name] = Documents()
        updater(tables[self.name])
        self._storage.write(tables)


START = ""  # the name of the checkpoint that every store has
# Checkpoints that ``undo`` goes by, with names that nobody can give.
BEFORE, AFTER = "\0before", "\0after"


class Indexes:
    """What is read of the tables without going through them: derived at the first question, and kept in line.

    Whoever changes the tables of ``file`` says so to ``_follow`` and ``_forget``.
    """

    def __init__(self, file: JsonFile) -> None:
        self.file = file  # which is told when to save, and to close
        # By table and id; and by endpoint.
        self._values: dict[tuple[str, str], Any] = {}
        self._listings: dict[str, Listing] = {}
        # By endpoint: the ids of users by member and value, and those of records by owner, with numbers in their order.
        self._users: dict[str, dict[tuple[str, str], set[str]]] = {}
        self._owned: dict[str, dict[str | None, dict[str, int]]] = {}
        self._numbers = itertools.count()
        self._own_listings: dict[str, dict[str | None, Listing]] = {}

    def _documents(self, name: str) -> Documents:
        """Return the live documents of a table, which must not be changed."""
        return self.file.tables.get(name, NO_DOCUMENTS)

    def _value(self, table: str, document_id: str, read: Callable[[str, Any], T]) -> T | None:
        """Return the value of a document, which is read once as long as it is not replaced; None without one."""
        value: T | None = self._values.get((table, document_id))
        if value is None and (document := self._documents(table).get(document_id)) is not None:
            value = self._values[table, document_id] = read(document_id, document)
        return value

    def records(self, name: str) -> Listing:
        """Return all records of an endpoint in the order of creation (contract 3.5).

        They are the same until one changes, so that their JSON is written once.
        """
        listing = self._listings.get(name)
        if listing is None:
            listing = self._listings[name] = Listing(self._documents(name).values())
        return listing

    def records_for(self, name: str, user: str | None) -> Listing:
        """Return the records of an endpoint that a user may read where others' may not be read (contract 6.8)."""
        documents = self._documents(name)
        if name not in self._owned:
            self._owned[name] = {}
            for key, record in documents.items():
                self._follow_owner(name, key, None, record)
        nobodys, own = (self._owned[name].get(owner, {}) for owner in (None, user))
        if nobodys:
            # By numbers, which stay in the order of the table while records come and go; places would have to be
            # counted anew. This list is not kept: everybody would have one with the same records.
            both = nobodys | own
            return Listing(documents[key] for key in sorted(both, key=both.__getitem__))
        listings = self._own_listings.setdefault(name, {})
        if user not in listings:
            listings[user] = Listing(documents[key] for key in own)
        return listings[user]

    def user(self, endpoint: str, name: str, value: str) -> Record | None:
        """Return the first record of an endpoint whose member ``name`` of CREDENTIALS is this text; None without."""
        documents = self._documents(endpoint)
        if endpoint not in self._users:
            self._users[endpoint] = {}
            for key, record in documents.items():
                self._follow_user(endpoint, key, None, record)
        keys = self._users[endpoint].get((name, value), ())
        # Only an endpoint that has become one of users has several; there the oldest counts.
        oldest = next(iter(keys), "") if len(keys) < 2 else next(key for key in documents if key in keys)
        user: Record | None = documents.get(oldest)
        return user

    def _follow(self, name: str, key: str, old: Any, new: Any, *, is_moved: bool) -> None:
        """Take over that a document is replaced, made or deleted, which None stands for, or has another place."""
        self._listings.pop(name, None)
        self._values.pop((name, key), None)
        # Of most endpoints nobody has asked for an index.
        if name in self._owned:
            if is_moved or (old and new and old.owner != new.owner):
                self._forget_owners(name)  # since all places behind it change, too
            else:
                self._follow_owner(name, key, old, new)
        if name in self._users:
            self._follow_user(name, key, old, new)

    def _follow_owner(self, name: str, key: str, old: Record | None, new: Record | None) -> None:
        for record in filter(None, (old, new)):
            self._own_listings.get(name, {}).pop(record.owner, None)
        owned = self._owned[name]
        if old and not new:
            del owned[old.owner][key]
        elif new and not old:
            owned.setdefault(new.owner, {})[key] = next(self._numbers)

    def _follow_user(self, name: str, key: str, old: Record | None, new: Record | None) -> None:
        users = self._users[name]
        for pair in credentials_of(old):
            users[pair].discard(key)
            if not users[pair]:
                del users[pair]
        for pair in credentials_of(new):
            users.setdefault(pair, set()).add(key)

    def _forget(self, name: str) -> None:
        """Take over that a whole table is gone."""
        self._listings.pop(name, None)
        self._users.pop(name, None)
        self._forget_owners(name)
        self._values = {place: value for place, value in self._values.items() if place[0] != name}

    def _forget_owners(self, name: str) -> None:
        self._owned.pop(name, None)
        self._own_listings.pop(name, None)


class History(Indexes):
    """The tables over time: every change of them passes here, first into the journal, and what was can come back.

    TinyDB gives the data file its layout and changes single tables, through Records; it reads nothing. Ours are
    the journal, the checkpoints, which replace all tables at once, and edits by hand.
    """

    def __init__(self, storage: JsonFile, drop_file: Callable[[str], None] = lambda _: None) -> None:
        """Begin with what the storage holds; ``drop_file`` is called with the id of each uploaded file to delete."""
        super().__init__(storage)
        self._drop_file = drop_file
        self._database = TinyDB(storage=lambda: storage)
        self._database.table_class = Records
        # The oldest first.
        self._checkpoints: dict[str, Tables] = {}
        self._batch: list[Step] | None = None
        # Why an edit of the data file is not taken over.
        self.refused_edit: str | None = None
        # When each checkpoint was made, by the owner's clock; and what ``undo`` can take back.
        self.moments: dict[str, float] = {}
        self.undo_number, self.undo_what = 0, ""
        self.checkpoint()

    def _table(self, name: str) -> Records:
        """Return TinyDB's table of that name, for changes."""
        return cast("Records", self._database.table(name))

    # What changes

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Make all changes inside at the end, or none of them; until then, reading shows none."""
        if self._batch is not None:
            yield
            return
        self._batch = []
        try:
            yield
            steps = self._batch
        finally:
            self._batch = None
        # In one line of the journal, which a kill leaves whole or torn.
        self._change(*steps)

    def _change(self, *steps: Step) -> None:
        """Make steps, first in the journal, then in the tables; every change passes here. Raises Refusal."""
        if self._batch is not None:
            self._batch += steps
        elif steps:
            self.file.commit(steps)
            self._apply(steps)

    def _apply(self, steps: Iterable[Step]) -> None:
        """Make the steps in the tables, and drop uploaded files that nobody can ask for any more."""
        had_files: list[str] = []
        for name, run in itertools.groupby(steps, lambda step: step.table):
            # Inserting goes through the whole table, so documents that are to be inserted wait for one another.
            inserted: dict[str, tuple[str, Document | Record]] = {}
            for _, key, document, after in run:
                # The journal of several verbs: the next step may be about a document that still waits.
                if inserted and after is None:
                    self._table(name).put_behind(inserted)
                    inserted = {}
                if key is None:
                    self._forget(name)
                    had_files += [key for key, record in self._documents(name).items() if has_file(record)]
                    self._database.drop_table(name)
                    continue
                old = self._documents(name).get(key)
                if has_file(old):
                    had_files.append(key)
                self._follow(name, key, old, document, is_moved=after is not None)
                if document is None:
                    self._table(name).remove(doc_ids=[key])  # type: ignore[list-item]
                    # An empty table in the data file would be a new endpoint at the next start.
                    if not self._documents(name):
                        self._database.drop_table(name)
                elif after is None:
                    self._table(name).put(key, document)
                else:
                    inserted[after] = key, document
            if inserted:
                self._table(name).put_behind(inserted)
        self._forget_files(had_files)

    def _forget_files(self, unique_ids: Iterable[str]) -> None:
        """Drop the files of records that are deleted, but for those that ``restore`` can bring back.

        A record that was only moved to another endpoint, by an edit of the data file, keeps its file.
        """
        for unique_id in unique_ids:
            if not any(file_in(tables, unique_id) for tables in (self.file.tables, *self._checkpoints.values())):
                self._drop_file(unique_id)

    def file_ids(self) -> list[str]:
        """Return the ids of all records with an uploaded file."""
        return [key for table in self.file.tables.values() for key, record in table.items() if has_file(record)]

    def has_file(self, unique_id: str) -> bool:
        """Whether there is a record of that id with an uploaded file, whatever its endpoint."""
        return file_in(self.file.tables, unique_id)

    def has_id(self, unique_id: str) -> bool:
        """Whether any document has that id, now or in a checkpoint; what ``undo`` goes by is past."""
        # Lists, since an upload makes ids in a thread of its own.
        checkpoints = [tables for name, tables in list(self._checkpoints.items()) if name not in (BEFORE, AFTER)]
        states = self.file.tables, *checkpoints
        return any(unique_id in table for tables in states for table in list(tables.values()))

    def lost_files(self) -> list[str]:
        """Return the ids of records with an uploaded file that only checkpoints still have."""
        return [unique_id for name in self._checkpoints for unique_id in self._lost_files(name)]

    def _lost_files(self, name: str) -> Iterator[str]:
        """Return the ids of deleted records with an uploaded file that a checkpoint has, if there is one."""
        for table, then in self._checkpoints.get(name, {}).items():
            changed = then.changed(self._documents(table))
            yield from (key for key in changed if has_file(then.get(key)) and not self.has_file(key))

    def replay(self) -> None:
        """Make the changes in the journal of an emulator that was killed. Raises DataFileError.

        They are made even if the journal continues another data file, since clients were told that they are stored;
        then the log says so.
        """
        steps, fits = self.file.steps_in_journal()
        if steps:
            before = grow(self.file.tables)
            self._apply(steps)
            try:
                whole = complete_tree(self.file.read())
            except OptionError as error:
                raise DataFileError(f"{self.file.path} with its journal: {error}") from None
            missing = [name for name in whole[ENDPOINTS] if name not in self._documents(ENDPOINTS)]
            if missing:
                # The data file that listed them is gone, and what they were like with it.
                told = "%s has records of endpoints that are not listed, which are open ones now: %s"
                log.warning(told, self.file.journal.path, ", ".join(missing))
                self._apply(Step(ENDPOINTS, name, whole[ENDPOINTS][name]) for name in missing)
            way = way_to(before, self.file.tables)
            if way and not fits:
                told = "%s continues another content than the data file; it was brought in anyway, %s"
                log.warning(told, self.file.journal.path, told_changes(way, before))
        self.file.changed |= os.path.exists(self.file.journal.path)

    def take_over_edit(self, check_keys: Callable[[Iterable[str]], None]) -> list[tuple[str, Change]]:
        """Make the changes that a person wrote into the data file; returns those of records, with the endpoint's name.

        ``check_keys`` raises OptionError for keys that projects may not have. Raises DataFileError if the file cannot
        be read or has such a key, Refusal where the disk takes no more, or OSError.
        """
        has_more, old = self.file.changed, grow(self.file.tables)
        steps, edited, stamp = self.file.read_edit()
        more, has_gone = consequences(old, steps, self.file.path)
        steps += more
        try:
            check_keys(step.document_id or "" for step in steps if step.table == PROJECTS and step.document)
        except OptionError as error:
            raise DataFileError(f"{self.file.path}: {error}") from None
        self._change(*steps)
        self.file.remember(edited, stamp)
        # Nothing but the edit was in the journal, and the data file has that. A journal that stays does no harm.
        if not has_more:
            with contextlib.suppress(OSError):
                self.file.drop_journal()
        # What belongs to users who were deleted over the API stays theirs, but in a file that a person wrote last the
        # next start could not tell them from users whose lines were deleted; so it is written anew at once.
        self.file.changed |= has_gone
        log.info("took over an edit of the data file, %s", told_changes(steps, old))
        return changes_by(steps, old)

    # Going back

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints, the oldest first."""
        return [name for name in self._checkpoints if name not in (BEFORE, AFTER)]

    def require_checkpoint(self, name: str) -> None:
        """Raise OptionError where the owner has given no checkpoint that name; the start has none."""
        names = self.checkpoints()[1:]
        if name not in names:
            raise OptionError(f"there is no checkpoint {shown(name)}; there are: {', '.join(names) or 'none'}")

    def keys(self, name: str) -> list[str]:
        """Return the keys that projects had at a checkpoint."""
        return list(self._checkpoints[name][PROJECTS])

    def checkpoint(self, name: str = START, like: History | None = None) -> None:
        """Make the present state, or that of another store, a checkpoint; it replaces one of the same name."""
        lost_files = list(self._lost_files(name))
        # A checkpoint that is made anew becomes the latest, except for the one of the start.
        if name != START:
            self._checkpoints.pop(name, None)
        self._checkpoints[name] = grow((like or self).file.tables)
        self._forget_files(lost_files)

    def restore(self, name: str = START) -> list[tuple[str, Change]]:
        """Go back to a checkpoint; returns the changes of records, with the endpoint's name, deletions first.

        The time it takes grows with what has changed since, not with what is stored; only a table in which deleted
        records come back to their places is gone through once.
        """
        return self._become(grow(self._checkpoints[name]))

    @contextlib.contextmanager
    def undoable(self, what: str) -> Iterator[None]:
        """Remember the states before and after what is done inside, for ``undo``, in place of the last ones."""
        self._drop_undo()
        self.checkpoint(BEFORE)
        yield
        self.checkpoint(AFTER)
        self.undo_number, self.undo_what = self.undo_number + 1, what

    def _drop_undo(self) -> None:
        for name in (BEFORE, AFTER):
            lost_files = list(self._lost_files(name))
            self._checkpoints.pop(name, None)
            self._forget_files(lost_files)
        self.undo_what = ""

    def undo(self, check_keys: Callable[[Iterable[str]], None]) -> list[tuple[str, Change]]:
        """Put back what was ``undoable``, but for what has changed again since; returns changes as ``restore`` does.

        Raises OptionError where the one contradicts the other, as two users of one name; so does ``check_keys`` for
        keys that projects may not have.
        """
        then = grow(self.file.tables)
        before, after = self._checkpoints[BEFORE], self._checkpoints[AFTER]
        for key, project in after[PROJECTS].items():
            # Or there would be two of it, by its key of before and by that of now.
            if then[PROJECTS].get(key) != project and (key not in before[PROJECTS] or key not in then[PROJECTS]):
                why = f"project {shown(key)} was changed since, and has another key before or after"
                raise OptionError(f"{self.undo_what} cannot be undone: {why}")
        for name in dict.fromkeys([*before, *after]):
            table = then.setdefault(name, Documents())
            was, became = before.get(name, NO_DOCUMENTS), after.get(name, NO_DOCUMENTS)
            # Ids that --stable-ids makes may be those of records that went with the state of before.
            if not name.startswith("_") and (taken := taken_since(table, was, became)):
                why = f"the id {shown(taken)} in {name} is another record's by now"
                raise OptionError(f"{self.undo_what} cannot be undone: {why}; delete that first")
            take_back(table, was, became)
        # The others were deleted since; and an empty table in the data file would be a new endpoint.
        kept = [name for name, table in then.items() if name.startswith("_") or (table and name in then[ENDPOINTS])]
        then = {name: then[name] for name in kept}
        for name in (SESSIONS, MAILS):
            for token, document in list(then.get(name, NO_DOCUMENTS).items()):
                if document["user"] not in then.get(document["endpoint"], NO_DOCUMENTS):
                    del then[name][token]
        complete_tree(cast("Tree", then))
        check_keys(then[PROJECTS])
        changes = self._become(then)
        self._drop_undo()
        return changes

    def changes_since(self, name: str) -> Counter[str]:
        """Count what has changed since a checkpoint: records made, changed and deleted, endpoints likewise."""
        count: Counter[str] = Counter()
        then, now = self._checkpoints[name], self.file.tables
        for step in way_to(then, now):
            table = then.get(step.table, NO_DOCUMENTS)
            if step.table == ENDPOINTS or not step.table.startswith("_"):
                kind = "endpoints" if step.table == ENDPOINTS else "records"
                done = "deleted" if step.document is None else "changed" if step.document_id in table else "made"
                count[f"{kind} {done}"] += 1
        return count

    def data(self) -> bytes:
        """Write everything as a data file."""
        return b"".join(blocks_of(self.file.tables))

    def _become(self, then: Tables) -> list[tuple[str, Change]]:
        """Take other tables in place of those of now, all at once; returns the changes of records."""
        # The difference, and not all that is there: listeners hear of each step, and the journal holds each.
        now = self.file.tables
        steps = way_to(now, then)
        if not steps:
            return []
        # The journal gets the way, since it continues the data file, which knows no checkpoints.
        self.file.commit(steps)
        self.file.tables = then
        self.file.write(then)
        gone = [(step.table, step.document_id) for step in steps if step.document is None]
        for name, key, document, after in steps:
            assert key is not None, "way_to drops no table at once"
            # One that is moved was deleted by a step before.
            old = None if after is not None else now.get(name, NO_DOCUMENTS).get(key)
            self._follow(name, key, old, document, is_moved=after is not None)
        self._forget_files(key for table, key in gone if key and has_file(now[table].get(key)))
        return changes_by(steps, now)


class Store(History):
    """Projects, endpoints, records, sessions and mails as values of the Model, in tables with a History."""

    # Projects and endpoints

    def projects(self) -> list[Project]:
        return list(filter(None, map(self.project, self._documents(PROJECTS))))

    def project(self, key: str) -> Project | None:
        return self._value(PROJECTS, key, read_project)

    def put_project(self, key: str, project: Project) -> None:
        """Keep a project in place of the one of ``key``; if it has a new key, its endpoints follow."""
        projects = self._documents(PROJECTS)
        # What else a data file says of the project stays.
        document = (projects.get(key) or {}) | document_of(project, "key")
        document["allowedOrigins"] = list(project.allowed_origins)
        document["resetTemplates"] = dict(project.reset_templates)
        if project.master_key is None:
            del document["masterKey"]
        if project.key == key or key not in projects:
            self._change(Step(PROJECTS, project.key, document))
            return
        keys = ["", *projects]
        with self.batch():
            # In its place, since the first project is the default one.
            self._change(Step(PROJECTS, key), Step(PROJECTS, project.key, document, keys[keys.index(key) - 1]))
            for endpoint in self.endpoints_of(key):
                self.put_endpoint(replace(endpoint, project=project.key))

    def endpoints(self) -> list[Endpoint]:
        return list(filter(None, map(self.endpoint, self._documents(ENDPOINTS))))

    def endpoint(self, name: str) -> Endpoint | None:
        return self._value(ENDPOINTS, name, read_endpoint)

    def endpoints_of(self, key: str) -> list[Endpoint]:
        """Return the endpoints of the project of that key."""
        return [endpoint for endpoint in self.endpoints() if endpoint.project == key]

    def require_project(self, key: str | None) -> Project:
        """Return the project of that key, the first one for None. Raises OptionError."""
        project = self.projects()[0] if key is None else self.project(key)
        if project is not None:
            return project
        raise OptionError(f"project {shown(key)} is not the key of any project")

    def require_endpoint(self, name: str) -> Endpoint:
        """Return the endpoint of that name; raises OptionError where there is none."""
        endpoint = self.endpoint(name)
        if endpoint is not None:
            return endpoint
        names = ", ".join(other.name for other in self.endpoints()) or "none"
        raise OptionError(f"there is no endpoint {shown(name)}; there are: {names}")

    def put_endpoint(self, endpoint: Endpoint) -> None:
        document = self._documents(ENDPOINTS).get(endpoint.name) or {}
        self._change(Step(ENDPOINTS, endpoint.name, document | document_of(endpoint, "name")))

    def drop_endpoint(self, name: str) -> None:
        """Delete an endpoint and its data for good (contract 2.5)."""
        self._change(Step(ENDPOINTS, name), Step(name))

    # Records

    def user_names(self, endpoint: str, unique_id: str) -> tuple[str, ...]:
        """Return the username and email that a user has, none where there is no such user."""
        return self._value(endpoint, unique_id, lambda _, user: names_of(user)) or ()

    def count(self, name: str) -> int:
        return len(self._documents(name))

    def record(self, name: str, unique_id: str) -> Record | None:
        record: Record | None = self._documents(name).get(unique_id)
        return record

    def put_record(self, name: str, record: Record) -> None:
        self._change(Step(name, record.unique_id, record))

    def drop_record(self, name: str, unique_id: str) -> None:
        self._change(Step(name, unique_id))

    # Sessions

    def sessions(self) -> list[Session]:
        return list(filter(None, map(self.session, self._documents(SESSIONS))))

    def tokens_of(self, endpoint: str, user: str | None = None) -> list[str]:
        """Return the tokens of a user, or of every user, of an endpoint."""
        logins = self._documents(SESSIONS).items()
        return [token for token, login in logins if login["endpoint"] == endpoint and user in (None, login["user"])]

    def session(self, token: str) -> Session | None:
        return self._value(SESSIONS, token, read_session)

    def put_session(self, session: Session) -> None:
        document = {"endpoint": session.endpoint, "user": session.user, "expiresAt": write_moment(session.expires_at)}
        self._change(Step(SESSIONS, session.token, document))

    def drop_session(self, token: str) -> None:
        self._change(Step(SESSIONS, token))

    # Mails

    def mails(self) -> list[Mail]:
        return [read_mail(token, document) for token, document in self._documents(MAILS).items()]

    def put_mail(self, mail: Mail) -> None:
        """Keep a mail; of too many, the oldest goes."""
        mails = self._documents(MAILS)
        document = document_of(mail, "token")
        document |= {"sentAt": write_moment(mail.sent_at), "expiresAt": write_moment(mail.expires_at)}
        with self.batch():
            if mail.token not in mails and len(mails) >= MOST_MAILS:
                self._change(Step(MAILS, next(iter(mails))))
            self._change(Step(MAILS, mail.token, document))

    # Other states

    def fork(self, key: str, drop_file: Callable[[str], None], data: Tree | None = None) -> Store:
        """Make a store in memory of what this one began with, or of data: of the first project, under another key."""
        begin: Mapping[str, Mapping[str, Any]] = data or self._checkpoints[START]
        default, project = next(iter(begin[PROJECTS].items()))
        names = [name for name, document in begin[ENDPOINTS].items() if document["project"] == default]
        endpoints = {name: begin[ENDPOINTS][name] | {"project": key} for name in names}
        logins: Tree = {
            name: {token: login for token, login in begin[name].items() if login["endpoint"] in endpoints}
            for name in (SESSIONS, MAILS)
            if name in begin
        }
        records = {name: table for name, table in begin.items() if name in endpoints}
        return Store(JsonFile(None, {PROJECTS: {key: project}, ENDPOINTS: endpoints, **logins, **records}), drop_file)

    def read(self, data: Mapping[str, Json], *, start: bool = False) -> Tree:
        """Check a data file; one without projects has those of now, or of the start. Raises OptionError."""
        return read_data(data, (self._checkpoints[START] if start else self.file.tables)[PROJECTS])

    def load(self, tree: Tree) -> list[tuple[str, Change]]:
        """Make the tree of a data file the state, with the key of now; returns changes as ``restore`` does."""
        key, first = self.projects()[0].key, next(iter(tree[PROJECTS]))
        if key not in tree[PROJECTS]:
            tree[PROJECTS] = {key if name == first else name: project for name, project in tree[PROJECTS].items()}
            moved = {name: one | {"project": key} for name, one in tree[ENDPOINTS].items() if one["project"] == first}
            tree[ENDPOINTS] |= moved
        return self._become(grow(tree))


def taken_since(table: Documents, before: Documents, after: Documents) -> str | None:
    """Return the id of a document that was deleted between before and after, and that another one has now."""
    gone = (key for key in before.changed(after) if key not in after)
    return next((key for key in gone if key in table and table[key] != before[key]), None)


def take_back(table: Documents, before: Documents, after: Documents) -> None:
    """Turn documents of a table that are as they were ``after`` into what they were ``before``, in their places."""
    changed = [key for key in before.changed(after) if table.get(key) == after.get(key)]
    behind: dict[str, tuple[str, Any]] = {}
    for key in changed:
        if key not in before:
            del table[key]
        elif key in table:
            table[key] = before[key]
    missing = {key for key in changed if key in before and key not in table}
    last = ""
    for key, document in before.items() if missing else ():
        if key in missing:
            behind[last] = key, document
        if key in missing or key in table:
            last = key
    if behind:
        table.put_behind(behind)


def credentials_of(record: Record | None) -> list[tuple[str, str]]:
    """Return the members of CREDENTIALS that a record has as texts, with their values."""
    data = members_of(record.data) if record else {}
    return [(name, value) for name in CREDENTIALS if isinstance(value := data.get(name), str)]


def names_of(user: Record) -> tuple[str, ...]:
    """Return the username and email that a user has, as far as these are texts."""
    return tuple(name for _, name in credentials_of(user))


def has_file(document: object) -> bool:
    """Whether a document is a record that stands for an uploaded file."""
    return isinstance(document, Record) and document.file is not None


def file_in(tables: Tables, unique_id: str) -> bool:
    """Whether any table has a record of that id with an uploaded file."""
    return any(has_file(table.get(unique_id)) for table in tables.values())


def changes_by(steps: Iterable[Step], old: Tables) -> list[tuple[str, Change]]:
    """Return what listeners hear of steps that change the old tables, each with the endpoint's name."""
    new = {(name, key): document for name, key, document, _ in steps if key and not name.startswith("_")}
    changes: list[tuple[str, Change]] = []
    for (name, key), document in new.items():
        before = old.get(name, NO_DOCUMENTS).get(key)
        if document is None and before is not None:
            changes.append((name, Change("DELETE", before)))
        elif document is not None and document != before:
            changes.append((name, Change("PUT" if before else "POST", cast("Record", document))))
    return changes


def told_changes(steps: Sequence[Step], old: Tables) -> str:
    """Say how many records steps have added, changed and deleted, and how many other lines of a data file are new."""
    count = Counter(change.type for _, change in changes_by(steps, old))
    other = sum(step.table.startswith("_") for step in steps)
    return f"records added: {count['POST']}, changed: {count['PUT']}, deleted: {count['DELETE']}, other lines: {other}"


def consequences(old: Tables, steps: Iterable[Step], path: str) -> tuple[list[Step], bool]:
    """Return more steps that an edit entails: endpoints of new tables, no owners, sessions, mails of deleted users.

    Also tells whether there are such of users who were deleted over the API. Raises DataFileError if the edit and
    what was stored meanwhile contradict each other.
    """
    merged = {name: dict(table) for name, table in old.items()}
    deleted = {key or "" for _, key, document, _ in steps if document is None}
    for name, key, document, _ in steps:
        if document is None:
            merged.get(name, {}).pop(key or "", None)
        else:
            merged.setdefault(name, {})[key or ""] = document
    try:
        whole = complete_tree({name: dict(table) for name, table in merged.items() if table})
    except OptionError as error:
        raise DataFileError(f"{path}: with what was stored meanwhile: {error}") from None
    tell_dropped(path, drop_gone(whole, deleted))
    more = [step for name, table in whole.items() for step in edit_of(name, merged.get(name, {}), table)]
    return more, bool(drop_gone({name: dict(table) for name, table in whole.items()}))


def way_to(old: Tables, new: Tables) -> list[Step]:
    """Return the steps that turn the old tables into the new ones, with every document in its place."""
    names = dict.fromkeys([*old, *new])
    tables = ((name, old.get(name, NO_DOCUMENTS), new.get(name, NO_DOCUMENTS)) for name in names)
    return [step for table in tables for step in way_of_table(*table)]


def way_of_table(name: str, now: Documents, then: Documents) -> Iterator[Step]:
    """Return the steps that turn one table into another: deletions first, then all else in the order of the table."""
    changed, moved = now.changed(then), now.moved(then)
    # A document that has another place is deleted and inserted.
    yield from (Step(name, key) for key in changed if key not in then)
    yield from (Step(name, key) for key in moved)
    placed = moved.union(key for key in changed if key not in now)
    if not placed:
        yield from (Step(name, key, then[key]) for key in changed if key in then)
        return
    before = ""
    for key, document in then.items():
        if key in placed:
            yield Step(name, key, document, before)
        elif key in changed:
            yield Step(name, key, document)
        before = key


# - Access -------------------------------------------------------------------------------------------


class Caller(NamedTuple):
    """Who sends a request: a logged-in user, the holder of the master key, or anyone."""

    session: Session | None = None
    master: bool = False

    @property
    def user(self) -> str | None:
        """The user's unique id."""
        return self.session.user if self.session else None

    def may_read(self, endpoint: Endpoint, record: Record) -> bool:
        """Tell whether GET shows the record, and a listener hears of it (contract 6.5, 6.8 and 7.5)."""
        return self._may(endpoint, record, endpoint.others_can_read)

    def may_change(self, endpoint: Endpoint, record: Record, operation: Operation) -> bool:
        """Tell whether PUT or DELETE is allowed on the record (contract 5.5, 6.5 and 2.4)."""
        others = endpoint.others_can_update if operation is Operation.UPDATE else endpoint.others_can_delete
        return self._may(endpoint, record, others)

    def _may(self, endpoint: Endpoint, record: Record, others: bool) -> bool:
        """Tell whether the caller has access to a record, given what ``others`` than its owner may do."""
        if self.master or not endpoint.needs_token:
            return True
        if self.session is None:
            return False
        if endpoint.authentication:
            return self.session.endpoint == endpoint.name and self.user == record.unique_id
        # A record without an owner is every user's (contract 6.8).
        return others or record.owner in (None, self.user)


@dataclass(frozen=True)
class Gate:
    """The outer gate, which requests pass before the rules of the service: it keeps foreign web pages out.

    Any web page can send requests to localhost. So the Host must be one of ``hosts`` or mean this machine,
    and an Origin must be a loopback one or one that the project allows. ``any_address`` lets in hosts that
    spell out an IP address, which no foreign name server can forge.
    """

    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    any_origin: bool = False

    def check_host(self, host: str | None) -> None:
        """Raise Refusal for a Host header that is missing, or names another machine (DNS rebinding)."""
        if host is None or "," in host:
            # RFC 9112, section 3.2; Tornado joins several headers of a name with commas.
            raise Refusal(Message.WRONG_HOST, "A request has exactly one Host header.", hidden=True)
        name = host_name(host)
        if name and (name in self.hosts or is_loopback(name)):
            return
        address = parse_address(name)
        # Browsers let any page ask 0.0.0.0, and it leads to this machine.
        if self.any_address and address is not None and not address.is_unspecified:
            return
        hint = f"Host {shown(host)} is not this machine; allow it with --allow-host {name or 'NAME'}."
        raise Refusal(Message.HOST_REFUSED, hint, hidden=True)

    def check_origin(
        self, origin: str | None, allowed: Sequence[str], host: str | None = None, *, for_control: bool = False
    ) -> None:
        """Raise OriginRefused for a page of another site (cross-site requests and sockets).

        A page that came from ``host``, the Host header that ``check_host`` let in, is the emulator's own. Those of
        other sites never reach control, whatever ``any_origin`` says.
        """
        if origin is None or (self.any_origin and not for_control):
            return
        clean = parse_origin(origin)
        if clean in allowed or is_loopback_origin(origin) or (clean and is_own_origin(clean, host)):
            return
        hint = f"Origin {shown(origin)} is foreign to this machine; "
        if for_control:
            raise OriginRefused(hint + "call control from a page of this machine, or from no page.")
        by_name = f"--allow-origin {clean}, change-project, or " if clean else ""
        raise OriginRefused(f"{hint}allow it with {by_name}--allow-any-origin.")


def is_own_origin(origin: str, host: str | None) -> bool:
    """Tell whether an origin is the emulator's own, by the header Host of the same request."""
    return bool(host) and origin in (parse_origin(f"http://{host}"), parse_origin(f"https://{host}"))


def host_name(host: str) -> str:
    """Return the name in a Host header in lower case, without port and trailing dot; empty if malformed."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]\\]+)(?::\d{1,5})?", host)
    return match[1].lower().removesuffix(".") if match else ""


def same_secret(guess: str, secret: str) -> bool:
    """Compare two texts in a time that does not depend on where they differ."""
    import hmac

    return hmac.compare_digest(guess.encode(errors="replace"), secret.encode(errors="replace"))


def check_project(store: Store, request: Request) -> tuple[Project, Endpoint]:
    """Return the project and endpoint that a request names; raises Refusal (contract 5.2, 5.3)."""
    key, name = request.parameters.key, request.endpoint
    if not key:
        hint = "Add ?key=KEY to the URL; the banner and GET /__emulator__/status show the key."
        raise Refusal(Message.KEY_MISSING, hint, reason=Message.NOT_VALID)
    project, endpoint = store.project(key), store.endpoint(name)
    if endpoint is None:
        raise Refusal(Message.NOT_VALID, why_no_endpoint(name, [other.name for other in store.endpoints()]))
    if project is None or endpoint.project != key:
        hint = f"Key {shown(key, 12)} is not the key of the project that endpoint {shown(name)} belongs to."
        raise Refusal(Message.NOT_VALID, hint + " The banner and GET /__emulator__/status show it.")
    return project, endpoint


def why_no_endpoint(name: str, names: Sequence[str]) -> str:
    """Say which endpoint a name may mean that none has, and how to make one of this name."""
    there = ", ".join(names[:10]) or "none"
    hint = f"There is no endpoint {shown(name)} (there are: {there}); make it with --endpoint or change-endpoint."
    place, _, record = name.rstrip("/").rpartition("/")
    if record and place in names:
        return f"{hint} A record of {place} is chosen in the query: {shown(f'&uniqueId={record}', 60)}."
    like = closest(name, names)
    return f"{hint} Did you mean {like}?" if like else hint


def holds_master_key(project: Project | None, request: Request, operation: Operation) -> bool:
    """Tell whether the request carries the right master key where it counts (contract 4.5)."""
    key = request.parameters.master_key
    if key is None or project is None or project.master_key is None or not operation.honours_master_key:
        return False
    return same_secret(key, project.master_key)


def check_master_key(project: Project, request: Request, operation: Operation) -> None:
    """Raise Refusal for a master key that ``holds_master_key`` found wrong, or where none is set (contract 4.5)."""
    if request.parameters.master_key is not None and operation.honours_master_key:
        hint = "This is not the project's master key; set it with --master-key or change-project."
        raise Refusal(Message.WRONG_MASTER_KEY, hint, hidden=not origin_allowed(project, request.origin))


def origin_allowed(project: Project, origin: str | None) -> bool:
    """Tell whether a project lets pages of an origin call it, or None, no page (contract 2.7 and 5.2)."""
    if origin is None:
        return not project.disallow_no_origin
    return not project.allowed_origins or parse_origin(origin) in project.allowed_origins


def check_origin(project: Project, origin: str | None) -> None:
    """Raise Refusal where ``origin_allowed`` says no (contract 5.2)."""
    if origin_allowed(project, origin):
        return
    if origin is None:
        hint = f"Project {shown(project.name)} refuses requests without Origin (disallowNoOrigin)."
        raise Refusal(Message.NO_ORIGIN, hint, reason=Message.ORIGIN_REFUSED)
    raise OriginRefused(
        f"Origin {shown(origin)} is not among the allowed origins of project {shown(project.name)} "
        f"({', '.join(project.allowed_origins)}); allow it with --allow-origin {parse_origin(origin) or 'ORIGIN'} "
        "or change-project."
    )


def is_webkit(agent: str) -> bool:
    """Tell whether a User-Agent is Safari, or another browser with its rules for cookies."""
    # Chrome names AppleWebKit too.
    return "AppleWebKit" in agent and "Chrome" not in agent


def why_no_token(request: Request) -> list[str]:
    """Say what may have become of the token of a request without one, a sentence for each reason."""
    headers, page = request.headers, origin_host(request.origin or "")
    if authorization := headers.get("Authorization", "").strip():
        lacks = "the token" if authorization.lower() == "bearer" else "the word Bearer, and a space, before the token"
        return [f"The header Authorization lacks {lacks}."]
    if request.parameters.access_token:
        return ["accessToken in the URL counts for a WebSocket alone; send the header Authorization: Bearer TOKEN."]
    reasons = []
    if request.parameters.master_key is not None:
        reasons.append("masterKey counts for nothing here.")
    if is_webkit(headers.get("User-Agent", "")):
        lift = "log in with noATCookie=true, or start with --plain-cookie or --tls"
        reasons.append(f"Safari drops a Secure cookie that comes over plain http: {lift}.")
    if page and not is_own_origin(parse_origin(request.origin or "") or "", request.host):
        here = host_name(request.host or "")
        if page != here:
            where = f"the page is on {shown(page, 60)} and the emulator on {shown(here, 60)}"
            reasons.append(f"Over plain http a browser keeps no cookie, since {where}: use one host name for both.")
        # A page that sends other cookies would send this one too.
        if "Cookie" not in headers:
            how = 'credentials: "include" (axios: withCredentials: true)'
            reasons.append(f"No cookie came: a page of another origin has to log in, and to ask, with {how}.")
    return reasons


def why_no_such_token(token: str) -> str | None:
    """Say what a token that nobody has looks like; None if like any other. A token is never quoted."""
    word = token.strip("\"'").lower()
    if word in ("null", "undefined", "nan", "none", "[object object]"):
        return f"The access token is the word {word}: the page had none. Log in first, and keep what the login answers."
    if word.startswith("bearer"):
        return "The access token begins with Bearer: Authorization says that once, accessToken not at all."
    if token[0] in "\"'":
        return "The access token is in quotation marks, as JSON.stringify makes them; send it without."
    return None


class Client(NamedTuple):
    """Who sends a request, as far as that can be told: the user whose token it shows, and the page and program.

    ``user`` is an endpoint and unique id, ``names`` are the user's. ``origin`` and ``agent`` stand in the headers.
    The console is nobody that a test asks for.
    """

    user: tuple[str, str] | None = None
    names: tuple[str, ...] = ()
    token: str | None = None
    origin: str | None = None
    agent: str = ""
    is_console: bool = False

    @property
    def name(self) -> str | None:
        """The name by which reports tell of the user."""
        return self.names[0] if self.names else None

    def is_like(self, other: Client, *, of_any_page: bool = False) -> bool:
        """Tell whether they may be one: by user where both have one, else by page and program."""
        if self.user and other.user:
            return self.user == other.user
        return self.agent == other.agent and (of_any_page or self.origin == other.origin)


def client_of(store: Store, request: Request) -> Client:
    """Return whose a request is, be its token valid or expired."""
    # Interned, since thousands of sockets have the same few.
    agent = sys.intern(request.headers.get("User-Agent", ""))
    session = store.session(request.token) if request.token else None
    user = (session.endpoint, session.user) if session else None
    names = store.user_names(*user) if user else ()
    return Client(user, names, request.token, request.origin, agent, request.parameters.from_console)


def identify(store: Store, request: Request, endpoint: Endpoint, now: float) -> Session:
    """Return the session of the request's token (contract 5.4 and 6.7); raises Refusal."""
    if not request.token:
        hint = f"Endpoint {shown(endpoint.name)} is only for logged-in users; log in, and send the cookie or the "
        end = "." if endpoint.authentication else ", or change its option secure."
        hint += f"header Authorization: Bearer TOKEN{end}"
        raise Refusal(Message.NO_TOKEN, " ".join([hint, *why_no_token(request)]))
    session = store.session(request.token)
    home = store.endpoint(session.endpoint) if session else None
    user = store.record(session.endpoint, session.user) if session else None
    if session is None or user is None or home is None or home.project != endpoint.project:
        hint = "The access token is unknown here: logged out, from before a reset, of a deleted user or another "
        raise Refusal(Message.NO_TOKEN, why_no_such_token(request.token) or f"{hint}project.")
    if session.expires_at <= now:
        expired_at = timestamp(session.expires_at)
        hint = f"The token expired at {expired_at}; log in again, or start with a longer --token-ttl."
        # A handshake with it is told what one without a token is told (contract 7.2).
        raise Refusal(Message.TOKEN_EXPIRED, hint, reason=Message.NO_TOKEN)
    return session


# - Accounts -----------------------------------------------------------------------------------------

RESET_SECONDS = 3600.0  # that the token in a reset mail is valid


class Accounts:
    """Users, who are the records of an authentication endpoint, and their access tokens."""

    def __init__(self, store: Store, clock: Clock, make_id: Callable[[], str]) -> None:
        """``make_id`` makes tokens."""
        self._store = store
        self._clock = clock
        self._make_id = make_id

    def check_user(self, endpoint: str, packed: bytes, unique_id: str | None = None) -> None:
        """Raise Refusal for data that is no user's, or has the name of a user of another id (contract 6.2, 6.5)."""
        data = decode(packed)
        if why := why_no_user(data):
            raise Refusal(Message.MEMBER_MISSING, f"The body makes no user: {why}.")
        assert isinstance(data, dict)
        for name in CREDENTIALS:
            other = self._store.user(endpoint, name, str(data[name])) if name in data else None
            if other is not None and other.unique_id != unique_id:
                hint = f"Endpoint {shown(endpoint)} has a user with {name} {shown(data[name])}."
                raise Refusal(Message.USER_EXISTS, hint)

    def delete_record(self, endpoint: Endpoint, unique_id: str) -> list[str]:
        """Delete a record, with the tokens of one that is a user; returns those tokens."""
        # In one batch, or a kill in between would leave tokens of a user who is gone.
        with self._store.batch():
            self._store.drop_record(endpoint.name, unique_id)
            return self.revoke(endpoint.name, unique_id) if endpoint.authentication else []

    def check_password(self, endpoint: str, packed: bytes) -> Record:
        """Return the user with the name and password of a login (contract 6.3); raises Refusal."""
        data = members_of(decode(packed))
        names = [name for name in CREDENTIALS if name in data]
        if len(names) != 1:
            hint = "A login takes an object with password and either username or email, not both."
            raise Refusal(Message.MEMBER_MISSING, hint)
        name, password = data[names[0]], data.get("password")
        if not isinstance(name, str) or not name or not isinstance(password, str) or not password:
            raise Refusal(Message.MEMBER_MISSING, f"{names[0]} and password must be texts that are not empty.")
        user = self._store.user(endpoint, names[0], name)
        if user is None:
            who = f"user with {names[0]} {shown(name)}"
            hint = f"Endpoint {shown(endpoint)} has no {who}; register it with a plain POST."
            raise Refusal(Message.NO_USER, hint)
        stored = members_of(user.data).get("password")
        if stored is None:
            hint = f"User {shown(name)} has no password yet; set one with PUT and the master key, or by a reset mail."
            raise Refusal(Message.WRONG_CREDENTIALS, hint)
        if not isinstance(stored, str) or not same_secret(password, stored):
            raise Refusal(Message.WRONG_CREDENTIALS, f"The password of {shown(name)} is another one.")
        return user

    def _homes(self) -> list[str]:
        """Return the endpoints of users."""
        return [endpoint.name for endpoint in self._store.endpoints() if endpoint.authentication]

    def has_name(self, name: str) -> bool:
        """Tell whether a user of any endpoint has this username or email."""
        return any(self._store.user(home, kind, name) for home in self._homes() for kind in CREDENTIALS)

    def names(self) -> list[str]:
        """Return the usernames, else emails, of all users."""
        users = [user for home in self._homes() for user in self._store.records(home)]
        return [name for user in users for _, name in credentials_of(user)[:1]]

    def without_password(self) -> list[str]:
        """Return the users who cannot log in, by name and endpoint: a data file may leave out the password."""
        users = []
        for home in self._homes():
            for user in self._store.records(home):
                data = members_of(user.data)
                if data and "password" not in data:
                    users.append(f"{shown(data.get('username', data.get('email')))} of {home}")
        return users

    def send_reset(self, endpoint: Endpoint, packed: bytes) -> Mail:
        """Put a mail with a verification token into the outbox (contract 6.9); raises Refusal."""
        email, name = map(members_of(decode(packed)).get, ("email", "templateName"))
        if not isinstance(email, str) or not isinstance(name, str):
            raise Refusal(Message.MEMBER_MISSING, "A password reset takes an object with email and templateName.")
        user = self._store.user(endpoint.name, "email", email)
        if user is None:
            hint = f"Endpoint {shown(endpoint.name)} has no user with email {shown(email)}."
            raise Refusal(Message.NO_USER, hint, status=400)
        project = self._store.project(endpoint.project)
        templates = project.reset_templates if project else {}
        if name not in templates:
            there = f"there are: {', '.join(templates) or 'none'}"
            hint = f"There is no template {shown(name)} ({there}); add it with --reset-template or change-project."
            raise Refusal(Message.NO_TEMPLATE, hint)
        import html

        now, token = self._clock.now(), self._make_id()
        # The email is what a user registered with, so it may be HTML.
        filled = templates[name].replace("{{verificationtoken}}", token).replace("{{email}}", html.escape(email))
        mail = Mail(token, endpoint.name, user.unique_id, email, name, filled, now, now + RESET_SECONDS)
        self._store.put_mail(mail)
        return mail

    def reset_password(self, endpoint: str, packed: bytes) -> tuple[Record, bytes, Mail]:
        """Return the user of a verification token, the new data, and the mail (contract 6.9); raises Refusal."""
        members = ("verificationToken", "password", "passwordConfirmation")
        token, password, confirmation = map(members_of(decode(packed)).get, members)
        if not all(isinstance(value, str) and value for value in (token, password, confirmation)):
            raise Refusal(Message.MEMBER_MISSING, f"A new password takes an object with {', '.join(members)}.")
        if password != confirmation:
            raise Refusal(Message.PASSWORDS_DIFFER, "Send the same text as password and passwordConfirmation.")
        mail = next((mail for mail in self._store.mails() if mail.token == token), None)
        user = self._store.record(endpoint, mail.user) if mail and mail.endpoint == endpoint else None
        data = members_of(user.data) if user else {}
        if mail is None or user is None or not data:
            hint = f"No mail of endpoint {shown(endpoint)} has this token; GET /__emulator__/mails shows the outbox."
            raise Refusal(Message.WRONG_VERIFICATION, hint)
        if mail.used or mail.expires_at <= self._clock.now():
            why = "was used already" if mail.used else f"expired at {timestamp(mail.expires_at)}"
            raise Refusal(Message.WRONG_VERIFICATION, f"The token {why}; ask for another mail.")
        return user, encode(data | {"password": password}), mail

    def open_session(self, endpoint: Endpoint, user: str) -> Session:
        """Log a user in: a new token for as long as the project says (contract 6.7)."""
        project = self._store.project(endpoint.project)
        assert project is not None
        session = Session(self._make_id(), endpoint.name, user, self._clock.now() + project.token_ttl)
        self._store.put_session(session)
        return session

    def expire(self, *, username: str | None = None, token: str | None = None) -> list[str]:
        """Let sessions expire now: all, those of a user by username or email, or one. Returns their tokens."""
        now = self._clock.now()
        ended = []
        with self._store.batch():
            for session in self._store.sessions():
                names = self._store.user_names(session.endpoint, session.user) if username is not None else ()
                if session.expires_at > now and token in (None, session.token) and username in (None, *names):
                    self._store.put_session(replace(session, expires_at=now))
                    ended.append(session.token)
        return ended

    def forget_expired(self) -> None:
        """Delete sessions that expired over a day ago; until then a refusal says that their tokens have expired."""
        yesterday = self._clock.now() - 86400
        with self._store.batch():
            for session in self._store.sessions():
                if session.expires_at < yesterday:
                    self._store.drop_session(session.token)

    def live_tokens(self) -> set[str]:
        """Return the tokens that have not expired, of users who are not deleted."""
        now = self._clock.now()
        live = [session for session in self._store.sessions() if session.expires_at > now]
        return {session.token for session in live if self._store.record(session.endpoint, session.user)}

    def revoke(self, endpoint: str, user: str | None = None) -> list[str]:
        """Delete the sessions of a user, or of all users, of an endpoint. Returns their tokens."""
        ended = self._store.tokens_of(endpoint, user)
        with self._store.batch():
            for token in ended:
                self._store.drop_session(token)
        return ended


# - Uploads ------------------------------------------------------------------------------------------


MOST_FILES = 10
LARGEST_FILE = 100 * 2**20
MULTIPART = "multipart/form-data"
FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
MIME_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[\x20-\x7e]*)?\Z", re.ASCII)
DISPOSITION_OPTION = re.compile(r';\s*([\w-]+\*?)\s*=\s*("(?:\\"|[^"])*"|[^;\s]*)', re.ASCII)


class Files:
    """Uploaded files in a folder beside the data file, each under its record's unique id.

    A file's own name is data and never part of a path. Without a ``folder`` the files are in a temporary one,
    which is made when it is needed. ``others`` are folders whose files are read, and never deleted.
    """

    def __init__(self, folder: str | None, *others: str) -> None:
        self._folder = folder
        self._others = others
        self._is_temporary = folder is None
        self._is_closed = False

    def finish_drafts(self, has_file: Callable[[str], bool]) -> None:
        """Keep or delete each draft of an emulator that was killed, as there is a record for it. Raises OSError."""
        for name in os.listdir(self._folder) if self._folder and os.path.isdir(self._folder) else ():
            unique_id = name.removesuffix(".part")
            if unique_id == name:
                continue
            if has_file(unique_id):
                self.keep(unique_id)
            else:
                delete_file(self.draft(unique_id))

    def reader(self) -> Files:
        """Make files of another world, which has these too and cannot delete them."""
        return Files(None, *filter(None, (self._folder, *self._others)))

    def path(self, unique_id: str) -> str | None:
        """Return the path of a record's file; None if there is none."""
        if not FILE_ID.match(unique_id):
            return None
        folders = filter(None, (self._folder, *self._others))
        return next(filter(os.path.isfile, (os.path.join(folder, unique_id) for folder in folders)), None)

    def has_id(self, unique_id: str) -> bool:
        """Whether there is the file of a record of that id, or its draft."""
        return self.path(unique_id) is not None or os.path.exists(self.draft(unique_id))

    def open_draft(self, unique_id: str) -> int:
        """Create the file of a record to be, which is a draft until ``keep``. Raises OSError."""
        if self._is_closed:
            raise OSError(errno.ESTALE, "the world it is for has ended")
        if self._folder is None:
            import tempfile

            self._folder = tempfile.mkdtemp(prefix="rested-emulator-")
        os.makedirs(self._folder, exist_ok=True)
        return open_bytes(self.draft(unique_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def draft(self, unique_id: str) -> str:
        """Return the path of a draft."""
        return os.path.join(self._folder or "", f"{unique_id}.part")

    def keep(self, unique_id: str) -> None:
        """Make a draft the file of its record. Raises OSError."""
        os.replace(self.draft(unique_id), os.path.join(self._folder or "", unique_id))

    def drop(self, unique_id: str) -> None:
        """Delete the file of a record; what cannot be deleted stays."""
        if self._folder and FILE_ID.match(unique_id):
            delete_file(os.path.join(self._folder, unique_id))

    def close(self, gone: Iterable[str]) -> None:
        """Delete the files of these records, and a temporary folder with all in it; no more drafts can be opened."""
        self._is_closed = True
        for unique_id in gone:
            self.drop(unique_id)
        if self._folder is None:
            return
        for name in os.listdir(self._folder) if self._is_temporary and os.path.isdir(self._folder) else ():
            delete_file(os.path.join(self._folder, name))
        # Only if it is empty: rmdir(2) refuses any other.
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)


class Upload:
    """A multipart body, parsed while it arrives: files go to disk, text fields to memory (contract 8.1).

    What is wrong with the body is raised by ``finish``, so that the checks of contract 5.6 come first.
    """

    def __init__(self, files: Files, headers: Mapping[str, str], max_fields: int, make_id: Callable[[], str]) -> None:
        """Begin to parse; ``make_id`` makes the ids of files.

        Raises Refusal where a package is missing, or the content type names no boundary.
        """
        content_type = headers.get("Content-Type")
        try:
            # Another package of this module's name, python-multipart, lacks the first of these.
            from multipart import MultipartError, PushMultipartParser, parse_options_header
        except ImportError:
            raise not_installed("File uploads", "multipart>=2,<3") from None
        check_encoding(headers.get("Content-Encoding"))
        _, options = parse_options_header(content_type or "")
        boundary = options.get("boundary", "")
        if not boundary:
            hint = f"Content-Type {shown(content_type)} has no boundary: leave the Content-Type header out, "
            raise Refusal(Message.WRONG_BODY, hint + "the client makes it.")
        try:
            self._parser = PushMultipartParser(boundary, max_header_size=2**14, max_segment_count=1000)
        except MultipartError as error:
            raise Refusal(Message.WRONG_BODY, f"Content-Type {shown(content_type)}: {error}.") from None
        self._error = MultipartError
        self.files = files  # those of the world that it is for
        self._make_id = make_id
        self._max_fields = max_fields
        self._fields_size = 0
        self._fields: list[tuple[str, bytearray]] = []
        self._done: dict[str, dict[str, Json]] = {}  # by id, the members ``file`` of their records
        # The part that arrives; and of the file in it name, type, id, size and descriptor.
        self._part = ""
        self._name: str | None = None
        self._type = ""
        self._id = ""
        self._size = 0
        self._out: int | None = None
        self.refusal: Refusal | None = None

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes, of which none is the end; those after the last part, or a refusal, are ignored."""
        if self.refusal is not None or self._parser.closed:
            return
        try:
            for event in self._parser.parse(chunk):
                if event is None:
                    self._end()
                elif isinstance(event, bytes):
                    self._take(event)
                else:
                    self._begin(event)
        except Refusal as refusal:
            self.refusal = refusal
        except self._error as error:
            self.refusal = Refusal(Message.WRONG_BODY, f"The multipart body is not valid: {error}.")
        except OSError as error:
            self.refusal = not_stored(error, self.files.draft(self._id))

    def _begin(self, part: Any) -> None:
        """Begin a part, by its headers."""
        self._part, self._name = part.name, file_name(part)
        if self._name is None:
            self._fields.append((part.name, bytearray()))
            self._count(len(part.name))
            return
        kind = part.header("Content-Type", "")
        self._type = kind if MIME_TYPE.match(kind) else "application/octet-stream"
        # A part without a name and without bytes is an input of a form in which no file was chosen.
        if self._name:
            self._open()

    def _open(self) -> None:
        """Open the draft of the part's file."""
        if self._part != "file":
            hint = f"A file came as part {shown(self._part)}; every file is a part named file."
            raise Refusal(Message.WRONG_FILES, hint)
        if len(self._done) == MOST_FILES:
            raise Refusal(Message.WRONG_FILES, f"There are more than {MOST_FILES} files.")
        self._id, self._size = self._make_id(), 0
        self._out = self.files.open_draft(self._id)

    def _count(self, size: int) -> None:
        """Count bytes of text fields; raises Refusal where they are too many for the memory."""
        self._fields_size += size
        if self._fields_size > self._max_fields:
            raise Refusal(Message.TOO_LARGE, "The text fields are over the limit; raise it with --max-body.")

    def _take(self, chunk: bytes) -> None:
        """Keep bytes of the part's content."""
        if self._name is None:
            self._count(len(chunk))
            self._fields[-1][1].extend(chunk)
            return
        if self._out is None:
            # A file without a name, which has bytes all the same.
            self._open()
            assert self._out is not None
        self._size += len(chunk)
        if self._size > LARGEST_FILE:
            raise Refusal(Message.TOO_LARGE, f"File {shown(self._name)} is over {LARGEST_FILE} bytes.")
        while chunk:
            chunk = chunk[os.write(self._out, chunk) :]

    def _end(self) -> None:
        """End a part; if it was a file, the draft is whole."""
        if self._out is None:
            return
        out, self._out = self._out, None
        os.close(out)
        self._done[self._id] = {"originalName": self._name or "", "mimeType": self._type, "size": self._size}

    def finish(self) -> tuple[dict[str, dict[str, Json]], dict[str, Json]]:
        """Return the files by id, and the metadata, once all has arrived; raises the Refusal of a wrong body."""
        self.feed(b"")
        if self.refusal is not None:
            raise self.refusal
        if not self._done:
            raise Refusal(Message.WRONG_FILES, "There is no file; send it as a part named file.")
        texts: dict[str, list[Json]] = {}
        for name, value in self._fields:
            try:
                texts.setdefault(name, []).append(value.decode())
            except UnicodeDecodeError:
                raise Refusal(Message.WRONG_BODY, f"Field {shown(name)} is not UTF-8.") from None
        # A field that comes several times is a list.
        return self._done, {name: values if len(values) > 1 else values[0] for name, values in texts.items()}

    def discard(self) -> None:
        """Delete all drafts that are left; must not be called while ``feed`` runs in another thread."""
        if self._out is not None:
            os.close(self._out)
            self._out = None
        for unique_id in filter(None, {self._id, *self._done}):
            delete_file(self.files.draft(unique_id))


def file_name(part: Any) -> str | None:
    """Return the name of the file in a part, exactly as the client has it; None for a text field.

    ``filename*`` (RFC 5987), which old HTTP libraries send for names beyond ASCII, counts before ``filename``.
    The library's own reading is not used, as it cuts ``C:\\a`` down to ``a`` for the sake of Internet Explorer 6.
    """
    from multipart import content_disposition_unquote

    options = {
        name.lower(): value for name, value in DISPOSITION_OPTION.findall(part.header("Content-Disposition", ""))
    }
    with contextlib.suppress(LookupError, ValueError):
        charset, _, extended = options["filename*"].strip('"').split("'")
        return unquote_to_bytes(extended).decode(charset)
    return cast("str", content_disposition_unquote(options["filename"])) if "filename" in options else None


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return first byte and length of a Range header; None where it is to be ignored (contract 8.2).

    RFC 9110, section 14.2, lets a server ignore what is malformed, of another unit or of several ranges.
    Raises Refusal for one that begins behind the end of the file.
    """
    # The pattern goes through many spaces again and again, for minutes; no range is that long.
    if len(header) > 200:
        return None
    match = re.fullmatch(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)", header.strip(), re.IGNORECASE | re.ASCII)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last or size), size - 1)
        if last and int(last) < start:
            return None
    if start >= size or end < start:
        hint = f"Range {shown(header)} is outside of the {size} bytes."
        # RFC 9110, section 15.5.17, wants the header.
        raise Refusal(Message.WRONG_RANGE, hint, headers={"Content-Range": f"bytes */{size}"})
    return start, end - start + 1


# - Live ---------------------------------------------------------------------------------------------


# Rules by which a socket ends, as ``recoveries`` names them
EXPIRED, OPTIONS_CHANGED = "expired token", "changed options"
STOPPED_READING, LOST_BY_CLIENT = "stopped reading", "lost by the client"


class Channel(Protocol):
    """The way to a listener. No method may block, raise, or call back into the Hub."""

    @property
    def waiting(self) -> int:
        """Bytes that were sent and that the system has not taken yet."""

    def send(self, message: bytes) -> None:
        """Take one text message; messages come in order, and none comes after ``close``."""

    def close(self, code: int, reason: str) -> None:
        """Send what waits and a close frame that says why; nothing comes after it."""

    def cut(self) -> None:
        """Drop the connection without a close frame, so that the client sees 1006."""

    def silence(self) -> Callable[[], None]:
        """Stop serving the client and keep its connection open; return a function that closes it."""


@dataclass(eq=False, slots=True)
class Listener:
    """Somebody with an open WebSocket; ``caller`` decides what they hear of, ``number`` names them in reports."""

    endpoint: str
    number: int
    channel: Channel
    caller: Caller
    client: Client


class Push(NamedTuple):
    """A change on its way to listeners, as the text message that each of them gets (contract 7.3)."""

    endpoint: Endpoint
    change: Change
    message: bytes

    @classmethod
    def of(cls, endpoint: Endpoint, change: Change) -> Self:
        # Around the bytes that were encoded when the record was stored, and once for all listeners.
        record = endpoint.shows(change.record)
        message = b'{"type":"%b","record":%b}' % (change.type.encode(), (change.listing or record).wire)
        return cls(endpoint, change, message)


def send_to_all(listeners: Sequence[Listener], message: bytes) -> None:
    """Send a message to each of these listeners."""
    for listener in listeners:
        listener.channel.send(message)


class Hub:
    """Knows who listens where. A listener is gone once it is closed or cut, not when its client confirms that.

    ``send`` brings a message to all who hear it; ``on_end`` is told of each listener that is ended, with the code,
    the reason, and the rule that ended it.
    """

    def __init__(
        self,
        clock: Clock,
        send: Callable[[Sequence[Listener], bytes], None] = send_to_all,
        on_end: Callable[[Listener, int, str, str], None] = lambda *_: None,
    ) -> None:
        self._clock = clock
        self.send = send
        self._on_end = on_end
        self._listeners: dict[str, dict[Channel, Listener]] = {}
        # All listeners of an endpoint together, until one of them changes.
        self._everybody: dict[str, tuple[Listener, ...]] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return sum(len(listeners) for listeners in self._listeners.values())

    def count(self, endpoint: str) -> int:
        """Count how many listen to an endpoint."""
        return len(self._listeners.get(endpoint, ()))

    def listeners(self, endpoint: str | None = None) -> list[Listener]:
        """Return all listeners, or those of one endpoint."""
        groups = self._listeners.values() if endpoint is None else [self._listeners.get(endpoint, {})]
        return [listener for group in groups for listener in group.values()]

    def has(self, listener: Listener) -> bool:
        """Tell whether the listener is still there."""
        return listener.channel in self._listeners.get(listener.endpoint, {})

    def join(self, endpoint: str, channel: Channel, caller: Caller, client: Client) -> Listener:
        """Let somebody listen to an endpoint from now on."""
        listener = Listener(endpoint, next(self._numbers), channel, caller, client)
        self._listeners.setdefault(endpoint, {})[channel] = listener
        self._everybody.pop(endpoint, None)
        if caller.session is not None:
            # The alarm stays when the listener leaves: it closes whoever is there and expired when it rings.
            self._clock.at(caller.session.expires_at, self._close_expired)
        return listener

    def leave(self, endpoint: str, channel: Channel) -> Listener | None:
        """Take a listener out and return it; None where it was gone already."""
        listeners = self._listeners.get(endpoint, {})
        listener = listeners.pop(channel, None)
        self._everybody.pop(endpoint, None)
        if not listeners:
            self._listeners.pop(endpoint, None)
        return listener

    def rename(self, user: tuple[str, str], names: tuple[str, ...]) -> None:
        """Let a user's listeners go by the names that the user has now."""
        for listeners in self._listeners.values():
            for listener in listeners.values():
                if listener.client.user == user:
                    listener.client = listener.client._replace(names=names)

    def audience(self, endpoint: Endpoint, change: Change) -> tuple[Listener, ...]:
        """Return the listeners that may read the record, and so hear of the change (contract 7.3 and 7.5)."""
        listeners = self._listeners.get(endpoint.name)
        if not listeners:
            return ()
        everybody = self._everybody.get(endpoint.name)
        if everybody is None:
            everybody = self._everybody[endpoint.name] = tuple(listeners.values())
        if not endpoint.needs_token:
            # As they are: merely to look at each of a thousand takes longer than the write that they hear of.
            return everybody
        return tuple(listener for listener in everybody if listener.caller.may_read(endpoint, change.record))

    def close(self, leaving: Iterable[Listener], code: int, reason: str, rule: str) -> int:
        """End these listeners, by a rule that is told to the owner; returns how many were still there."""
        # All leave before any is told, so that what comes of it reaches none of them any more.
        ended = [listener for listener in leaving if self.leave(listener.endpoint, listener.channel)]
        for listener in ended:
            self._on_end(listener, code, reason, rule)
            listener.channel.close(code, reason)
        return len(ended)

    def cut(self, listeners: Iterable[Listener], rule: str, how: Callable[[Channel], object]) -> None:
        """Take listeners out without a close frame; ``how`` is what is done to each channel."""
        for listener in listeners:
            if self.leave(listener.endpoint, listener.channel):
                self._on_end(listener, CloseCode.LOST, "", rule)
                how(listener.channel)

    def close_endpoints(self, names: Iterable[str], rule: str = OPTIONS_CHANGED) -> int:
        """Close all listeners of these endpoints, as changed options do (contract 7.4)."""
        leaving = [listener for name in names for listener in self.listeners(name)]
        return self.close(leaving, CloseCode.NORMAL, Message.OPTIONS_CHANGED, rule)

    def close_tokens(self, tokens: Iterable[str], rule: str = EXPIRED) -> int:
        """Close the listeners that opened with these tokens, as expired (contract 6.4 and 7.4)."""
        ended = set(tokens)
        return self._close_sessions(lambda session: session.token in ended, rule)

    def watch_expiries(self, session_of: Callable[[str], Session | None]) -> None:
        """Close each socket when its token expires by the sessions as they are now, not as they were when it opened."""
        for listener in self.listeners():
            session = listener.caller.session and session_of(listener.caller.session.token)
            if session:
                listener.caller = Caller(session)
        for session in {listener.caller.session for listener in self.listeners() if listener.caller.session}:
            self._clock.at(session.expires_at, self._close_expired)

    def _close_expired(self) -> None:
        """Close the listeners whose access token has expired by now (contract 7.4)."""
        now = self._clock.now()
        # Asked of the clock, not of the alarm, which may be one from before the clock was set back.
        self._close_sessions(lambda session: session.expires_at <= now, EXPIRED)

    def _close_sessions(self, is_over: Callable[[Session], bool], rule: str) -> int:
        leaving = [
            listener for listener in self.listeners() if listener.caller.session and is_over(listener.caller.session)
        ]
        return self.close(leaving, CloseCode.NORMAL, Message.TOKEN_EXPIRED, rule)


# - Faults -------------------------------------------------------------------------------------------

WEBSOCKET = "WEBSOCKET"  # as a fault's method: handshakes and open sockets
REQUESTS, WRITES = METHODS[:4], METHODS[1:4]  # what faults hit of requests, and of messages
TIMES = ("before", "after", "amid")  # when a fault hits, by what the service does; amid its answer
MOST_FAULTS = 100
OUTAGE = "outage"


@dataclass(frozen=True)
class Fault:
    """Something to go wrong, where and how often; without ``times`` until it is cleared.

    ``seconds`` is how long an answer or a message is late, or an outage lasts; of an outage None means until
    it is cleared. After the seconds of ``for_`` any other is over. ``chance`` is from 0 to 1, and ``seed`` makes it
    the same every time. ``username``, which may be an email, and ``listener`` say whom alone it hits.
    """

    kind: str
    endpoint: str | None = None
    method: str | None = None
    username: str | None = None
    listener: int | None = None
    for_: float | None = None
    times: int | None = None
    chance: float = 1.0
    seed: int | None = None
    status: int = 503
    body: Json = None
    headers: Mapping[str, str] | None = None
    seconds: float | None = None
    when: str = "before"
    code: int = CloseCode.NORMAL
    reason: str = ""
    what: str = ""
    mode: str = "refuse"

    def lasts(self, default: float) -> float:
        """Return its seconds, or the default where none were given."""
        return default if self.seconds is None else self.seconds


def check_fault(kind: str, arguments: Mapping[str, Any]) -> Fault:
    """Make a fault of those arguments that are not None; raises OptionError where one is wrong."""
    declared = FAULT_KINDS[one_of(FAULT_KINDS)(kind, "kind")]
    checks = {**declared.arguments, "method": one_of(declared.methods)}
    unchecked = {"endpoint", "username", "seed"}
    if declared.is_at_once or declared.on_message:
        unchecked.add("listener")
    if not declared.is_at_once and not declared.hits_all:
        checks["for_"] = within(0, LONGEST)
    if not declared.hits_all:
        checks |= {"times": within(1, 10**9), "chance": within(0, 1)}
    elif arguments.get("times") is not None or arguments.get("chance") is not None:
        raise OptionError(f"an {kind} hits everything while it lasts, so it takes neither times nor chance")
    # A signature has no other word than None for an argument that was not given.
    values = {name: value for name, value in arguments.items() if value is not None}
    for name, value in values.items():
        if name in unchecked:
            continue
        if name not in checks:
            takes = f"takes {' and '.join(declared.arguments)}" if declared.arguments else "takes nothing of its own"
            raise OptionError(f"{camel(name)} means nothing to a fault of kind {kind}, which {takes}")
        checks[name](value, camel(name))
    for name in declared.required:
        checks[name](values.get(name), name)
    return Fault(kind, **values)


Check: TypeAlias = Callable[[Any, str], Any]  # returns the value of that name, or raises OptionError


def one_of(words: Iterable[str]) -> Check:
    """Make a check for one of these words."""

    def check(value: Any, name: str) -> Any:
        if value in words:
            return value
        now = "missing" if value is None else shown(value)
        raise OptionError(f"{name} is {now}; it is one of {', '.join(words)}")

    return check


def within(least: float, most: float) -> Check:
    """Make a check for a number from ``least`` to ``most``."""

    def check(value: Any, name: str) -> Any:
        # Every comparison with NaN is false, so it is refused too.
        if least <= value <= most:
            return value
        raise OptionError(f"{name} is {shown(value)}; it takes {least:g} to {most:g}")

    return check


def check_status(value: int, name: str) -> int:
    """Return the status of an answer that has a body; raise OptionError for any other."""
    # They have no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
    if value in (204, 205, 304):
        raise OptionError(f"{name} is {value}, an answer without a body; a fault has one")
    return cast("int", within(200, 599)(value, name))


def encode_argument(value: Json, name: str) -> bytes:
    """Write an argument as JSON; raise OptionError where it cannot be, or is nested too deep."""
    try:
        return encode_flat(value)
    except (OptionError, TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"{name} cannot be written as JSON: {error}") from None


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token (RFC 9110, section 5.6.2)
HEADER_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])")  # without spaces around it (section 5.5)
FRAMING_HEADERS = ("content-length", "transfer-encoding", "connection")


def check_headers(headers: Mapping[str, str], name: str) -> Mapping[str, str]:
    """Return headers that an answer can have beside those of its framing; raise OptionError for others."""
    for field_name, value in headers.items():
        if not HEADER_NAME.fullmatch(field_name) or not HEADER_VALUE.fullmatch(value):
            raise OptionError(f"{name} has {shown(field_name)}: {shown(value)}, which no header can be")
        if field_name.lower() in FRAMING_HEADERS:
            raise OptionError(f"{name} has {field_name}, which says where the answer ends; leave it to the emulator")
    return headers


def check_close_code(code: int, name: str) -> int:
    """Return a code that a server may close a socket with (RFC 6455, section 7.4); raise OptionError for another."""
    # 1005, 1006 and 1015 never stand in a frame; 1004 and the rest below 3000 are reserved.
    if (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999:
        return code
    raise OptionError(f"{name} is {code}; a server may send 1000 to 1014 (not 1004 to 1006) or 3000 to 4999")


def check_close_reason(reason: str, name: str) -> str:
    """Return a reason that fits into a close frame; raise OptionError for a longer one."""
    # A control frame carries 125 bytes (RFC 6455, section 5.5), and the code takes two.
    if len(reason.encode(errors="replace")) > 123:
        raise OptionError(f"{name} is longer than the 123 bytes that fit into a close frame")
    return reason


@dataclass(eq=False, slots=True)
class ActiveFault:
    """A fault at work: how often it has hit, and whom it keeps waiting.

    ``began`` and ``ended`` are moments of ``uptime``, the machine's, whatever the emulator's clock says.
    ``held`` are called once it is stopped, as it is when it is cleared or its time is over, and not after the last of
    its hits: each closes a connection that nobody serves, or wakes an answer that waits.
    """

    number: int
    fault: Fault
    kind: FaultKind
    chances: random.Random | None
    uptime: Callable[[], float]
    began: float
    hits: int = 0
    ended: float | None = None
    is_stopped: bool = False
    kept: list[tuple[Sequence[Listener], Push]] = field(default_factory=list)  # first ones of two that change places
    held: set[Callable[[], None]] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    def end(self) -> None:
        """Hit nothing any more."""
        if self.ended is None:
            self.ended = self.uptime()

    @property
    def rule(self) -> str:
        """How it is told of a socket that it ended."""
        return f"fault {self.number} {self.fault.kind}"

    def spares(self, *, is_console: bool) -> bool:
        """Tell whether it leaves the console alone, which would use up what is meant for clients."""
        return is_console and (self.fault.times is not None or self.fault.chance < 1)

    def is_aimed_at(self, listener: Listener) -> bool:
        """Tell whether it is meant for a listener, among others or alone."""
        fault = self.fault
        if self.spares(is_console=listener.client.is_console):
            return False
        return fault.listener in (None, listener.number) and fault.username in (None, *listener.client.names)

    def is_meant_for(self, endpoint: str, method: str) -> bool:
        """Tell whether it still hits what is of this endpoint and method."""
        return not self.is_over and self.fault.endpoint in (None, endpoint) and self.fault.method in (None, method)

    def hits_at(self, endpoint: str, method: str) -> bool:
        """Decide by target and chance whether it hits this time, and count it if so."""
        fault = self.fault
        if not self.is_meant_for(endpoint, method):
            return False
        # After the rest, so that a seed gives the same hits whatever requests go elsewhere.
        if self.chances is not None and self.chances.random() >= fault.chance:
            return False
        self.hits += 1
        if self.hits == fault.times:
            self.end()
        log.info("fault %d %s: %s %s", self.number, fault.kind, method, endpoint)
        return True

    def public(self) -> dict[str, Json]:
        """Show it to the owner."""
        fault = self.fault
        shown: dict[str, Json] = {"id": self.number, "kind": fault.kind}
        for name in ("endpoint", "method", "username", "listener", "times", "for_", "seed", *self.kind.arguments):
            value = getattr(fault, name)
            if value is not None:
                shown[camel(name)] = dict(value) if name == "headers" else value
        if fault.chance < 1:
            shown["chance"] = fault.chance
        ended = None if self.ended is None else round(self.ended, 6)
        shown |= {"hits": self.hits, "active": not self.is_over}
        return shown | {"began": round(self.began, 6), "ended": ended}


Delays: TypeAlias = tuple[tuple["ActiveFault", float], ...]  # seconds, each unless its fault is stopped before


class Effect(NamedTuple):
    """What the faults that hit a request or handshake do to it, by their ``numbers``; its answer waits for ``delays``.

    With a ``status`` that is the answer. Where ``is_cut``, the connection is reset in place of an answer, or with
    ``keeps_half`` amid it; where the request ``hangs``, that happens once this fault is over.
    """

    numbers: tuple[int, ...] = ()
    delays: Delays = ()
    takes_effect: bool = True  # for the service, whatever the client is told
    status: int | None = None
    body: Json = None
    headers: Mapping[str, str] | None = None
    is_cut: bool = False
    keeps_half: bool = False
    hangs: ActiveFault | None = None


NO_EFFECT = Effect()


class FaultKind(NamedTuple):
    """What a kind of fault takes of its own, what it can hit, and what it does to that.

    ``methods`` are those of the requests, handshakes or messages that it can hit. ``on_request`` adds what it does
    to a request or handshake, ``on_message`` brings a message to its listeners in its own way, ``on_sockets`` does
    something to the sockets that are open when the fault is added; what does that alone is over then. With
    ``adds_up`` more faults may hit the same request. With ``hits_all`` it lasts, and hits everything meanwhile.
    """

    methods: tuple[str, ...]
    arguments: Mapping[str, Check] = MappingProxyType({})
    required: tuple[str, ...] = ()
    on_request: Callable[[ActiveFault, Effect], Effect] | None = None
    on_message: Callable[[Faults, ActiveFault, Sequence[Listener], Push], None] | None = None
    on_sockets: Callable[[Hub, ActiveFault, list[Listener]], object] | None = None
    adds_up: bool = False
    hits_all: bool = False

    @property
    def is_at_once(self) -> bool:
        """Whether it hits the sockets that are open now, and is over then."""
        return self.on_sockets is not None and not self.hits_all


def answer_status(active: ActiveFault, effect: Effect) -> Effect:
    """Answer with a status in place of the service, or of what the service answers."""
    fault = active.fault
    takes_effect = fault.when == "after"
    return effect._replace(takes_effect=takes_effect, status=fault.status, body=fault.body, headers=fault.headers)


def answer_late(active: ActiveFault, effect: Effect) -> Effect:
    """Let an answer or a handshake wait."""
    return effect._replace(delays=(*effect.delays, (active, active.fault.lasts(1.0))))


def cut_request(active: ActiveFault, effect: Effect) -> Effect:
    """Reset the connection in place of an answer."""
    when = active.fault.when
    return effect._replace(takes_effect=when != "before", is_cut=True, keeps_half=when == "amid")


def close_sockets(hub: Hub, active: ActiveFault, hit: list[Listener]) -> None:
    """Close sockets with a code and reason."""
    hub.close(hit, active.fault.code, active.fault.reason, active.rule)


def cut_sockets(hub: Hub, active: ActiveFault, hit: list[Listener]) -> None:
    """Cut sockets: no close frame says why."""
    hub.cut(hit, active.rule, lambda channel: channel.cut())


def silence_sockets(hub: Hub, active: ActiveFault, hit: list[Listener]) -> None:
    """Keep sockets open, and neither hear nor answer them."""
    hub.cut(hit, active.rule, lambda channel: active.held.add(channel.silence()))


MISHAPS = ("late", "twice", "drop", "swap", "before-answer", "after-answer")  # of a message on its way


def send_oddly(faults: Faults, active: ActiveFault, listeners: Sequence[Listener], push: Push) -> None:
    """Bring a message to listeners as the fault wants it; with "drop" that is never."""
    what = active.fault.what
    if what in ("late", "after-answer"):
        faults.send_later(active, active.fault.lasts(1.0 if what == "late" else 0.1), listeners, push)
    elif what == "twice":
        faults.send(listeners, push)
        faults.send(listeners, push)
    elif what == "swap":
        active.kept.append((listeners, push))
    elif what == "before-answer":
        faults.owed = (*faults.owed, (active, active.fault.lasts(0.1)))
        faults.send(listeners, push)


# What an outage does to requests, and to open sockets.
OUTAGE_MODES = MappingProxyType(
    {
        "refuse": (answer_status, cut_sockets),
        "hang": (lambda active, effect: effect._replace(takes_effect=False, hangs=active), silence_sockets),
        "reset": (lambda _, effect: effect._replace(takes_effect=False, is_cut=True), cut_sockets),
    }
)


# A kind of fault is declared here and nowhere else; what it takes stands in the Fault and in the verb's signature.
FAULT_KINDS: Mapping[str, FaultKind] = MappingProxyType(
    {
        "status": FaultKind(
            REQUESTS,
            {"status": check_status, "body": encode_argument, "headers": check_headers, "when": one_of(TIMES[:2])},
            on_request=answer_status,
        ),
        "delay": FaultKind(
            (*REQUESTS, WEBSOCKET), {"seconds": within(0, LONGEST)}, on_request=answer_late, adds_up=True
        ),
        "cut": FaultKind(REQUESTS, {"when": one_of(TIMES)}, on_request=cut_request),
        "refuse": FaultKind(
            (WEBSOCKET,), {"status": within(400, 599), "headers": check_headers}, on_request=answer_status
        ),
        "close": FaultKind(
            (WEBSOCKET,), {"code": check_close_code, "reason": check_close_reason}, on_sockets=close_sockets
        ),
        "abort": FaultKind((WEBSOCKET,), on_sockets=cut_sockets),
        "silence": FaultKind((WEBSOCKET,), on_sockets=silence_sockets),
        "messages": FaultKind(
            WRITES,
            {"what": one_of(MISHAPS), "seconds": within(0, LONGEST)},
            required=("what",),
            on_message=send_oddly,
        ),
        OUTAGE: FaultKind(
            (*REQUESTS, WEBSOCKET),
            {"seconds": within(0, LONGEST), "mode": one_of(OUTAGE_MODES)},
            on_request=lambda active, effect: OUTAGE_MODES[active.fault.mode][0](active, effect),
            on_sockets=lambda hub, active, hit: OUTAGE_MODES[active.fault.mode][1](hub, active, hit),
            hits_all=True,
        ),
    }
)


class Faults:
    """What goes wrong on purpose with requests, messages and sockets.

    No verb knows of it: a door asks what is done to a request before it calls the verb, and whoever publishes a
    change hands over its message. What is due later follows the Clock. ``on_lost`` is told of each listener who is
    gone when a message that was held up comes.
    """

    def __init__(self, clock: Clock, hub: Hub, on_lost: Callable[[Listener], None]) -> None:
        self._clock = clock
        self._hub = hub
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._due_numbers = itertools.count(1)
        self._faults: dict[int, ActiveFault] = {}
        # What happens later: when, the number of the fault if it is a message that comes late, and what it is.
        self._due: dict[int, tuple[float, int | None, Callable[[], None]]] = {}
        self.owed: Delays = ()  # how long the answer that is being made has to wait for its messages

    @property
    def waiting(self) -> int:
        """Messages that are still to come."""
        return sum(fault is not None for _, fault, _ in self._due.values())

    def add(self, fault: Fault) -> tuple[int, int]:
        """Put a fault to work; returns its number, and how many sockets it has hit at once."""
        import random

        if len(self._faults) >= MOST_FAULTS:
            # Those that are over are there for reports alone, so the oldest of them makes room.
            over = next((number for number, active in self._faults.items() if active.is_over), None)
            if over is None:
                raise OptionError(f"{MOST_FAULTS} faults are active, which is enough; clear them first")
            self._stop(self._faults.pop(over))
        chances = random.Random(fault.seed) if fault.chance < 1 else None
        kind, uptime = FAULT_KINDS[fault.kind], self._clock.uptime
        active = ActiveFault(next(self._numbers), fault, kind, chances, uptime, uptime())
        self._faults[active.number] = active
        hit: list[Listener] = []
        if kind.on_sockets:
            aimed = filter(active.is_aimed_at, self._hub.listeners())
            hit = [listener for listener in aimed if active.hits_at(listener.endpoint, WEBSOCKET)]
            kind.on_sockets(self._hub, active, hit)
        if kind.is_at_once:
            active.end()
        lasts = fault.seconds if kind.hits_all else fault.for_
        if lasts is not None:
            self._later(lasts, lambda: self._finish(active))
        return active.number, len(hit)

    def clear_one(self, number: int) -> int:
        """Clear one fault, so that what it held up goes on; raises OptionError where none has this number."""
        active = self._faults.pop(number, None)
        if active is None:
            numbers = ", ".join(map(str, self._faults)) or "none"
            raise OptionError(f"id {number} is no fault's; there are: {numbers}")
        self._finish(active)
        return 1

    def clear(self) -> int:
        """Clear all faults, so that what they held up goes on and what is late comes; returns how many there were."""
        cleared = len(self._faults)
        for active in self._faults.values():
            self._stop(active)
        self._faults.clear()
        # Messages first, in the order in which they were put off.
        for number in sorted(self._due, key=lambda number: self._due[number][1] is None):
            self._ring(number)
        self.owed = ()
        return cleared

    def __bool__(self) -> bool:
        """Tell whether there is any fault, be it over."""
        return bool(self._faults)

    def is_outage(self, numbers: Iterable[int]) -> bool:
        """Tell whether an outage is among these faults."""
        return any(number in self._faults and self._faults[number].fault.kind == OUTAGE for number in numbers)

    def report(self) -> list[dict[str, Json]]:
        """Show all faults to the owner, with how often each has hit."""
        return [active.public() for active in self._faults.values()]

    def move(self, seconds: float) -> None:
        """Keep what is due as far away as it was, when the clock was set to another time."""
        for number, (moment, fault, action) in self._due.items():
            self._due[number] = moment + seconds, fault, action
            self._arm(number)

    def _later(self, seconds: float, action: Callable[[], None], fault: int | None = None) -> None:
        number = next(self._due_numbers)
        self._due[number] = self._clock.now() + seconds, fault, action
        self._arm(number)

    def _arm(self, number: int) -> None:
        self._clock.at(self._due[number][0], lambda: self._ring(number))

    def _ring(self, number: int) -> None:
        if number in self._due:
            self._due.pop(number)[2]()

    def _stop(self, active: ActiveFault) -> None:
        """Stop a fault: what it holds goes on, and the messages it has kept are delivered."""
        active.end()
        active.is_stopped = True
        while active.held:
            active.held.pop()()
        while active.kept:
            self.send(*active.kept.pop(0))

    def _finish(self, active: ActiveFault) -> None:
        """Stop a fault, and let its late messages come."""
        self._stop(active)
        for number in [number for number, (_, fault, _) in self._due.items() if fault == active.number]:
            self._ring(number)

    # Requests and handshakes

    def on_request(
        self,
        endpoint: str,
        method: str,
        names: Callable[[], Sequence[str]] = tuple,
        *,
        is_console: bool = False,
    ) -> Effect:
        """Find out what is done to a request, or with WEBSOCKET to a handshake: all delays, and one thing more.

        ``names`` tells those of the user whose valid token it shows.
        """
        self.owed = ()
        effect = NO_EFFECT
        # Delays first, since the first fault that does not add up ends the loop.
        for active in sorted(self._faults.values(), key=lambda active: not active.kind.adds_up):
            kind = active.kind
            if not kind.on_request or method not in kind.methods or active.spares(is_console=is_console):
                continue
            if active.fault.username is not None and active.fault.username not in names():
                continue
            if active.hits_at(endpoint, method):
                effect = kind.on_request(active, effect._replace(numbers=(*effect.numbers, active.number)))
                if not kind.adds_up:
                    break
        return effect

    def take_owed(self) -> Delays:
        """Return how long the answer at hand has to wait, so that its messages come first."""
        owed, self.owed = self.owed, ()
        return owed

    # Messages

    def deliver(self, listeners: Sequence[Listener], push: Push) -> list[ActiveFault]:
        """Bring a message to its listeners; returns the faults that have hit it, for each listener one at most."""
        if not self._faults:
            self._hub.send(listeners, push.message)
            return []
        kept = self._take_kept(listeners, push.endpoint.name)
        # The second of two that change places goes out unharmed, and the first one after it.
        swapping = {listener.channel for others, _ in kept for listener in others}
        unharmed = [listener for listener in listeners if listener.channel in swapping] if kept else []
        left = [listener for listener in listeners if listener.channel not in swapping] if kept else listeners
        hits, target = [], (push.endpoint.name, push.change.type)
        for active in self._faults.values():
            if active.kind.on_message is None or not active.is_meant_for(*target):
                continue
            aimed = list(filter(active.is_aimed_at, left))
            # It counts a hit only if somebody is to hear the message.
            if aimed and active.hits_at(*target):
                hits.append(active)
                active.kind.on_message(self, active, aimed, push)
                left = [listener for listener in left if not active.is_aimed_at(listener)]
        self._hub.send([*unharmed, *left], push.message)
        for message in kept:
            self.send(*message)
        return hits

    def _take_kept(self, listeners: Sequence[Listener], endpoint: str) -> list[tuple[Sequence[Listener], Push]]:
        """Take the messages that change places with the next one that their listeners, or some of these, hear."""
        keeping = [active for active in self._faults.values() if active.kept]
        channels = {listener.channel for listener in listeners} if keeping else set()
        taken = []
        for active in keeping:
            for others, push in active.kept[:]:
                is_next = any(listener.channel in channels for listener in others)
                if push.endpoint.name == endpoint and (is_next or not any(map(self._hub.has, others))):
                    taken.append((others, push))
                    active.kept.remove((others, push))
        return taken

    def send(self, listeners: Sequence[Listener], push: Push) -> None:
        """Send a message to those listeners who are still there."""
        for gone in itertools.filterfalse(self._hub.has, listeners):
            self._on_lost(gone)
        self._hub.send(list(filter(self._hub.has, listeners)), push.message)

    def send_later(self, active: ActiveFault, seconds: float, listeners: Sequence[Listener], push: Push) -> None:
        """Send a message after so many seconds of the Clock, to those who are still there."""
        self._later(seconds, lambda: self.send(listeners, push), active.number)


# - Evidence -----------------------------------------------------------------------------------------

MOST_SEEN = 1000
MOST_EVIDENCE = 64 * 2**20  # bytes, of all worlds together
LONGEST_BODY = 10_000
LONGEST_NAME = 254  # of an endpoint (contract 2.3)
MOST_HEADERS, LONGEST_HEADER = 20, 500  # of those of a request whose headers together are longer than a body
MOST_ATTEMPTS = 50
SLOW_SECONDS = 1.0


class Behaviour(Enum):
    """What a frontend should have met before its users do: what it is, and how to bring it about."""

    NO_TOKEN = "401 No Access token or invalid.", "a secure endpoint without login; reset"
    TOKEN_EXPIRED = "401 Access token expired.", "expire-tokens, advance, --token-ttl"
    WRONG_CREDENTIALS = "401 at a login", "a wrong password or user"
    ORIGIN_REFUSED = "403 Origin not allowed.", "change-project allowedOrigins, --allow-origin"
    NOT_OWNER = "403 Only the owner of the data can modify it.", "another user's record, with others-can read"
    WRONG_DATA = "400 for a body", "a body that is empty, malformed, or lacks a member"
    USER_EXISTS = "400 User exists already.", "register twice"
    NO_RECORD = "400 No record was found.", "a uniqueId that nobody has"
    CONFLICT = "conflict: a change of a record that somebody else has deleted", "delete it in a second client first"
    TOO_LARGE = "413 Body is too large.", "--max-body"
    SERVER_ERROR = "a status of 500 and above", 'faults {"kind": "status"}'
    SLOW = "slow answer: a second or more", 'faults {"kind": "delay"}, --latency'
    CUT = "a connection that ends without an answer", 'faults {"kind": "cut"}'
    SOCKET_NOT_VALID = "4000 Endpoint or API Key not valid.", "a socket with a wrong key"
    SOCKET_NO_TOKEN = "4000 No Access token or invalid.", "a socket to a secure endpoint without login"
    SOCKET_ORIGIN = "4000 Origin not allowed.", "change-project allowedOrigins, then a new socket"
    SOCKET_EXPIRED = "1000 Access token expired.", "expire-tokens or advance while a socket is open"
    SOCKET_OPTIONS = "1000 Options of the endpoint are changed.", "change-endpoint while a socket is open"
    SOCKET_CLOSED = "another close code", 'close-listeners, faults {"kind": "close"}'
    SOCKET_LOST = "1006: a socket lost without a word", 'faults {"kind": "abort"} or {"kind": "silence"}'
    SOCKET_REFUSED = "a handshake that is refused", 'faults {"kind": "refuse"}'
    RECONNECT = "reconnect: a socket opened again after its end", "any end of a socket"
    MESSAGE_POST = "a POST message", "a second client that creates a record"
    MESSAGE_PUT = "a PUT message", "a second client that updates a record"
    MESSAGE_DELETE = "a DELETE message", "a second client that deletes a record"
    MESSAGE_LATE = "a message that is late", 'faults {"kind": "messages", "what": "late"}'
    MESSAGE_TWICE = "a message that comes twice", 'faults {"kind": "messages", "what": "twice"}'
    MESSAGE_LOST = "a message that never comes", 'faults {"kind": "messages", "what": "drop"}'
    MESSAGE_SWAPPED = "messages that change places", 'faults {"kind": "messages", "what": "swap"}'
    OUTAGE = "an outage", 'faults {"kind": "outage"}'

    def __init__(self, what: str, how: str) -> None:
        self.what = what
        self.how = how


# What clients are told, a status or close code and its text, is what the behaviour is called, but for these refusals.
TOLD_AS = MappingProxyType({behaviour.what: behaviour for behaviour in Behaviour})
SEEN_AS = MappingProxyType(
    {
        Message.WRONG_CREDENTIALS: Behaviour.WRONG_CREDENTIALS,
        Message.NO_USER: Behaviour.WRONG_CREDENTIALS,
        Message.WRONG_BODY: Behaviour.WRONG_DATA,
        Message.NO_BODY: Behaviour.WRONG_DATA,
        Message.MEMBER_MISSING: Behaviour.WRONG_DATA,
        Message.WRONG_CONTENT_TYPE: Behaviour.WRONG_DATA,
    }
)
HEARD_AS = MappingProxyType(
    {
        "POST": Behaviour.MESSAGE_POST,
        "PUT": Behaviour.MESSAGE_PUT,
        "DELETE": Behaviour.MESSAGE_DELETE,
        "late": Behaviour.MESSAGE_LATE,
        "twice": Behaviour.MESSAGE_TWICE,
        "drop": Behaviour.MESSAGE_LOST,
        "swap": Behaviour.MESSAGE_SWAPPED,
    }
)


class Coverage:
    """How often each behaviour was met, in all worlds together."""

    def __init__(self) -> None:
        self._met = dict.fromkeys(Behaviour, 0)

    def meet(self, behaviour: Behaviour | None) -> None:
        """Count a behaviour, if it is one."""
        if behaviour is not None:
            self._met[behaviour] += 1

    def public(self) -> dict[str, Json]:
        """Show the owner what was met, with the share of it in percent, and what was not."""
        met: dict[str, Json] = {behaviour.what: count for behaviour, count in self._met.items() if count}
        missed: dict[str, Json] = {one.what: one.how for one, count in self._met.items() if not count}
        return {"percent": round(100 * len(met) / len(self._met), 1), "met": met, "missed": missed}

    def markdown(self) -> str:
        """Write that as a page of Markdown."""
        met, behaviours = sum(map(bool, self._met.values())), len(self._met)
        lines = ["# Coverage of behaviour", "", f"The suite met {met} of {behaviours}, {100 * met / behaviours:.0f} %."]
        lines += ["", "| behaviour | met | how to bring it about |", "|---|---|---|"]
        lines += [f"| {one.what} | {count or 'never'} | {one.how} |" for one, count in self._met.items()]
        return "\n".join([*lines, ""])


class SeenRequest(NamedTuple):
    """A request and what became of it; no ``status`` where it was not answered, be it that the client has ``left``."""

    number: int
    at: float
    uptime: float
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    endpoint: str
    status: int | None
    seconds: float
    refusal: tuple[Message, str] | None  # its message and hint: the exception itself would keep the whole request
    faults: tuple[int, ...]
    left: bool
    answer: bytes
    size: int  # in memory, about
    warnings: tuple[str, ...] = ()
    is_console: bool = False

    def public(self) -> dict[str, Json]:
        """Show it to the owner, secrets included: a test wants to know which token its client has sent."""
        return {
            "number": self.number,
            "at": timestamp(self.at),
            "uptime": round(self.uptime, 6),
            "endpoint": self.endpoint,
            "method": self.method,
            "url": self.url,
            "headers": dict(self.headers),
            "body": shown_body(self.body),
            "status": self.status,
            "answer": shown_body(self.answer),
            "seconds": round(self.seconds, 4),
            "refusal": {"message": str(self.refusal[0]), "hint": self.refusal[1]} if self.refusal else None,
            "faults": list(self.faults),
            "left": self.left,
            "warnings": list(self.warnings),
        }


class SeenMessage(NamedTuple):
    """A message, or where there is a ``code`` the end of a socket, and to whom it went.

    Of a socket that opens or is refused it tells the ``client``; ``uptime`` is the machine's, whatever the clock says.
    """

    number: int
    at: float
    uptime: float
    type: str
    endpoint: str
    to: tuple[int, ...]
    size: int  # in memory, about
    push: tuple[Endpoint, Change] | None = None
    code: int | None = None
    reason: str = ""
    faults: tuple[int, ...] = ()
    hint: str = ""
    warnings: tuple[str, ...] = ()
    client: Client | None = None
    is_console: bool = False

    def public(self, hidden: frozenset[int] = frozenset()) -> dict[str, Json]:
        """Show it to the owner, without those of its listeners who are ``hidden``."""
        seen: dict[str, Json] = {"number": self.number, "at": timestamp(self.at), "uptime": round(self.uptime, 6)}
        to: list[Json] = [number for number in self.to if number not in hidden]
        seen |= {"endpoint": self.endpoint, "type": self.type, "to": to}
        if self.client:
            seen |= {"username": self.client.name, "origin": self.client.origin, "agent": self.client.agent}
        if self.push:
            message: dict[str, Json] = json.loads(Push.of(*self.push).message)
            return seen | {"record": message["record"], "faults": list(self.faults)}
        if self.code:
            seen |= {"code": int(self.code), "reason": str(self.reason)}
        if self.warnings:
            seen["warnings"] = list(self.warnings)
        return seen | ({"hint": self.hint} if self.hint else {})


OPEN, CLOSE = "OPEN", "CLOSE"


@dataclass(slots=True)
class Attempt:
    """A handshake after the end of a socket; ``moment`` is the machine's, ``refused`` says how."""

    moment: float
    refused: str | None = None


@dataclass(eq=False, slots=True)
class Recovery:
    """How a client comes back whose socket ended without its wish; ``number`` is that of the CLOSE among the messages.

    ``ended`` and ``opened`` are moments of the machine's clock, the latter that of the socket that replaces it;
    ``heard`` is what had been said at the endpoint until it ended.
    """

    number: int
    listener: int  # its number: itself it would keep its connection in memory
    endpoint: str
    client: Client
    at: float
    ended: float
    code: int
    reason: str
    rule: str
    heard: int
    attempts: list[Attempt] = field(default_factory=list)
    more: int = 0
    back: int | None = None
    after: float | None = None
    opened: float = math.inf
    token: str | None = None
    read: bool = False
    missed: int = 0
    size: int = 2000  # in memory, about

    def public(self, missed: int) -> dict[str, Json]:
        """Show it to the owner, with how many messages the client has missed."""
        seen: dict[str, Json] = {
            "number": self.number,
            "listener": self.listener,
            "endpoint": self.endpoint,
            "username": self.client.name,
            "at": timestamp(self.at),
            "code": int(self.code),
            "reason": str(self.reason),
            "rule": self.rule,
            "attempts": [
                {"after": round(attempt.moment - self.ended, 6), "refused": attempt.refused}
                for attempt in self.attempts
            ],
        }
        if self.more:
            seen["more"] = self.more
        after = None if self.after is None else round(self.after, 6)
        return seen | {"back": self.back, "after": after, "token": self.token, "read": self.read, "missed": missed}


EVERYBODY, EVERY_USER = "everybody", "every user"  # who may read a change, besides the user of an id


class Recoveries:
    """Which sockets ended otherwise than by their clients' wish, and what these clients did about it.

    It looks only at endpoints where somebody is away, and keeps there how many changes each kind of reader would
    have heard of, so that a change costs the same however many are away.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seen: deque[Recovery] = deque(maxlen=MOST_SEEN)
        self.away: dict[str, dict[int, Recovery]] = {}  # by endpoint whose socket has ended, and is not replaced
        self.unread: dict[str, dict[int, Recovery]] = {}  # who is back, and has not read the endpoint yet
        self._said: dict[str, dict[str, int]] = {}  # changes at endpoints, by who may read them

    def of_end(self, end: SeenMessage, listener: Listener, code: int, reason: str, rule: str) -> Recovery:
        """Begin to watch how a client comes back whose socket has ended."""
        # The deque is about to drop its oldest, which has to go from the other tables too.
        if len(self.seen) == MOST_SEEN:
            self.forget(self.seen[0])
        # Counted from the first who is away; the difference tells what each of them has missed.
        endpoint, client = listener.endpoint, listener.client
        said = self._said.setdefault(endpoint, {EVERYBODY: 0, EVERY_USER: 0})
        if client.user:
            said.setdefault(client.user[1], 0)
        how = end.at, end.uptime, code, reason, rule
        recovery = Recovery(end.number, listener.number, endpoint, client, *how, self._heard(endpoint, client.user))
        self.away.setdefault(endpoint, {})[end.number] = recovery
        return recovery

    def saw_change(self, endpoint: Endpoint, record: Record) -> None:
        """Count a change for those who are away and would have heard of it (contract 7.3 and 7.5)."""
        said = self._said.get(endpoint.name)
        if said is None:
            return
        if not endpoint.needs_token:
            reader = EVERYBODY
        elif endpoint.authentication:
            reader = record.unique_id
        else:
            reader = EVERY_USER if endpoint.others_can_read or record.owner is None else record.owner
        # Whoever is away is counted for; a user who is not has no entry.
        if reader in said:
            said[reader] += 1

    def saw_lost(self, listener: Listener) -> None:
        """Count a change for a listener who is away, and whom a fault has kept waiting for its message until now."""
        for recovery in self.away.get(listener.endpoint, {}).values():
            recovery.heard -= recovery.listener == listener.number

    def _heard(self, endpoint: str, user: tuple[str, str] | None) -> int:
        """Count how many changes a user could have heard of since somebody has been away from the endpoint."""
        said = self._said.get(endpoint, {})
        # The user's also where no token was needed, for the options may have changed since.
        readers = (EVERYBODY, EVERY_USER, user[1]) if user else (EVERYBODY,)
        return sum(said.get(reader, 0) for reader in readers)

    def saw_handshake(self, endpoint: str, client: Client) -> Attempt | None:
        """Take note of an attempt of everybody whom it may be by, if there is somebody."""
        away = self._fitting(endpoint, client)
        if not away:
            return None
        attempt = Attempt(self._clock.uptime())
        for recovery in away:
            # Of many only that there were more.
            if len(recovery.attempts) < MOST_ATTEMPTS:
                recovery.attempts.append(attempt)
            else:
                recovery.more += 1
        return attempt

    def saw_open(self, listener: Listener, attempt: Attempt | None) -> Recovery | None:
        """Take note of a socket, and return the recovery of the oldest one that it replaces."""
        away = self._fitting(listener.endpoint, listener.client)
        if not away:
            return None
        recovery = away[0]
        # A handshake that was held up may have begun before this one's socket ended.
        moment = attempt.moment if attempt and attempt.moment >= recovery.ended else self._clock.uptime()
        recovery.missed = self.missed(recovery)
        recovery.back, recovery.after = listener.number, moment - recovery.ended
        shown, before = listener.client.token, recovery.client.token
        recovery.token = "none" if shown is None else "same" if shown == before else "new"
        recovery.opened = self._clock.uptime()
        self.forget(recovery)
        self.unread.setdefault(listener.endpoint, {})[recovery.number] = recovery
        return recovery

    def saw_read(self, endpoint: str, client: Client, seconds: float) -> None:
        """Take note that a client has read an endpoint; of a page without Origin or Referer its program tells it.

        ``seconds`` is how long the answer took: what was asked before the client was back may lack what came between.
        """
        asked = self._clock.uptime() - seconds
        for recovery in list(self.unread.get(endpoint, {}).values()):
            # Browsers send no Origin with a GET of the same origin (Fetch, section 3.2).
            if recovery.opened <= asked and recovery.client.is_like(client, of_any_page=client.origin is None):
                recovery.read = True
                self._part(self.unread, recovery)

    def find(self, **filters: object) -> list[dict[str, Json]]:
        """Show the owner the recoveries that fit."""
        return [recovery.public(self.missed(recovery)) for recovery in self.seen if fits(recovery, filters)]

    def missed(self, recovery: Recovery) -> int:
        """Count how many messages a client would have heard while it was away."""
        if recovery.back is not None:
            return recovery.missed
        return self._heard(recovery.endpoint, recovery.client.user) - recovery.heard

    def forget(self, recovery: Recovery) -> None:
        """Do not watch a client any more; where nobody is away, nothing is counted."""
        self._part(self.away, recovery)
        self._part(self.unread, recovery)
        if recovery.endpoint not in self.away:
            self._said.pop(recovery.endpoint, None)

    @staticmethod
    def _part(kept: dict[str, dict[int, Recovery]], recovery: Recovery) -> None:
        """Take a recovery out of those of its endpoint."""
        there = kept.get(recovery.endpoint, {})
        there.pop(recovery.number, None)
        if not there:
            kept.pop(recovery.endpoint, None)

    def _fitting(self, endpoint: str, client: Client) -> list[Recovery]:
        """Find the recoveries of those who are away and may be this client, the longest away first."""
        away = self.away.get(endpoint)
        if not away:
            return []
        if client.user is None and client.token:  # a token that was revoked still tells whose it was
            owners = (one.client.user for one in self.seen if one.client.token == client.token and one.client.user)
            client = client._replace(user=next(owners, None))
        return [recovery for recovery in away.values() if recovery.client.is_like(client)]


Seen: TypeAlias = SeenRequest | SeenMessage | Recovery


def kept(body: bytes) -> bytes:
    """Return what evidence keeps of a body: of a long one how long it was."""
    return body if len(body) <= LONGEST_BODY else encode(f"{len(body)} bytes, which are not kept here")


def shown_body(body: bytes) -> Json:
    """Show a body to the owner: what it says as JSON, or else as text."""
    text = body.decode(errors="replace")
    try:
        return decode(parse_json(text))
    except Refusal:
        return text


@dataclass(eq=False, slots=True)
class Waiting:
    """Somebody who waits until so many were seen that fit the ``filters`` of their kind; then ``then`` is called."""

    filters: Mapping[type[Seen], Mapping[str, object]]
    count: int
    then: Callable[[], None]
    seen: int = 0

    @property
    def is_over(self) -> bool:
        return self.seen >= self.count

    def look(self, seen: Iterable[Seen]) -> None:
        """Count what fits, and call ``then`` at the last one."""
        before = self.is_over
        for one in seen:
            is_back = not isinstance(one, Recovery) or one.back is not None
            self.seen += is_back and type(one) in self.filters and fits(one, self.filters[type(one)])
        if self.is_over and not before:
            self.then()


def short_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the first few of the headers that are not long."""
    short = {name: value for name, value in headers.items() if len(name) + len(value) < LONGEST_HEADER}
    return dict(itertools.islice(short.items(), MOST_HEADERS))


class Room:
    """The memory that evidence of all worlds shares: when it is full, the world that takes most forgets its oldest."""

    def __init__(self) -> None:
        # Weak, so that a world that is dropped gives its room back by itself.
        self.tenants: weakref.WeakSet[Evidence] = weakref.WeakSet()
        self._added = 0

    def add(self, size: int) -> None:
        """Take note of so many bytes more; all are counted anew when they could be too much by a sixteenth."""
        self._added += size
        # A sum over all worlds for each request would cost more than the request.
        if self._added < MOST_EVIDENCE // 16:
            return
        self._added = 0
        tenants = list(self.tenants)
        while (over := sum(one.size for one in tenants) - MOST_EVIDENCE // 16 * 15) > 0:
            max(tenants, key=lambda one: one.size).forget_oldest(over)


class Evidence:
    """Keeps what was asked and what was pushed, for tests to read: the latest of each.

    One row of numbers goes through requests and messages, so that they tell what came before what. ``over`` says
    why nothing more will be seen, once that is so; ``size`` is what it takes, in bytes. ``coverage`` and ``room`` are
    those of another world, where they are to be had in common with it.
    """

    def __init__(self, clock: Clock, coverage: Coverage | None = None, room: Room | None = None) -> None:
        self._clock = clock
        self.coverage = coverage or Coverage()
        self.room = room or Room()
        self.room.tenants.add(self)
        self._numbers = itertools.count(1)
        self._requests: deque[SeenRequest] = deque(maxlen=MOST_SEEN)
        self._messages: deque[SeenMessage] = deque(maxlen=MOST_SEEN)
        self._consoles: deque[int] = deque(maxlen=MOST_SEEN)  # the numbers of its sockets
        # The last audience of each endpoint, and its numbers.
        self._told: dict[str, tuple[Sequence[Listener], tuple[int, ...]]] = {}
        self.size = 0
        self._deleted: deque[str] = deque(maxlen=MOST_SEEN)
        self.recoveries = Recoveries(clock)
        self._kinds: dict[str, deque[Any]] = {
            "requests": self._requests,
            "messages": self._messages,
            "recoveries": self.recoveries.seen,
        }
        self._waiting: list[Waiting] = []
        self.over: Message | None = None

    def saw_request(
        self,
        *,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        endpoint: str,
        status: int | None,
        seconds: float,
        refusal: Refusal | None = None,
        faults: tuple[int, ...] = (),
        left: bool = False,
        answer: bytes = b"",
        warnings: tuple[str, ...] = (),
        is_console: bool = False,
    ) -> None:
        """Take note of a request that is over; what is long in it, or in its answer, is not kept."""
        why = (refusal.message, refusal.hint) if refusal else None
        body, answer = kept(body), kept(answer)
        if len(url) > LONGEST_BODY:
            url, endpoint = url[:LONGEST_BODY] + "…", endpoint[:LONGEST_NAME]
        length = len("".join([*headers, *headers.values()]))  # quicker than sums
        if length > LONGEST_BODY:
            headers, length = short_headers(headers), LONGEST_BODY
        size = 1000 + len(url) + len(body) + len(answer) + length + 100 * len(headers) + 200 * len(warnings)
        shown = method, url, headers, body, endpoint, status, seconds, why, faults, left, answer
        number, at, uptime = self._next()
        seen = SeenRequest(number, at, uptime, *shown, size, warnings, is_console)
        self._keep(self._requests, seen)
        if (status != 200 or seconds >= SLOW_SECONDS) and not is_console:
            self._judge(seen)

    def _judge(self, seen: SeenRequest) -> None:
        """Count the behaviours that a request has met."""
        meet = self.coverage.meet
        meet(Behaviour.SLOW if seen.seconds >= SLOW_SECONDS else None)
        if seen.status is None:
            # Nobody answered and the client stayed: then a fault has cut it off.
            meet(None if seen.left else Behaviour.CUT)
        elif seen.method == WEBSOCKET:
            meet(Behaviour.SOCKET_REFUSED)
        elif seen.status >= 500:
            meet(Behaviour.SERVER_ERROR)
        elif seen.refusal is not None:
            message, _ = seen.refusal
            meet(SEEN_AS.get(message) or TOLD_AS.get(f"{message.status} {message}"))
            # An id that was a record once means two clients at odds; any other is a mistake of one.
            if message is Message.NO_RECORD and seen.method in ("PUT", "DELETE"):
                values = parse_parameters(seen.url.partition("?")[2]).unique_ids
                ids = {*values, *itertools.chain.from_iterable(map(split_ids, values))}
                meet(None if ids.isdisjoint(self._deleted) else Behaviour.CONFLICT)

    def saw_change(
        self, endpoint: Endpoint, change: Change, told: Sequence[Listener], hits: Sequence[ActiveFault]
    ) -> None:
        """Take note of a change, of who was told, and of the faults that have hit the message."""
        if change.type == "DELETE":
            self._deleted.append(change.record.unique_id)
        self.recoveries.saw_change(endpoint, change.record)
        if any(not listener.client.is_console for listener in told):
            for what in (change.type, *(hit.fault.what for hit in hits)):
                self.coverage.meet(HEARD_AS.get(what))
        # Evidence keeps the record itself in memory, when it may have left the data long ago.
        if len(change.record.wire) > LONGEST_BODY:
            change = Change(change.type, change.record.with_data(kept(change.record.wire)))
        size = 500 + sum(len(record.wire) for record in change.listing or (change.record,))
        # Mostly the same thousands hear one message after the other, and are kept once.
        before, to = self._told.get(endpoint.name, ((), ()))
        if told is not before:
            numbers = tuple(map(attrgetter("number"), told))  # in C
            if numbers != to:
                to, size = numbers, size + 8 * len(numbers)
            self._told[endpoint.name] = told, to
        faults = tuple(hit.number for hit in hits)
        push = endpoint, change
        seen = SeenMessage(*self._next(), change.type, endpoint.name, to, size, push, faults=faults)
        self._keep(self._messages, seen)

    def saw_open(self, listener: Listener, warnings: tuple[str, ...] = (), attempt: Attempt | None = None) -> None:
        """Take note of a listener, who may be a client that is back."""
        endpoint, client, to = listener.endpoint, listener.client, (listener.number,)
        is_console = client.is_console
        if is_console:
            self._consoles.append(listener.number)
        seen = SeenMessage(
            *self._next(), OPEN, endpoint, to, 500, warnings=warnings, client=client, is_console=is_console
        )
        self._keep(self._messages, seen)
        recovery = None if is_console else self.recoveries.saw_open(listener, attempt)
        if recovery:
            self.coverage.meet(Behaviour.RECONNECT)
            self._tell(recovery)

    def saw_end(
        self,
        endpoint: str,
        listener: Listener | None,
        code: int,
        reason: str,
        rule: str | None = None,
        hint: str = "",
        *,
        refused: Client | None = None,
    ) -> None:
        """Take note of the end of a socket: without a ``rule`` its client closed it, or it was ``refused``."""
        endpoint = endpoint[:LONGEST_NAME]
        self._told.pop(endpoint, None)  # or it would keep a listener in memory who is gone
        client = listener.client if listener else refused
        is_console = client is not None and client.is_console
        ends_by_us = rule not in (None, LOST_BY_CLIENT) or listener is None
        if ends_by_us and self.over is None and not is_console:  # how the emulator itself ends is no merit of the suite
            lost = Behaviour.SOCKET_LOST if code == CloseCode.LOST else Behaviour.SOCKET_CLOSED
            self.coverage.meet(TOLD_AS.get(f"{code:d} {reason}", lost))
        to, size = (listener.number,) if listener else (), 500 + len(hint)
        seen = SeenMessage(
            *self._next(), CLOSE, endpoint, to, size, None, code, reason, (), hint, (), refused, is_console
        )
        self._keep(self._messages, seen)
        if listener and rule and self.over is None and not is_console:
            recovery = self.recoveries.of_end(seen, listener, code, reason, rule)
            self._keep(self.recoveries.seen, recovery)

    def _next(self) -> tuple[int, float, float]:
        """Return the number of what is seen now, and the moment, by the emulator's clock and by the machine's."""
        return next(self._numbers), *self._clock.moments()

    def _keep(self, kept: deque[Any], seen: Seen) -> None:
        # A full deque drops its oldest without a word.
        if len(kept) == MOST_SEEN:
            self.size -= kept[0].size
        kept.append(seen)
        self.size += seen.size
        self.room.add(seen.size)
        if self._waiting:
            self._tell(seen)

    def forget_oldest(self, size: int) -> None:
        """Forget so many bytes of what is oldest, but no more than half of all."""
        most = self.size - min(size, self.size // 2)
        while self.size > most:
            oldest: deque[Any] = min(filter(None, self._kinds.values()), key=lambda kept: kept[0].number)
            gone = oldest.popleft()
            self.size -= gone.size
            if isinstance(gone, Recovery):
                self.recoveries.forget(gone)

    def find(self, kind: str, **filters: Any) -> list[dict[str, Json]]:
        """Return the requests or messages that fit, as the owner sees them; ``since`` is a number they come after."""
        check_from(filters["from_"])
        since = filters["since"] or 0
        # Of many only the new are looked at.
        later = itertools.takewhile(lambda one: one.number > since, reversed(self._kinds[kind]))
        fitting = [one for one in later if fits(one, filters)][::-1]
        if kind == "requests":
            return [request.public() for request in fitting]
        hidden = frozenset(() if filters["from_"] == CONSOLE else self._consoles)
        return [message.public(hidden) for message in fitting]

    def clear(self, kind: str) -> int:
        """Forget the requests, the messages, or the recoveries and who is still away; returns how many there were."""
        seen = self._kinds[kind]
        for recovery in seen if kind == "recoveries" else ():
            self.recoveries.forget(recovery)
        cleared = len(seen)
        self.size -= sum(one.size for one in seen)
        seen.clear()
        for waiting in self._waiting:
            if not waiting.is_over:
                # What was forgotten counts no more, unless there was enough of it already.
                waiting.seen = 0
                waiting.look(itertools.chain(*self._kinds.values()))
        return cleared

    def wait_for(self, filters: Mapping[str, Mapping[str, Any]], count: int, then: Callable[[], None]) -> Waiting:
        """Call ``then`` once so many requests, messages and recoveries that fit were seen; ``forget`` ends that.

        A recovery counts once its client is back.
        """
        for values in filters.values():
            check_from(values.get("from_"))
        kinds: dict[str, type[Seen]] = {"requests": SeenRequest, "messages": SeenMessage, "recoveries": Recovery}
        waiting = Waiting({kinds[kind]: values for kind, values in filters.items()}, count, then)
        # What was seen before counts too, or a test would have to wait before it acts.
        self._waiting.append(waiting)
        waiting.look(itertools.chain(*self._kinds.values()))
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """Stop waiting."""
        self._waiting.remove(waiting)

    def _tell(self, seen: Seen) -> None:
        for waiting in self._waiting:
            waiting.look([seen])

    def stop(self, why: Message) -> None:
        """Wake everybody who waits, since nothing more will be seen."""
        self.over = why
        for waiting in self._waiting:
            waiting.then()


def check_from(whom: str | None) -> None:
    """Raise OptionError for traffic of anybody that is told apart by no such word."""
    if whom is not None:
        one_of((CONSOLE,))(whom, "from")


def fits(seen: Any, filters: Mapping[str, Any]) -> bool:
    """Tell whether a request, message or recovery has the values that are asked for; None lets every value through."""
    for name, value in filters.items():
        if name == "since":
            fits = value is None or seen.number > value
        elif name == "username":
            fits = value in (None, *seen.client.names)
        elif name == "from_":  # without it the console is left out
            fits = value == CONSOLE or not seen.is_console
        else:
            fits = value is None or getattr(seen, name) == value
        if not fits:
            return False
    return True


# - World --------------------------------------------------------------------------------------------


MOST_CHECKPOINTS = 1000


class Ids:
    """Makes the ids of records and the tokens of logins and mails.

    They come from the system's randomness or, if they are ``stable``, from the world's key and a counter: then
    anybody can guess them, and the same requests get the same ones on every run.
    """

    def __init__(self, store: Store, files: Files, *, stable: bool) -> None:
        self._store = store
        self._files = files
        self.stable = stable
        self.begin()

    def begin(self) -> None:
        """Count from the beginning; ids that are still there are left out."""
        self._counter = itertools.count(1)  # which threads can share: an upload makes ids in one

    def make(self) -> str:
        """Make an id that nothing has, neither in a checkpoint nor in an upload that is under way."""
        if not self.stable:
            return new_id()
        from hashlib import sha256

        while True:
            name = f"{self._store.projects()[0].key} {next(self._counter)}"
            unique_id = as_id(sha256(name.encode()).digest()[:16])
            if not self._store.has_id(unique_id) and not self._files.has_id(unique_id):
                return unique_id


def tell_change(hub: Hub, faults: Faults, evidence: Evidence, endpoint: Endpoint, change: Change) -> None:
    """Tell whoever may hear of a change that has happened, by way of the faults (contract 7.3)."""
    if endpoint.authentication and change.type == "PUT":
        hub.rename((endpoint.name, change.record.unique_id), names_of(change.record))
    told = hub.audience(endpoint, change)
    hits = faults.deliver(told, Push.of(endpoint, change)) if told else []
    evidence.saw_change(endpoint, change, told, hits)
    if told:
        ids = " ".join(record.unique_id for record in change.listing or (change.record,))
        log.info("push %s %s %s to %d", change.type, endpoint.name, ids, len(told))


class Parts(NamedTuple):
    """What all verbs that change something work with.

    ``publish`` tells of a change that has happened, and keeps it as evidence; ``take_key`` has a key lead to this
    world, and tells whether it may: not where it is that of another one.
    """

    store: Store
    clock: Clock
    ids: Ids
    accounts: Accounts
    hub: Hub
    publish: Callable[[Endpoint, Change], None]
    take_key: Callable[[str], bool]

    def add(self, endpoint: Endpoint, data: bytes, owner: str | None = None) -> Record:
        """Store a new record, and tell of it."""
        now = self.clock.timestamp()
        record = Record.of(self.ids.make(), data, now, now, owner)
        self.store.put_record(endpoint.name, record)
        self.publish(endpoint, Change("POST", record))
        return record

    def change(self, endpoint: Endpoint, record: Record, data: bytes) -> Record:
        """Store other data in a record, and tell of it."""
        record = record.with_data(data, self.clock.timestamp())
        self.store.put_record(endpoint.name, record)
        self.publish(endpoint, Change("PUT", record))
        return record

    def delete(self, endpoint: Endpoint, record: Record, *, undoable: bool) -> None:
        """Delete a record, with the tokens of one that is a user, and tell of it."""
        remembering = self.store.undoable if undoable else contextlib.nullcontext
        with remembering(f"delete {record.unique_id}"):
            tokens = self.accounts.delete_record(endpoint, record.unique_id)
        # Before the sockets close: the user's own hear of it too.
        self.publish(endpoint, Change("DELETE", record))
        self.hub.close_tokens(tokens)


class Service:
    """The verbs of clients: what a request asks of the service. Each admits, acts, and publishes what it did.

    They take what a request shows and return what it gets, or raise a Refusal; a refused verb has changed nothing.
    """

    def __init__(self, parts: Parts, gate: Gate, files: Files, evidence: Evidence) -> None:
        self._parts = parts
        self._store, self._clock, self._ids, self._accounts, self._hub, self._publish, _ = parts
        self._gate = gate
        self._files = files
        self._evidence = evidence

    # Admission

    def operation(self, request: Request, method: str) -> Operation:
        """Tell which client verb a request means; an authentication endpoint has more of them (contract 6.1)."""
        if method in ("GET", "DELETE"):
            return Operation.READ if method == "GET" else Operation.DELETE
        endpoint, flags = self._store.endpoint(request.endpoint), request.parameters.flags
        if endpoint is None or not endpoint.authentication:
            return Operation.CREATE if method == "POST" else Operation.UPDATE
        if method == "PUT":
            return Operation.RESET_PASSWORD if "passwordreset" in flags else Operation.UPDATE
        if "login" in flags:
            return Operation.LOGIN
        if "logout" in flags:
            return Operation.LOGOUT
        return Operation.SEND_RESET if "passwordreset" in flags else Operation.REGISTER

    def look_at_flags(self, request: Request, operation: Operation, method: str) -> tuple[str, ...]:
        """Warn of flags that are set and count for nothing, as those for users on an endpoint that has none."""
        idle = [f"{name}=true" for name in request.parameters.flags if operation not in FLAG_OPERATIONS[name]]
        endpoint = self._store.endpoint(request.endpoint) if idle else None
        if endpoint is None:
            return ()
        where = shown(endpoint.name) + ("" if endpoint.authentication else ", which is no authentication endpoint,")
        return (f"{', '.join(idle)} counts for nothing here: {method} on {where} means {operation}.",)

    def check_gate(self, request: Request, operation: Operation | None = None) -> None:
        """Raise OriginRefused for a page that may not reach the emulator at all, whatever it asks.

        The master key opens the gate too, to the operations where it counts.
        """
        if request.origin is None:
            return  # which is no page
        # By the key alone: whether key and endpoint are right is nothing for a foreign page to learn.
        project = self._store.project(request.parameters.key or "")
        if operation is None or not holds_master_key(project, request, operation):
            allowed = project.allowed_origins if project else self.allowed_origins()
            self._gate.check_origin(request.origin, allowed, request.host)

    def check_page(self, origin: str | None, host: str | None, *, for_control: bool = False) -> None:
        """Raise a Refusal for a request to something that belongs to no project, where the outer gate is shut."""
        self._gate.check_host(host)
        self._gate.check_origin(origin, self.allowed_origins(), host, for_control=for_control)

    def allowed_origins(self) -> list[str]:
        """Return the allowed origins of all projects, which count where no project is known."""
        return [origin for project in self._store.projects() for origin in project.allowed_origins]

    def preflight(self, request: Request, operation: Operation) -> tuple[Endpoint, bool]:
        """Check what needs no user: gate, key, endpoint, master key, origin (contract 5.6 and 9.1).

        Returns the endpoint, and whether the request holds the master key, which lifts the limits of origin.
        """
        self.check_gate(request, operation)
        project, endpoint = check_project(self._store, request)
        # Looked for before the rules of origin, which a right one lifts (contract 4.5).
        master = holds_master_key(project, request, operation)
        if not master:
            check_master_key(project, request, operation)
            check_origin(project, request.origin)
        return endpoint, master

    def admit(self, request: Request, operation: Operation) -> tuple[Endpoint, Caller]:
        """Check everything that comes before parameters and body, for HTTP and WebSocket alike (contract 5.6)."""
        endpoint, master = self.preflight(request, operation)
        if master:
            caller = Caller(master=True)
        elif operation.is_open or not endpoint.needs_token:
            caller = Caller()
        else:
            caller = Caller(identify(self._store, request, endpoint, self._clock.now()))
        # After the user (contract 5.6): a stranger is told to log in, whatever the query.
        if request.parameters.malformed:
            raise Refusal(Message.WRONG_PARAMETER, "The query is not UTF-8.")
        return endpoint, caller

    # Verbs

    def create(self, request: Request) -> Record:
        """Store the body as a new record (contract 4.1)."""
        endpoint, caller = self.admit(request, Operation.CREATE)
        return self._parts.add(endpoint, parse_body(request), caller.user)

    def start_upload(self, request: Request, max_fields: int) -> Upload:
        """Begin to take the files of a request that is admitted so far; ``upload`` ends it."""
        self.admit(request, Operation.CREATE)
        return Upload(self._files, request.headers, max_fields, self._ids.make)

    def upload(self, request: Request, upload: Upload) -> Record | Listing:
        """Store a record for each file that has arrived; one message tells of all (contract 8.1)."""
        endpoint, caller = self.admit(request, Operation.CREATE)
        if upload.files is not self._files:
            raise Refusal(Message.DROPPED, "The upload began in a world that has ended since; send it once more.")
        files, metadata = upload.finish()
        now = self._clock.timestamp()
        records = []
        for unique_id, file in files.items():
            try:
                data = encode({**file, "metadata": metadata})
            except UnicodeEncodeError:
                raise Refusal(Message.WRONG_BODY, f"The name {shown(file['originalName'])} is not UTF-8.") from None
            records.append(Record.of(unique_id, data, now, now, caller.user, {"file": file}))
        with self._store.batch():
            for record in records:
                self._store.put_record(endpoint.name, record)
        try:  # after the records, so that a kill in between leaves no file of nobody: see Files.finish_drafts
            for record in records:
                self._files.keep(record.unique_id)
        except OSError as error:
            with self._store.batch():
                for record in records:
                    self._store.drop_record(endpoint.name, record.unique_id)
            raise not_stored(error) from None
        made = Listing(records)
        self._publish(endpoint, Change("POST", made[0], made if len(made) > 1 else None))
        return made[0] if len(made) == 1 else made

    def register(self, request: Request) -> Record:
        """Add a user; the answer is the body as it was posted (contract 6.2)."""
        endpoint, _ = self.admit(request, Operation.REGISTER)
        data = parse_body(request)
        self._accounts.check_user(endpoint.name, data)
        return self._parts.add(endpoint, data)

    def read(self, request: Request) -> Record | Listing:
        """Return one record, several, or all (contract 4.2); on an authentication endpoint the user (6.5)."""
        endpoint, caller = self.admit(request, Operation.READ)
        ids = self._unique_ids(endpoint, request)
        if endpoint.authentication and caller.user is not None:
            ids = ids or [caller.user]
        if ids:
            # Each once, or a short request could ask for a record so often that the answer fills the memory.
            records = [self._find(endpoint, caller, unique_id) for unique_id in dict.fromkeys(ids)]
            readable = [endpoint.shows(record) for record in records if record is not None]
            if not readable:
                raise Refusal(Message.NO_RECORD, self._why_not_found(endpoint, ids))
            return readable[0] if len(ids) == 1 else Listing(readable)
        if endpoint.authentication:  # a user has read the own record above, so the holder of the master key is left
            return Listing(map(endpoint.shows, self._store.records(endpoint.name)))
        # As the store keeps them, with their text.
        if caller.master or endpoint.others_can_read or not endpoint.needs_token:
            return self._store.records(endpoint.name)
        return self._store.records_for(endpoint.name, caller.user)

    def download(self, request: Request) -> tuple[dict[str, Any], str]:
        """Return the description of a record's file, and its path (contract 8.2)."""
        endpoint, caller = self.admit(request, Operation.READ)
        unique_id = self._one_unique_id(endpoint, request)
        record = self._find(endpoint, caller, unique_id)
        if record is None:
            raise Refusal(Message.NO_RECORD, self._why_not_found(endpoint, [unique_id]))
        path = self._files.path(unique_id) if record.file else None
        if record.file is None or path is None:
            why = "its file is not on disk any more" if record.file else "it was made without one"
            raise Refusal(Message.NO_FILE, f"Record {shown(unique_id)} has no file: {why}.")
        return record.file, path

    def update(self, request: Request) -> Record:
        """Put new data onto a record as the strategy says (contract 4.3 and 6.5)."""
        endpoint, caller = self.admit(request, Operation.UPDATE)
        unique_id = self._one_unique_id(endpoint, request)
        # Parameters, body, record: that is the order of contract 5.6.
        strategy = check_strategy(request.parameters.strategy)
        new = parse_body(request)
        record = self._changeable(endpoint, caller, unique_id, Operation.UPDATE)
        data = apply_strategy(record.packed_data, new, strategy)
        if endpoint.authentication:
            self._accounts.check_user(endpoint.name, data, unique_id)
        return endpoint.shows(self._parts.change(endpoint, record, data))

    def delete(self, request: Request) -> Record:
        """Delete a record and answer it as it last was (contract 4.4); a user loses every token (6.9)."""
        endpoint, caller = self.admit(request, Operation.DELETE)
        unique_id = self._one_unique_id(endpoint, request)
        record = self._changeable(endpoint, caller, unique_id, Operation.DELETE)
        # Who deletes in the console may want it back; an app cannot, and pays nothing for it.
        self._parts.delete(endpoint, record, undoable=request.parameters.from_console)
        return endpoint.shows(record)

    def login(self, request: Request) -> tuple[Record, Session]:
        """Check credentials and open a session (contract 6.3)."""
        endpoint, _ = self.admit(request, Operation.LOGIN)
        user = self._accounts.check_password(endpoint.name, parse_body(request))
        return user.without_password(), self._accounts.open_session(endpoint, user.unique_id)

    def logout(self, request: Request) -> None:
        """Revoke the token and end the sockets opened with it (contract 6.4)."""
        endpoint, _ = self.admit(request, Operation.LOGOUT)
        try:
            session = identify(self._store, request, endpoint, self._clock.now())
        except Refusal as refusal:
            # 400 and not 401 (contract 6.4): logout is open to everyone, and the token is its argument.
            raise Refusal(refusal.message, refusal.hint, status=400) from None
        self._store.drop_session(session.token)
        self._hub.close_tokens([session.token])

    def send_reset(self, request: Request) -> None:
        """Put a reset mail into the outbox (contract 6.9)."""
        endpoint, _ = self.admit(request, Operation.SEND_RESET)
        mail = self._accounts.send_reset(endpoint, parse_body(request))
        log.info("mail %s to %s, GET %smails shows it", mail.template_name, shown(mail.email), CONTROL_PREFIX)

    def reset_password(self, request: Request) -> None:
        """Set a new password with the token of a mail; the user's access tokens are revoked (contract 6.9)."""
        endpoint, _ = self.admit(request, Operation.RESET_PASSWORD)
        user, data, mail = self._accounts.reset_password(endpoint.name, parse_body(request))
        record = user.with_data(data, self._clock.timestamp())
        with self._store.batch():
            self._store.put_record(endpoint.name, record)
            self._store.put_mail(replace(mail, used=True))
            tokens = self._accounts.revoke(endpoint.name, record.unique_id)
        self._publish(endpoint, Change("PUT", record))
        self._hub.close_tokens(tokens)

    def listen(
        self,
        request: Request,
        channel: Channel,
        warnings: tuple[str, ...] = (),
        attempt: Attempt | None = None,
    ) -> None:
        """Let a listener hear of every change it may read, from now on (contract 7.1)."""
        try:
            endpoint, caller = self.admit(request, Operation.LISTEN)
        except Refusal as refusal:
            hint, client = " ".join([refusal.hint, *warnings]), client_of(self._store, request)
            self._evidence.saw_end(request.endpoint, None, CloseCode.REFUSED, refusal.reason, hint=hint, refused=client)
            if attempt:
                attempt.refused = f"{CloseCode.REFUSED:d} {refusal.reason}"
            raise
        listener = self._hub.join(endpoint.name, channel, caller, client_of(self._store, request))
        self._evidence.saw_open(listener, warnings, attempt)

    def names(self, request: Request) -> tuple[str, ...]:
        """Return the names of the user whose valid token a request shows, on whatever endpoint."""
        session = self._store.session(request.token) if request.token else None
        if session is None or session.expires_at <= self._clock.now():
            return ()
        return client_of(self._store, request).names

    def saw_handshake(self, request: Request) -> Attempt | None:
        """Take note of a handshake, if it may be by a client whose socket has ended."""
        recoveries = self._evidence.recoveries
        if request.endpoint not in recoveries.away or request.parameters.from_console:
            return None
        return recoveries.saw_handshake(request.endpoint, client_of(self._store, request))

    def saw_read(self, request: Request, seconds: float) -> None:
        """Take note that a GET was answered in so many seconds, if it may be by a client who has just come back."""
        recoveries = self._evidence.recoveries
        if request.endpoint in recoveries.unread and not request.parameters.from_console:
            client = client_of(self._store, request)
            referer = parse_origin("/".join(request.headers.get("Referer", "").split("/")[:3]))
            recoveries.saw_read(request.endpoint, client._replace(origin=client.origin or referer), seconds)

    def leave(self, endpoint: str, channel: Channel, code: int) -> bool:
        """Take out a listener that has left, with its client's code; tells whether it was still there."""
        listener = self._hub.leave(endpoint, channel)
        if listener:
            rule = LOST_BY_CLIENT if code == CloseCode.LOST else None
            self._evidence.saw_end(endpoint, listener, code, "", rule)
        return listener is not None

    def _find(self, endpoint: Endpoint, caller: Caller, unique_id: str) -> Record | None:
        """Return the record, unless this caller must not even know of it (contract 6.8)."""
        record = self._store.record(endpoint.name, unique_id)
        return record if record and caller.may_read(endpoint, record) else None

    def _changeable(self, endpoint: Endpoint, caller: Caller, unique_id: str, operation: Operation) -> Record:
        """Return the record that PUT or DELETE may change (contract 5.5)."""
        record = self._store.record(endpoint.name, unique_id)
        if record and caller.may_change(endpoint, record, operation):
            return record
        if record is None or not caller.may_read(endpoint, record):
            raise Refusal(Message.NO_RECORD, self._why_not_found(endpoint, [unique_id]))
        hint = f"Record {shown(unique_id)} belongs to another user; others may {operation} it with --others-can "
        raise Refusal(Message.NOT_OWNER, f"{hint}{operation}:{endpoint.name} or change-endpoint.")

    def _why_not_found(self, endpoint: Endpoint, ids: Sequence[str]) -> str:
        hint = f"Endpoint {shown(endpoint.name)} has no record {shown(', '.join(ids))} that this request may see."
        if not any(self._store.record(endpoint.name, unique_id) for unique_id in ids):
            return hint
        if endpoint.authentication:
            return hint + " A user sees only the own record; the master key all."
        lift = f"--others-can read:{endpoint.name} or change-endpoint"
        return f"{hint} It belongs to another user; others may read it with {lift}."

    def _unique_ids(self, endpoint: Endpoint, request: Request) -> list[str]:
        """Split the ids that a request names at commas, but for a value that is an id as a whole (contract 4.2)."""
        ids: list[str] = []
        for value in request.parameters.unique_ids:
            if self._store.record(endpoint.name, value) is None:
                ids += split_ids(value)
            else:
                ids.append(value)
        return ids

    def _one_unique_id(self, endpoint: Endpoint, request: Request) -> str:
        ids = self._unique_ids(endpoint, request)
        if len(ids) == 1:
            return ids[0]
        raise Refusal(Message.ONE_UNIQUE_ID, f"This request has {len(ids)}; the URL takes one &uniqueId=ID.")


class Owner:
    """The verbs of the emulator's owner, for the command line, the control interface and RestedEmulator alike.

    They return what they did as a JSON object, and raise OptionError for a wrong argument.
    """

    def __init__(self, parts: Parts, faults: Faults, evidence: Evidence) -> None:
        self._parts = parts
        self._store, self._clock, self._ids, self._accounts, self._hub, self._publish, self._take_key = parts
        self._faults = faults
        self._evidence = evidence

    def change_project(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        key: str | None = None,
        master_key: str | None = None,
        allowed_origins: Sequence[str] | None = None,
        disallow_no_origin: bool | None = None,
        token_ttl: float | None = None,
        reset_templates: Mapping[str, str] | None = None,
    ) -> dict[str, Json]:
        """Save options of a project, which ends its sockets (contract 7.4).

        ``project`` is the key of the one that is meant, where there are several. An empty ``master_key``
        takes it away, no ``allowed_origins`` allow every one. ``token_ttl``, in seconds, is the emulator's
        own: it counts for later logins and ends no socket. ``reset_templates`` are all templates there are
        then, HTML by name, with ``{{verificationtoken}}`` and ``{{email}}`` to be filled in.
        """
        changes = check_members(Project, locals())  # the arguments: nothing else has a name here yet
        before = self._store.require_project(project)
        saved = check_saved(replace(before, **changes))
        if saved.key != before.key and (self._store.project(saved.key) or not self._take_key(saved.key)):
            raise OptionError(f"key {shown(saved.key)} is another project's")
        if saved != before:
            self._store.put_project(before.key, saved)
        if not changes.keys() - {"token_ttl"}:
            # Lifetimes count for later logins alone, so no socket has to open anew.
            return {"closed": 0}
        return {"closed": self._hub.close_endpoints(item.name for item in self._store.endpoints_of(saved.key))}

    def change_endpoint(
        self,
        name: str,
        *,
        secure: bool | None = None,
        authentication: bool | None = None,
        others_can_read: bool | None = None,
        others_can_update: bool | None = None,
        others_can_delete: bool | None = None,
        description: str | None = None,
    ) -> dict[str, Json]:
        """Save options of an endpoint, which ends its sockets (contract 7.4); makes it if it is new.

        Saving counts as a change even where every value stays, as pressing Save does; so
        ``change_endpoint(name)`` alone shows a page what an option change is like.
        """
        changes = check_members(Endpoint, locals())  # the arguments: nothing else has a name here yet
        before = self._store.endpoint(name)
        endpoint = before or Endpoint(check_endpoint_name(name), self._store.require_project(None).key)
        saved = replace(endpoint, **changes)
        if saved.authentication and not endpoint.authentication:
            self._check_users(name)
        if saved != before:
            self._store.put_endpoint(saved)
        return {"closed": self._hub.close_endpoints([name])}

    def _check_users(self, name: str) -> None:
        """Raise OptionError where an endpoint that is to have users has other records already."""
        try:
            check_users(name, self._store.records(name))
        except Misfit as error:
            hint = "change or delete that record first, or take another endpoint"
            raise OptionError(f"{shown(name)} cannot be an authentication endpoint: {error}; {hint}") from None

    def delete_endpoint(self, name: str) -> dict[str, Json]:
        """Delete an endpoint with its data (contract 2.5); its sockets end, its users' tokens too."""
        self._store.require_endpoint(name)
        deleted = self._store.count(name)
        with self._store.undoable(f"delete-endpoint {name}"), self._store.batch():
            tokens = self._accounts.revoke(name)
            self._store.drop_endpoint(name)
        closed = self._hub.close_endpoints([name], "call delete-endpoint") + self._hub.close_tokens(tokens)
        return {"deleted": deleted, "closed": closed}

    def put_record(self, endpoint: str, data: Json, *, unique_id: str | None = None) -> dict[str, Json]:
        """Store a new record, or with ``unique_id`` other data in one that is there, whoever owns it; returns it.

        A user whose new data have no ``password`` keeps the old one, which no report shows.
        """
        options = self._store.require_endpoint(endpoint)
        before = None if unique_id is None else self._require_record(endpoint, unique_id)
        if options.authentication and before and isinstance(data, dict):
            data = {"password": members_of(before.data).get("password", ""), **data}
        packed = encode_argument(data, "data")
        if options.authentication:
            self._check_user(endpoint, packed, unique_id)
        record = self._parts.change(options, before, packed) if before else self._parts.add(options, packed)
        return options.shows(record).public()

    def delete_record(self, endpoint: str, unique_id: str) -> dict[str, Json]:
        """Delete a record, whoever owns it; a user loses every token. Returns it."""
        options, record = self._store.require_endpoint(endpoint), self._require_record(endpoint, unique_id)
        self._parts.delete(options, record, undoable=True)
        return options.shows(record).public()

    def _check_user(self, endpoint: str, data: bytes, unique_id: str | None = None) -> None:
        """Raise OptionError for data that a client would be refused for a user."""
        try:
            self._accounts.check_user(endpoint, data, unique_id)
        except Refusal as refusal:
            raise OptionError(refusal.hint) from None

    def _require_record(self, endpoint: str, unique_id: str) -> Record:
        record = self._store.record(endpoint, unique_id)
        if record is None:
            raise OptionError(f"endpoint {shown(endpoint)} has no record {shown(unique_id)}")
        return record

    def expire_tokens(self, *, username: str | None = None, token: str | None = None) -> dict[str, Json]:
        """Let access tokens expire now: all, one user's (by username or email), or one."""
        ended = self._accounts.expire(username=username, token=token)
        return {"expired": len(ended), "closed": self._hub.close_tokens(ended)}

    def close_listeners(
        self,
        *,
        code: int = CloseCode.NORMAL,
        reason: str = "",
        endpoint: str | None = None,
        username: str | None = None,
        listener: int | None = None,
    ) -> dict[str, Json]:
        """End sockets with a code and reason of one's own: all, or those of an endpoint, a user, or one by number."""
        check_close_code(code, "code")
        check_close_reason(reason, "reason")
        if endpoint is not None:
            self._store.require_endpoint(endpoint)
        self._check_aim(username, listener)
        leaving = [
            one
            for one in self._hub.listeners(endpoint)
            if listener in (None, one.number) and username in (None, *one.client.names)
        ]
        return {"closed": self._hub.close(leaving, code, reason, "call close-listeners")}

    def _check_aim(self, username: str | None, listener: int | None) -> None:
        """Raise OptionError for a user, by username or email, or a listener whom nobody knows."""
        if username is not None and not self._accounts.has_name(username):
            users = self._accounts.names()
            more = f" and {len(users) - 10} more" if len(users) > 10 else ""
            raise OptionError(f"there is no user {shown(username)}; there are: {', '.join(users[:10]) or 'none'}{more}")
        numbers = [one.number for one in self._hub.listeners()] if listener is not None else []
        if listener is not None and listener not in numbers:
            there = ", ".join(map(str, numbers[:100])) or "none"
            raise OptionError(f"listener {listener} is not there; GET {CONTROL_PREFIX}listeners has: {there}")

    def add_fault(
        self,
        kind: str,
        *,
        endpoint: str | None = None,
        method: str | None = None,
        username: str | None = None,
        listener: int | None = None,
        times: int | None = None,
        for_: float | None = None,
        chance: float | None = None,
        seed: int | None = None,
        status: int | None = None,
        body: Json = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        when: str | None = None,
        code: int | None = None,
        reason: str | None = None,
        what: str | None = None,
        mode: str | None = None,
    ) -> dict[str, Json]:
        """Make something go wrong, from now on (sample_data/REFERENCE.md, "Faults"); ``clear_faults`` ends it.

        Returns its id, and how many open sockets it has hit at once.
        """
        arguments = {name: value for name, value in list(locals().items()) if name not in ("self", "kind")}
        fault = check_fault(kind, arguments)
        if fault.endpoint is not None:
            self._store.require_endpoint(fault.endpoint)
        self._check_aim(fault.username, fault.listener)
        number, sockets = self._faults.add(fault)
        if fault.kind == OUTAGE:
            self._evidence.coverage.meet(Behaviour.OUTAGE)
        return {"id": number, "sockets": sockets}

    def clear_faults(self, *, id: int | None = None) -> dict[str, Json]:
        """Let nothing go wrong any more, or one fault be over; what was held up goes on."""
        return {"cleared": self._faults.clear() if id is None else self._faults.clear_one(id)}

    def clear_requests(self) -> dict[str, Json]:
        """Forget the requests that were seen."""
        return {"cleared": self._evidence.clear("requests")}

    def clear_messages(self) -> dict[str, Json]:
        """Forget the messages that were seen."""
        return {"cleared": self._evidence.clear("messages")}

    def clear_recoveries(self) -> dict[str, Json]:
        """Forget which sockets ended, and how their clients came back."""
        return {"cleared": self._evidence.clear("recoveries")}

    def sign_in(self, endpoint: str, username: str, password: str | None = None) -> str:
        """Log a user in, registering it first if need be; returns the access token.

        The owner needs no password to sign in a user who exists, and a wrong one is an error. That of a new user is
        "password" where none is given.
        """
        options = self._store.require_endpoint(endpoint)
        for name, text in (("username", username), ("password", password or "")):
            check_utf8(text, name)
        if not options.authentication:
            raise OptionError(f"endpoint {shown(endpoint)} is no authentication endpoint")
        user = self._store.user(endpoint, "username", username) or self._store.user(endpoint, "email", username)
        if user is not None:
            own = members_of(user.data).get("password")
            if password not in (None, own):
                has = "has none yet" if own is None else "has another one"
                raise OptionError(f"password: user {shown(username)} {has}, and is signed in without any")
            return self._accounts.open_session(options, user.unique_id).token
        data = encode({"username": username, "password": "password" if password is None else password})
        self._check_user(endpoint, data)
        now = self._clock.timestamp()
        user = Record.of(self._ids.make(), data, now, now)
        # User and token together, or a full disk would leave a user without one.
        with self._store.batch():
            self._store.put_record(endpoint, user)
            session = self._accounts.open_session(options, user.unique_id)
        self._publish(options, Change("POST", user))
        return session.token


class States:
    """The owner's verbs that bring about another state, of all data or of the clock, and what listeners hear of it.

    They answer and fail as those of the Owner. Edits of the data file by hand come in here too.
    """

    def __init__(self, parts: Parts, files: Files, faults: Faults) -> None:
        self._store, self._clock, self._ids, self._accounts, self._hub, self._publish, self._take_key = parts
        self._files = files
        self._faults = faults
        self._clocks: dict[str, ClockState] = {}
        self._note_clock(START)
        self._standing: tuple[Fault, ...] = ()  # faults that are there from the start
        self._refused_edit: tuple[FileStamp, int] | None = None  # and how often it was looked at

    def begin(self, like: Store | None = None, faults: Sequence[Fault] = ()) -> None:
        """Make this the state that ``reset`` goes back to, or with the data of another store."""
        self._store.checkpoint(like=like)
        self._note_clock(START)
        # Checked before any is added, so that a wrong one leaves nothing behind.
        for fault in faults:
            if fault.endpoint is not None:
                self._store.require_endpoint(fault.endpoint)
        self._standing = tuple(faults)
        self._add_standing_faults()

    def _note_clock(self, checkpoint: str) -> None:
        self._clocks[checkpoint] = self._clock.state
        self._store.moments[checkpoint] = self._clock.now()

    def tell_who_cannot_log_in(self) -> None:
        """Say in the log which users have no password, as in a seed that leaves it out."""
        users = self._accounts.without_password()
        if users:
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            told = "users without a password, who cannot log in until PUT with the master key or a reset mail sets it"
            log.warning("%s: %d, which are %s%s", told, len(users), ", ".join(users[:3]), more)

    def _add_standing_faults(self) -> None:
        for fault in self._standing:
            self._faults.add(fault)

    def advance(self, seconds: float) -> dict[str, Json]:
        """Move the clock on; what is due by then happens before the call returns (contract 7.4)."""
        if seconds < 0:
            raise OptionError(f"seconds is {seconds:g}; time goes only forward here, and back with set-time")
        self._check_moment(self._clock.now() + seconds, f"seconds is {seconds:g}")
        return self._pass_time(lambda: self._clock.advance(seconds))

    def set_time(self, time: str) -> dict[str, Json]:
        """Set the clock, as ``advance`` does if it is forward, else as going back does; time goes on from there."""
        moment = parse_moment(time, "time")
        self._check_moment(moment, f"time is {shown(time)}")
        # Forward, what is due on the way happens; backward nothing can be undone, and what is due keeps its distance.
        ahead = moment - self._clock.now()
        if ahead < 0:
            return self._pass_time(lambda: self._set_back((self._clock.skew + ahead, self._clock.frozen)))
        return self._pass_time(lambda: self._clock.advance(ahead))

    def freeze(self) -> dict[str, Json]:
        """Let the clock stand, but for ``advance`` and ``set_time``."""
        return self._pass_time(self._clock.freeze)

    def unfreeze(self) -> dict[str, Json]:
        """Let the clock go on from where it stands."""
        return self._pass_time(self._clock.unfreeze)

    def _pass_time(self, step: Callable[[], None]) -> dict[str, Json]:
        """Do something to the clock, and say what happened by it."""
        before, listeners = self._clock.now(), len(self._hub)
        step()
        now = self._clock.now()
        expired = sum(before < session.expires_at <= now for session in self._store.sessions())
        return {"now": timestamp(now), "tokensExpired": expired, "closed": listeners - len(self._hub)}

    def _check_moment(self, moment: float, what: str) -> None:
        """Raise OptionError for a time so late that tokens would outlive the calendar, or before 1970."""
        try:
            # With the longest lifetime added, since datetime ends with the year 9999.
            timestamp(moment + LONGEST)
        except (ValueError, OverflowError, OSError):
            raise OptionError(f"{what}; that is too near to the year 9999") from None
        if moment < 0:
            raise OptionError(f"{what}; that is before 1970")

    def _set_back(self, state: ClockState) -> None:
        """Set the clock as it was; whatever is due stays as far away, or at its own moment."""
        before = self._clock.now()
        self._clock.restore(state)
        self._faults.move(self._clock.now() - before)
        self._hub.watch_expiries(self._store.session)
        # Last, when all that is due has its new moment: nothing rings by an old one.
        self._clock.ring()

    def reset(self) -> dict[str, Json]:
        """Go back to the state at start: data, users, tokens, options, clock; faults that were added are cleared.

        Sockets stay open and hear the difference as ordinary messages, so that a page on screen moves
        back by itself. Tokens made since are revoked, which ends their sockets like an expiry; the
        sockets of an endpoint that is gone, or is read by others than before, end like an option change.
        """
        done = self._go_back(START, "reset")
        self._store.moments[START] = self._clock.now()
        self._ids.begin()
        self._add_standing_faults()
        return done

    def checkpoint(self, name: str) -> dict[str, Json]:
        """Remember data, users, tokens, options and clock as they are, for ``restore``; a name is given anew."""
        check_key(name, "name")
        names = self._store.checkpoints()
        # The start is one of them, and does not count.
        if name not in names and len(names) > MOST_CHECKPOINTS:
            raise OptionError(
                f"there are {MOST_CHECKPOINTS} checkpoints, which is enough; give one of their names anew"
            )
        # Trees share what is the same, so this costs nothing that grows with the data.
        self._store.checkpoint(name)
        self._note_clock(name)
        return {"name": name, "checkpoints": list(self._store.checkpoints()[1:])}

    def restore(self, name: str) -> dict[str, Json]:
        """Go back to a checkpoint, as ``reset`` goes back to the start; faults stay as they are."""
        self._store.require_checkpoint(name)
        return self._go_back(name, "restore")

    def _check_keys(self, keys: Iterable[str]) -> None:
        """Raise OptionError where a project would have the key that another world has got by now."""
        for key in filter(self._is_another_worlds, keys):
            why = "which is another world's by now; drop that first"
            raise OptionError(f"a project would have the key {shown(key)} again, {why}")

    def _is_another_worlds(self, key: str) -> bool:
        """Tell whether another world has a key; one that nobody has leads here from now on."""
        return self._store.project(key) is None and not self._take_key(key)

    def undo(self, *, number: int | None = None) -> dict[str, Json]:
        """Take back the last reset, restore, load, or deletion by the owner; GET status says under ``undo`` which.

        With its ``number`` from there it is taken back only if nothing of that kind came after it.

        What has changed otherwise since then stays. Everything is back with its id, its place and its tokens, and
        with reset and restore the clock too if nobody has set it since. Raises OptionError where there is nothing
        to undo.
        """
        what = self._store.undo_what
        if not what:
            raise OptionError("there is nothing to undo: no reset, restore, load or deletion by the owner")
        if number not in (None, self._store.undo_number):
            raise OptionError(f"number is {number}; the last that can be undone is {self._store.undo_number}, {what}")

        def undo() -> list[tuple[str, Change]]:
            changes = self._store.undo(self._check_keys)
            self._hub.watch_expiries(self._store.session)
            if what in ("reset", "restore") and self._clock.state == self._clocks[AFTER]:
                self._set_back(self._clocks[BEFORE])
            return changes

        return self._switch(undo, "undo", self._options)

    def load(self, data: Mapping[str, Json]) -> dict[str, Json]:
        """Make a data file the state (sample_data/REFERENCE.md, "The data file"), as ``restore`` goes back to one.

        The world keeps its key, and where the file has no ``_projects`` its project's options; endpoints that are not
        in it are gone. Clock, checkpoints and faults stay, and what ``reset`` goes back to. ``filesLeftOut`` counts
        records of uploaded files whose contents are not here. Raises OptionError with the place of what is wrong.
        """
        tree = self._store.read(data)
        for key in filter(self._is_another_worlds, list(tree[PROJECTS])[1:]):
            raise OptionError(f'data["{PROJECTS}"]: key {shown(key)} is that of another world; leave that project out')

        def load() -> list[tuple[str, Change]]:
            with self._store.undoable("load"):
                changes = self._store.load(tree)
            self._hub.watch_expiries(self._store.session)
            return changes

        done = self._switch(load, "load", self._options)
        left_out = [key for key in self._store.file_ids() if self._files.path(key) is None]
        return done | {"filesLeftOut": len(left_out)}

    def _go_back(self, name: str, rule: str) -> dict[str, Json]:
        self._check_keys(self._store.keys(name))
        if name == START:
            # Before the data: what faults hold up are messages of the state that is left.
            self._faults.clear()

        def restore() -> list[tuple[str, Change]]:
            self._clocks[BEFORE] = self._clock.state
            with self._store.undoable(rule):
                changes = self._store.restore(name)
            self._set_back(self._clocks[name])
            self._clocks[AFTER] = self._clock.state
            return changes

        return self._switch(restore, rule, self._readers)

    def _switch(
        self, bring: Callable[[], list[tuple[str, Change]]], rule: str, options: Callable[[], Mapping[str, object]]
    ) -> dict[str, Json]:
        """Bring about other data and options, end the sockets that those of before do not fit, and tell the rest."""
        # Noted before, since what is to be closed shows only in the difference.
        before, listeners, tokens = options(), len(self._hub), self._accounts.live_tokens()
        changes = bring()
        self._close_outdated(tokens, before, options(), rule)
        # Sockets close before the changes are told: who may not read any more is not to hear of them.
        closed = listeners - len(self._hub)
        return {"messages": self._tell(changes), "closed": closed}

    def take_over_edit(self) -> None:
        """Bring in an edit of the data file, if there is one, and let listeners know."""
        edit = self._store.file.edit()
        if edit is None:
            if self._store.refused_edit:
                log.info("the data file is again as it was before the edit")
            self._refused_edit = self._store.refused_edit = None
            return
        if self._refused_edit == (edit, 2):
            return
        before, tokens = self._options(), self._accounts.live_tokens()
        try:
            changes = self._store.take_over_edit(self._check_keys)
        except (Refusal, OSError) as error:
            if str(error) != self._store.refused_edit:
                log.info("the edit is not taken over yet: %s", error)
            self._store.refused_edit = str(error)
            return
        except DataFileError as error:
            # An editor may still be writing what is seen first, so only the second look counts.
            self._refused_edit = edit, 2 if self._refused_edit == (edit, 1) else 1
            if self._refused_edit == (edit, 2):
                log.error("the edit is neither taken over nor written over: %s", error)
                self._store.refused_edit = str(error)
            return
        self._store.refused_edit = None
        self._hub.watch_expiries(self._store.session)
        self._close_outdated(tokens, before, self._options())
        self._tell(changes)
        self._store.file.save()

    def _close_outdated(
        self, tokens: set[str], before: Mapping[str, object], now: Mapping[str, object], rule: str | None = None
    ) -> None:
        """Close sockets whose token is gone, or whose endpoint's options are not those of before."""
        self._hub.close_tokens(tokens - self._accounts.live_tokens(), rule or EXPIRED)
        changed = [name for name, options in before.items() if now.get(name) != options]
        self._hub.close_endpoints(changed, rule or OPTIONS_CHANGED)

    def _tell(self, changes: Iterable[tuple[str, Change]]) -> int:
        """Publish changes of endpoints that are still there; returns how many."""
        heard = [(endpoint, change) for name, change in changes if (endpoint := self._store.endpoint(name))]
        for endpoint, change in heard:
            self._publish(endpoint, change)
        return len(heard)

    def _options(self) -> dict[str, tuple[Endpoint, Project | None]]:
        """Return the options that a socket of each endpoint depends on."""
        # How long tokens live is none of them (contract 7.4).
        projects = {project.key: replace(project, token_ttl=1.0) for project in self._store.projects()}
        return {item.name: (item, projects.get(item.project)) for item in self._store.endpoints()}

    def _readers(self) -> dict[str, tuple[object, ...]]:
        """Return the options of each endpoint that say who reads it, and by which key."""
        return {
            item.name: (item.authentication, item.secure, item.others_can_read, item.project)
            for item in self._store.endpoints()
        }


class Reports:
    """What the owner is told: what there is, and what has happened."""

    def __init__(self, store: Store, clock: Clock, hub: Hub, faults: Faults, evidence: Evidence) -> None:
        self._store = store
        self._clock = clock
        self._hub = hub
        self._faults = faults
        self._evidence = evidence

    def status(self) -> dict[str, Json]:
        """Report what there is: projects, endpoints with options and counts, users logged in, clock, uptime.

        ``refusedEdit`` says why an edit of the data file is not taken over, until it is mended; else it is null.
        ``undo`` says what ``undo`` would take back, null for nothing.
        """
        now, store = self._clock.now(), self._store
        sessions = [session for session in store.sessions() if session.expires_at > now]
        return {
            "projects": [self._project_status(project) for project in self._store.projects()],
            "users": [self._session_status(session) for session in sessions],
            "listeners": len(self._hub),
            "checkpoints": list(self._store.checkpoints()[1:]),
            "undo": {"number": store.undo_number, "what": store.undo_what} if store.undo_what else None,
            "refusedEdit": store.refused_edit,
            "now": timestamp(now),
            "frozen": self._clock.frozen is not None,
            "uptime": round(self._clock.uptime(), 6),
        }

    def listeners(self, *, endpoint: str | None = None, from_: str | None = None) -> list[dict[str, Json]]:
        """Report who listens: the numbers that ``messages`` names under ``to``, and whose token each showed.

        The console is left out, here and in ``requests`` and ``messages``, unless ``from_`` is "console".
        """
        check_from(from_)
        listeners = self._hub.listeners(endpoint and self._store.require_endpoint(endpoint).name)
        return [
            {
                "number": listener.number,
                "endpoint": listener.endpoint,
                "user": self._session_status(self._store.session(listener.client.token or "")),
                "waiting": listener.channel.waiting,
            }
            for listener in listeners
            if from_ == CONSOLE or not listener.client.is_console
        ]

    def records(self, endpoint: str) -> list[dict[str, Json]]:
        """Report all records of an endpoint, as GET shows them to the holder of the master key."""
        options = self._store.require_endpoint(endpoint)
        return [options.shows(record).public() for record in self._store.records(endpoint)]

    def changes(self, *, checkpoint: str | None = None) -> dict[str, Json]:
        """Report how much has changed since a checkpoint, or since the start or the last reset, and when that was."""
        if checkpoint is not None:
            self._store.require_checkpoint(checkpoint)
        name = checkpoint or START
        count = self._store.changes_since(name)
        return {
            "since": timestamp(self._store.moments[name]),
            **{
                kind: {done: count[f"{kind} {done}"] for done in ("made", "changed", "deleted")}
                for kind in ("records", "endpoints")
            },
        }

    def data(self) -> bytes:
        """Return everything as a data file, for ``load``, ``fork`` and ``--seed``; without the contents of files."""
        return self._store.data()

    def mails(self) -> list[Json]:
        """Report every reset mail in the outbox, the latest last (contract 6.9)."""
        return [mail.public() for mail in self._store.mails()]

    def faults(self) -> list[dict[str, Json]]:
        """Report every fault, with how often it has hit."""
        return self._faults.report()

    def requests(
        self,
        *,
        endpoint: str | None = None,
        method: str | None = None,
        status: int | None = None,
        since: int | None = None,
        from_: str | None = None,
    ) -> list[dict[str, Json]]:
        """Report the requests that were seen, of many the latest; ``since`` is a number that they come after."""
        return self._evidence.find(
            "requests", endpoint=endpoint, method=method, status=status, since=since, from_=from_
        )

    def messages(
        self,
        *,
        endpoint: str | None = None,
        type: str | None = None,
        since: int | None = None,
        from_: str | None = None,
    ) -> list[dict[str, Json]]:
        """Report the messages that were pushed, and the opening and end of sockets (``type`` OPEN and CLOSE)."""
        return self._evidence.find("messages", endpoint=endpoint, type=type, since=since, from_=from_)

    def recoveries(
        self, *, endpoint: str | None = None, username: str | None = None, since: int | None = None
    ) -> list[dict[str, Json]]:
        """Report how clients came back whose sockets ended without their wish: when they tried, and what they missed.

        ``username`` is a username or email; ``since`` is a number that they come after.
        """
        return self._evidence.recoveries.find(endpoint=endpoint, username=username, since=since)

    def coverage(self) -> dict[str, Json]:
        """Report which behaviours of the service were met, and which never."""
        return self._evidence.coverage.public()

    def _project_status(self, project: Project) -> Json:
        return {
            "name": project.name,
            "key": project.key,
            "allowedOrigins": list(project.allowed_origins),
            "disallowNoOrigin": project.disallow_no_origin,
            "tokenTtl": project.token_ttl,
            "resetTemplates": list(project.reset_templates),
            "endpoints": [self._endpoint_status(endpoint) for endpoint in self._store.endpoints_of(project.key)],
        }

    def _endpoint_status(self, endpoint: Endpoint) -> Json:
        options = {camel(name): value for name, value in dataclasses.asdict(endpoint).items() if name != "project"}
        return options | {
            "records": self._store.count(endpoint.name),
            "listeners": self._hub.count(endpoint.name),
        }

    def _session_status(self, session: Session | None) -> Json:
        if session is None:
            return None
        names = self._store.user_names(session.endpoint, session.user)
        return {
            "endpoint": session.endpoint,
            "uniqueId": session.user,
            "username": names[0] if names else None,
            "expiresAt": timestamp(session.expires_at),
        }


class Emulation:
    """One emulated service, which users know as a world: the verbs by who calls them, and the parts they use.

    It is wired here: each part gets what it uses, and uses nothing else. ``send`` brings a message to listeners.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        gate: Gate,
        files: Files,
        evidence: Evidence,
        send: Callable[[Sequence[Listener], bytes], None] = send_to_all,
        take_key: Callable[[str], bool] = lambda _: True,
        *,
        stable_ids: bool = False,
    ) -> None:
        self.store = store
        self.clock = clock
        self.gate = gate
        self.files = files
        self.evidence = evidence
        self.ids = ids = Ids(store, files, stable=stable_ids)
        accounts = Accounts(store, clock, ids.make)
        # Sessions in a data file may be over for years.
        accounts.forget_expired()
        self.hub = hub = Hub(clock, send, lambda listener, *how: evidence.saw_end(listener.endpoint, listener, *how))
        self.faults = faults = Faults(clock, hub, evidence.recoveries.saw_lost)
        publish = functools.partial(tell_change, hub, faults, evidence)
        parts = Parts(store, clock, ids, accounts, hub, publish, take_key)
        self.service = Service(parts, gate, files, evidence)
        self.owner = Owner(parts, faults, evidence)
        self.states = States(parts, files, faults)
        self.reports = Reports(store, clock, hub, faults, evidence)

    def fork(self, key: str, take_key: Callable[[str], bool], data: Tree | None = None) -> Emulation:
        """Make a private copy of how this one began, or one with other data, under another key."""
        files = self.files.reader()
        store, clock = self.store.fork(key, files.drop, data), self.clock.another()
        evidence = Evidence(clock, self.evidence.coverage, self.evidence.room)
        return Emulation(store, clock, self.gate, files, evidence, self.hub.send, take_key, stable_ids=self.ids.stable)

    def tick(self) -> None:
        """Do what is due: expiries, the timers of the command line, and edits of the data file."""
        self.clock.ring()
        self.states.take_over_edit()

    def stop_waiting(self, why: Message) -> None:
        """Wake everybody who waits, for what a fault holds up or for what is to be seen."""
        self.faults.clear()
        self.evidence.stop(why)

    def stop(self, why: Message) -> int:
        """Wake everybody who waits and close every socket with 1001; returns how many those were."""
        self.stop_waiting(why)
        return self.hub.close(self.hub.listeners(), CloseCode.GOING_AWAY, why, "stop")

    def close(self) -> None:
        """Save everything and close the files. Raises OSError; then the journal has what is new."""
        self.clock.stop()  # whose alarms lead back here
        # Asked while the store is open: it tells which records are left.
        gone = self.store.lost_files()
        self.store.file.close()
        self.files.close(gone)


# - Worlds -------------------------------------------------------------------------------------------

UNUSED_SECONDS = 3600.0
MOST_WORLDS = 1000


class Worlds:
    """Emulations by API key: the default one, and private copies of how it began, for tests side by side.

    A world has the endpoints of the default project under a key of its own, and its own data, users, tokens,
    clock, faults, evidence and sockets; it is in memory, and over after an hour without use. A key that fits
    one of ``patterns``, as test-*, makes its world at first use; of over a thousand worlds, the one among those that
    was unused for longest ends. ``prepare`` is called with each new one.
    """

    def __init__(
        self,
        default: Emulation,
        patterns: Sequence[str] = (),
        prepare: Callable[[Emulation], None] = lambda _: None,
    ) -> None:
        self.default = default
        self._patterns = patterns
        self._prepare = prepare
        self._private: dict[str, Emulation] = {}
        # The world of each key, of the one that it was made with and of those that its projects were given since.
        self._names: dict[str, str] = {}
        # When each was used, the one that was unused for longest first, and when something is due. Both by the
        # machine's time: a clock that a test sets must not end worlds.
        self._used: dict[str, float] = {}
        self._due: dict[Clock, float] = {}

    def __iter__(self) -> Iterator[Emulation]:
        return iter([self.default, *self._private.values()])

    def count_listeners(self) -> int:
        """Count how many listen in all worlds."""
        return sum(len(world.hub) for world in self)

    def of(self, key: str | None) -> Emulation:
        """Return the world that a request with this key is for."""
        # Nearly every emulator has one world; then no key is looked up twice.
        if not key or not (self._private or self._patterns):
            return self.default
        return self._find(key) or self.default

    def named(self, key: str | None) -> Emulation:
        """Return the world that an owner means by this key; raises OptionError where there is none."""
        world = self.default if key is None else self._find(key)
        if world is None:
            raise OptionError(f"{self._names_none(key)}; make it with fork")
        return world

    def _names_none(self, key: str | None) -> str:
        return f"key {shown(key)} names no world; there are: {', '.join(self._private) or 'none'}"

    def _find(self, key: str) -> Emulation | None:
        """Find the world of this key; make it if its first use does that."""
        name = self._name_of(key)
        if name is not None:
            self._use(name)
            return self._private[name]
        if self.default.store.project(key) is not None:
            return self.default
        return self._begin(key) if self._is_wanted(key) and self._has_room() else None

    def take(self, key: str, name: str | None = None) -> bool:
        """Have a key lead to a world, the default one without a name; tells whether it is no other world's."""
        if self._name_of(key) not in (None, name) or (name and self.default.store.project(key)):
            return False
        if name:
            self._names[key] = name
        return True

    def _name_of(self, key: str) -> str | None:
        name = self._names.get(key)
        # A world that went back to before it was given a key has it no more.
        return name if name and (key == name or self._private[name].store.project(key)) else None

    def _is_wanted(self, key: str) -> bool:
        # Not fnmatch, which takes upper and lower case for the same on Windows alone.
        from fnmatch import fnmatchcase

        return bool(KEY.match(key)) and any(fnmatchcase(key, pattern) for pattern in self._patterns)

    def _has_room(self) -> bool:
        """Tell whether there may be one more world; of too many, one ends that its key makes again when it is used."""
        if len(self._private) < MOST_WORLDS:
            return True
        unused = (key for key in self._used if self._is_wanted(key) and not len(self._private[key].hub))
        longest = next(unused, None)
        if longest is None:
            return False
        log.warning("there are %d worlds; the one of --fork-keys that was unused for longest ends", MOST_WORLDS)
        self._drop(longest)
        return True

    def _use(self, name: str) -> None:
        self._used.pop(name, None)  # so that it goes to the end
        self._used[name] = self.default.clock.uptime()

    def _begin(self, key: str, data: Tree | None = None) -> Emulation:
        world = self.default.fork(key, lambda other: self.take(other, key), data)
        self._prepare(world)
        self._private[key] = world
        self._names[key] = key
        self._use(key)
        log.info("world %s begins", shown(key))
        return world

    def health(self) -> dict[str, Json]:
        """Report that the emulator is ready, and its version."""
        return {"ready": True, "version": __version__}

    def fork(self, key: str, data: Mapping[str, Json] | None = None) -> dict[str, Json]:
        """Make a world of this key, a private copy of how the default one began; one that is there begins anew.

        With ``data`` it begins with the first project of that data file (sample_data/REFERENCE.md, "The data file").
        """
        check_key(key)
        if key not in self._private and (self._name_of(key) or self.default.store.project(key)):
            raise OptionError(f"key {shown(key)} is a project's; a world takes one of its own")
        tree = None if data is None else self.default.store.read(data, start=True)
        # Before worlds are counted: one that begins anew takes no more room.
        closed = self._drop(key)
        if not self._has_room():
            raise OptionError(f"there are {MOST_WORLDS} worlds, which is enough; drop some first")
        self._begin(key, tree)
        return {"key": key, "closed": closed}

    def drop(self, key: str) -> dict[str, Json]:
        """Drop a world; its sockets close with 1001."""
        if key not in self._private:
            raise OptionError(self._names_none(key))
        return {"closed": self._drop(key)}

    def _drop(self, key: str) -> int:
        world = self._private.pop(key, None)
        if world is None:
            return 0
        del self._used[key]
        self._names = {other: name for other, name in self._names.items() if name != key}
        self._due.pop(world.clock, None)
        log.info("world %s ends", shown(key))
        closed = world.stop(Message.DROPPED)
        world.close()
        return closed

    def wake(self, clock: Clock) -> None:
        """Take note of when something is due by a clock."""
        wait = clock.until_next()
        # A tick comes twice a second and there may be a thousand worlds, so only clocks with an alarm are kept.
        if wait < math.inf:
            self._due[clock] = self.default.clock.uptime() + wait
        else:
            self._due.pop(clock, None)

    def until_next(self) -> float:
        """Return the seconds until something is due in any world."""
        return max(0.0, min(self._due.values(), default=math.inf) - self.default.clock.uptime())

    def tick(self) -> None:
        """Do what is due, in worlds where something is, and end those that nobody uses."""
        self.default.tick()
        now = self.default.clock.uptime()
        for clock in [clock for clock, due in self._due.items() if due <= now]:
            clock.ring()
            self.wake(clock)
        while self._used and self._used[key := next(iter(self._used))] < now - UNUSED_SECONDS:
            # Whoever listens uses it without asking, so its hour begins anew.
            if len(self._private[key].hub):
                self._use(key)
            else:
                self._drop(key)


# - HTTP ---------------------------------------------------------------------------------------------

NO_SUBPROTOCOL = (
    "It asks for a subprotocol, and none is spoken here, so the client will leave (RFC 6455, section 4.1): "
    "open the WebSocket without one."
)
HANDSHAKE_KEY = re.compile(r"[A-Za-z0-9+/]{22}==\Z")
IDLE_SECONDS = 75.0
COPIED_BYTES = 2**16
FILE_BLOCK = 2**18
HEAD_BYTES = 2**18  # of a request: room for a long expression, and read within a quarter of a second at worst
LONGEST_PATH = 4096  # of a file: to follow a longer one takes seconds, and no system opens it
LINGER_SECONDS = 5.0
LINGER_BYTES = MOST_FILES * LARGEST_FILE  # an upload is read to its end, however early it is answered
Tell: TypeAlias = "Callable[[int, str], None]"  # what writes a line of the log, given its level and text
# Whatever was uploaded, in a browser it is no page of the emulator's: no script runs, no other type is guessed.
HARMLESS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox"))


@dataclass(slots=True, kw_only=True)
class HttpRequest(Request):
    """A request as it came over HTTP; a WebSocket's handshake is one like any other, until it is let in.

    Of one to the API the door says which ``world`` it is for, what the faults that hit it do (its ``effect``), and
    what to warn of: what is served, but hardly as it was meant. It may be ``refused`` before its body is read, and
    where that is files an ``upload`` has taken them.
    """

    method: str
    path: str
    query: str = ""
    version: str = "HTTP/1.1"
    is_handshake: bool = False
    upload: Upload | None = None
    refused: Refusal | None = None
    world: Emulation | None = None
    effect: Effect = NO_EFFECT
    warnings: tuple[str, ...] = ()
    attempt: Attempt | None = None

    @classmethod
    def of(cls, line: RequestStartLine, headers: HTTPHeaders) -> Self:
        """Make a request of its first line and headers."""
        path, _, query = line.path.partition("?")
        fields: dict[str, str] = {}
        repeated = set()
        for name, value in headers.get_all():
            if name in fields:
                repeated.add(name)
            fields[name] = value
        # As one list: cookies by RFC 9113, section 8.2.3, the others by RFC 9110, section 5.3.
        for name in repeated:
            fields[name] = ("; " if name == "Cookie" else ",").join(headers.get_list(name))
        request = cls(method=line.method, path=path, query=query, headers=fields, version=line.version)
        # Elsewhere an Upgrade is ignored, as it may be (RFC 9110, section 7.8).
        if line.method == "GET" and path.startswith(API_PREFIX):
            request.is_handshake = fields.get("Upgrade", "").lower() == "websocket"
        return request

    @property
    def title(self) -> str:
        """What it asks for, in the log."""
        return f"{'open' if self.is_handshake else self.method} {self.path}"


class FileBody(NamedTuple):
    """The part of an open file that is an answer's body; ``start`` and ``length`` in bytes."""

    file: BinaryIO
    start: int
    length: int


@dataclass(slots=True)
class Answer:
    """What goes back: written in one place, so that every answer has the same form.

    ``delay`` is in seconds; ``refusal`` is kept for the log. The body may be in a ``file``, or be made ``later``
    by what is called then, and may raise a Refusal.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: list[tuple[str, str]] = field(default_factory=list)
    delay: float = 0.0
    refusal: Refusal | None = None
    file: FileBody | None = None
    later: Callable[[], Awaitable[bytes]] | None = None

    def head(self) -> list[tuple[str, str]]:
        """Return the headers, those of the body included."""
        if self.status == 204:
            # Without a body there is no Content-Length either (RFC 9110, section 8.6).
            return self.headers
        length = self.file.length if self.file else len(self.body)
        return [("Content-Type", self.content_type), ("Content-Length", str(length)), *self.headers]


def refuse(refusal: Refusal, warnings: Sequence[str] = ()) -> Answer:
    """Make the error answer of contract 5.1; the warnings, which may say why, stand in the hint too."""
    # A refusal is kept as evidence, and would keep the whole request with it: its frames, and the body as read.
    refusal.__traceback__ = refusal.__context__ = None
    hint = " ".join([refusal.hint, *warnings])
    body = encode({"code": refusal.status, "message": refusal.message, "hint": hint})
    if refusal.body is not None:
        body = encode(refusal.body)
    answer = Answer(refusal.status, body, refusal=refusal)
    if refusal.message is Message.FAULT_HIT:
        add_headers(answer, refusal.headers)
    else:
        answer.headers += refusal.headers.items()
    return answer


def add_headers(answer: Answer, headers: Mapping[str, str]) -> None:
    """Give an answer the headers of a fault, and let a page of another origin read them."""
    for name, value in headers.items():
        if name.lower() == "content-type":
            answer.content_type = value
        else:
            answer.headers.append((name, value))
    # No page may read Set-Cookie, whatever is exposed (Fetch, "forbidden response-header name").
    exposed = ", ".join(name for name in headers if name.lower() != "set-cookie")
    if exposed:
        answer.headers.append(("Access-Control-Expose-Headers", exposed))


def send_file(path: str, content_type: str, request: HttpRequest, *, ranges: bool = True) -> Answer:
    """Answer with a file, or with ``ranges`` the part that is asked for; raises Refusal, or OSError."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open(path, "rb"))
        size = os.fstat(file.fileno()).st_size
        header = request.headers.get("Range") if ranges and request.method == "GET" else None
        # There is nothing by which a client could know an older version, so If-Range never matches.
        part = parse_range(header, size) if header and "If-Range" not in request.headers else None
        start, length = part or (0, size)
        answer = Answer(206 if part else 200, content_type=content_type, file=FileBody(file, start, length))
        opened.pop_all()  # whoever writes the answer closes it
    if part:
        answer.headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{size}"))
    if ranges:
        answer.headers.append(("Accept-Ranges", "bytes"))
    return answer


EVALUATION_SECONDS = 2.0
EVALUATORS = 4


def evaluate_expression(expression: str, data: bytes) -> tuple[bytes, bytes]:
    """Evaluate an expression on JSON: return ``+`` and the result as JSON, or ``-`` and why there is none."""
    # Inside, since nothing but its code goes to the other process.
    import json

    from jsonata import JException, Jsonata

    try:
        result = json_value(Jsonata(expression).evaluate(json.loads(data)))
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        if len(text) > 2**25:
            return b"-", b"it results in more than 32 MB"
        # The halves of a character, each escaped, become one in JavaScript.
        return b"+", text.encode("utf-16", "surrogatepass").decode("utf-16").encode()
    except JException as error:
        place = f" at position {error.location}" if error.location >= 0 else ""
        return b"-", f"{error.error}: {error}{place}".encode(errors="replace")
    except RecursionError:
        return b"-", b"it recurses too deep"
    except MemoryError:
        return b"-", b"it takes too much memory"
    except Exception as error:
        # An expression that nobody thought of makes the package fail in any way Python has.
        return b"-", f"{type(error).__name__}: {error}".encode(errors="replace")


def json_value(value: object) -> Json:
    """Make JSON of a result: whole numbers as JavaScript writes them, null for what JSON cannot say."""
    import math

    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, float):
        whole = math.isfinite(value) and value.is_integer() and abs(value) < 1e21
        return int(value) if whole else value if math.isfinite(value) else None
    return value if isinstance(value, (str, int)) else None


def serve_expressions(seconds: float) -> None:
    """Evaluate what comes on stdin until that ends, and each within so many seconds, as a process of its own.

    The first bytes of each message say how long its two parts are; ``!`` says that it has been read.
    """
    import signal
    import struct
    import sys

    import jsonata  # noqa: F401  # before ``!``, from when on the time counts

    try:
        import resource

        # So that an expression ends for want of memory before the machine does.
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    except (ImportError, OSError, ValueError):
        pass
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(16):
        expression, data = (source.read(size) for size in struct.unpack(">QQ", header))
        out.write(b"!")
        out.flush()
        if hasattr(signal, "setitimer"):  # ends what is endless, should the emulator be gone
            signal.setitimer(signal.ITIMER_REAL, seconds)
        sign, answer = evaluate_expression(expression.decode(), data)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(sign + struct.pack(">Q", len(answer)) + answer)
        out.flush()


def start_evaluator(seconds: float) -> subprocess.Popen[bytes]:
    """Begin a process that evaluates JSONata, and can be stopped in the middle of anything. Raises OSError.

    It is given those three functions alone, compiled: to import this module would take it longer than JSONata, and
    their source may be missing, as in a frozen program, or be another one since an update.
    """
    import marshal

    codes = [function.__code__ for function in (evaluate_expression, json_value, serve_expressions)]
    program = (
        "import marshal, types\n"
        f"for code in marshal.loads({marshal.dumps(codes)!r}):\n"
        "    globals()[code.co_name] = types.FunctionType(code, globals())\n"
        f"serve_expressions({seconds:g})"
    )
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-P", "-c", program], stdin=pipe, stdout=pipe, stderr=nowhere)


def hand_over(process: subprocess.Popen[bytes], expression: bytes, data: bytes) -> bool:
    """Give a process an expression and its data; whether it lives and has read them."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(len(expression).to_bytes(8) + len(data).to_bytes(8) + expression + data)
        process.stdin.flush()
    except OSError:
        return False
    return process.stdout.read(1) == b"!"


def take_answer(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes] | None:
    """Read a process's answer, its sign and its bytes; None where the process has died."""
    assert process.stdout is not None
    header = process.stdout.read(9)
    size = int.from_bytes(header[1:])
    answer = process.stdout.read(size)
    return (header[:1], answer) if len(header) == 9 and len(answer) == size else None


def stop_evaluator(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, whatever it does, and wait until it is gone."""
    process.kill()
    process.communicate()


def check_jsonata() -> None:
    """Raise Refusal where there is no JSONata."""
    import importlib.util

    if importlib.util.find_spec("jsonata") is None:
        raise not_installed("JSONata expressions", "jsonata-python>=0.6,<0.8")


class Evaluator:
    """Evaluates JSONata, which comes from outside and may be endless, in processes of its own (contract 4.6).

    Each is waited for in a thread, since asyncio's own processes are lost where a task is cancelled or the loop
    closes at the wrong moment; and by a task that nobody cancels, so that the next has its turn when it is gone.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(EVALUATORS)
        self._idle: list[subprocess.Popen[bytes]] = []
        self._asking: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        self._is_stopping = False

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(EVALUATORS, "jsonata")

    async def evaluate(self, expression: str, data: bytes) -> bytes:
        """Evaluate an expression on data; both data and result are JSON.

        Raises Refusal, with position, where it fails; also when the emulator stops before it is done, and where
        there is no process to be had.
        """
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._take_turn(expression.encode(errors="replace"), data, left))
        self._asking[task] = left
        task.add_done_callback(self._has_ended)
        try:
            # Not ``await task``, which would cancel the task together with whoever waits.
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if not left.done():
                left.set_result(None)
            raise
        outcome = task.result()
        if outcome is None:
            raise Refusal(Message.STOPPING, "It stops before the JSONata expression is evaluated.")
        sign, answer = outcome
        if sign == b"+":
            return answer
        why = answer.decode(errors="replace")
        raise Refusal(Message.WRONG_EXPRESSION, f"Expression {shown(expression)} fails: {shown(why, 300)[1:-1]}.")

    def _has_ended(self, task: asyncio.Task[Any]) -> None:
        del self._asking[task]
        if not task.cancelled():
            task.exception()  # whoever has left does not look at it, and asyncio would complain

    async def _take_turn(
        self, expression: bytes, data: bytes, left: asyncio.Future[None]
    ) -> tuple[bytes, bytes] | None:
        """Sign and answer of a process: of an idle one, or of a new one where there is none or it has died.

        Once nobody waits for them any more, be it that the client has ``left`` or that the emulator stops, the
        process is ended, and there are none.
        """
        async with self._slots:
            while not (left.done() or self._is_stopping):
                # An idle process may have died; then the next has its turn, and in the end a new one.
                is_new = not self._idle
                process = await self._start() if is_new else self._idle.pop()
                has_begun, _ = await self._watch(process, left, None, hand_over, expression, data)
                answer, is_late = None, False
                if has_begun:
                    answer, is_late = await self._watch(process, left, EVALUATION_SECONDS, take_answer)
                if answer is not None:
                    self._idle.append(process)
                    return answer
                await self._in_thread(stop_evaluator, process)
                if is_late:
                    return b"-", f"it takes longer than {EVALUATION_SECONDS:g} seconds".encode()
                if left.done():
                    continue
                if has_begun:
                    return b"-", b"it takes too much memory, or recurses too deep"
                if is_new:
                    raise self._no_process(f"it ends at once; {sys.executable} -c 'import jsonata' may say why")
        return None

    async def _watch(
        self,
        process: subprocess.Popen[bytes],
        left: asyncio.Future[None],
        seconds: float | None,
        work: Callable[..., T],
        *arguments: bytes,
    ) -> tuple[T, bool]:
        """Wait for what a process does, and whether that took too long; then, or without a client, it is killed."""
        working: asyncio.Future[Any] = self._in_thread(work, process, *arguments)
        done, _ = await asyncio.wait([working, left], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            # A thread cannot be stopped; without its process it reads the end of the pipe, and returns.
            process.kill()
        return await working, not done

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _start(self) -> subprocess.Popen[bytes]:
        try:
            return await self._in_thread(start_evaluator, EVALUATION_SECONDS + 1)
        except OSError as error:
            raise self._no_process(f"{sys.executable}: {error.strerror}") from None

    def _no_process(self, why: str) -> Refusal:
        return Refusal(Message.BUG, f"JSONata takes a process of its own, which cannot be started: {why}.")

    async def stop(self) -> None:
        """Kill the processes, whatever they do, and wait until they are gone."""
        self._is_stopping = True
        for left in self._asking.values():
            if not left.done():
                left.set_result(None)
        if self._asking:
            await asyncio.wait(list(self._asking))
        await asyncio.gather(*(self._in_thread(stop_evaluator, process) for process in self._idle))
        self._threads.shutdown()


class Door:
    """Answers requests: ``perform`` carries one out or raises, ``cors`` says who may read the answer."""

    def answer(self, request: HttpRequest) -> Answer:
        """Carry out a request; whatever it raises becomes an error answer."""
        origin = request.headers.get("Origin")
        try:
            answer = self.perform(request)
        except Refusal as refusal:
            answer = refuse(refusal, request.warnings)
        except Exception:
            # Tornado would close the connection without an answer.
            log.exception("%s %s failed", request.method, request.path)
            hint = "This is a bug of the emulator; its log has the traceback."
            answer = refuse(Refusal(Message.BUG, hint, hidden=not is_loopback_origin(origin or "")))
        # Without these headers the browser keeps the answer from the page.
        if origin is not None and not (answer.refusal and answer.refusal.hidden):
            # A fault may have been given one of them, and a browser takes it only once.
            given = {name.lower() for name, _ in answer.headers}
            answer.headers += [(name, value) for name, value in self.cors(origin) if name.lower() not in given]
        return answer

    def perform(self, request: HttpRequest) -> Answer:
        """Carry out a request, or raise a Refusal."""
        raise NotImplementedError

    def check_head(self, request: HttpRequest) -> None:
        """Raise the Refusal of a request that is refused whatever its body, for who asks before sending it."""
        raise NotImplementedError

    def start_upload(self, request: HttpRequest) -> Upload | None:
        """Return what takes the body of a request while it arrives; None where the body is collected."""

    def most_body(self, request: HttpRequest) -> int:
        """Return how large a body may be, where the usual limit is too low; else 0."""
        return 0

    def cors(self, origin: str) -> list[tuple[str, str]]:
        """Return the headers that let a page of this origin read the answer; none where no other page may."""
        return []


class Api(Door):
    """The emulated service over HTTP."""

    def __init__(
        self,
        worlds: Worlds,
        *,
        is_secure: bool = False,
        plain_cookie: bool = False,
        latency: tuple[float, float] = (0, 0),
        max_body: int = 1_000_000,
        most_sockets: int = 1000,
    ) -> None:
        self.worlds = worlds
        self.evaluator = Evaluator()
        self._most_sockets = most_sockets
        self._latency = latency
        self._max_body = max_body
        # In order of preference, with the attributes that a browser wants for each (contract 6.6).
        self._cookies = {ACCESS_TOKEN_COOKIE: "Path=/; Secure; HttpOnly; SameSite=None"}
        if plain_cookie and not is_secure:
            self._cookies[PLAIN_COOKIE] = "HttpOnly; SameSite=Lax; Path=/"
        self._warned_of_cookies = plain_cookie or is_secure
        self._last_host: str | None = None

    def latency(self) -> float:
        """Return how long the next answer waits, in seconds."""
        if not any(self._latency):
            return 0.0
        import random

        return random.uniform(*self._latency)

    def answer(self, request: HttpRequest) -> Answer:
        answer = super().answer(request)
        answer.delay = self.latency()
        if request.is_handshake and request.world:
            request.attempt = request.world.service.saw_handshake(request)
            if request.attempt and answer.status != 101:
                is_outage = request.world.faults.is_outage(request.effect.numbers)
                request.attempt.refused = OUTAGE if is_outage else str(answer.status)
        return answer

    def _find_world(self, request: HttpRequest) -> Emulation:
        """Read what a request shows, and find the world it is for; raises a Refusal for a host that is not let in."""
        host = request.host
        if host is None or host != self._last_host:  # what has passed once passes again
            self.worlds.default.gate.check_host(host)
            # Nearly every request names the same host; only the last is kept, as clients may name any.
            self._last_host = host
        self._read(request)
        return self.worlds.of(request.parameters.key)

    def perform(self, request: HttpRequest) -> Answer:
        request.world = world = self._find_world(request)
        # Refused when its head came, and told now that its world is there to keep it as evidence.
        if request.refused:
            raise request.refused
        if request.is_handshake:
            return self._let_in(world, request)
        if request.method == "OPTIONS":
            return self._preflight(world, request)
        if not request.path.startswith(API_PREFIX):
            world.service.check_gate(request)
            # Behind the gate, since the hint may name an endpoint.
            hint = f"{shown(request.path)} is no address of the API; endpoints are at {API_PREFIX}NAME."
            names = [endpoint.name for endpoint in world.store.endpoints()]
            if like := closest(request.path.rpartition("/ce/")[2], names):
                hint += f" Did you mean {API_PREFIX}{like}?"
            raise Refusal(Message.NOT_FOUND, hint)
        method = served_as(request.method, request)
        if method not in METHODS:
            world.service.check_gate(request)
            raise wrong_method(method, METHODS)
        operation = world.service.operation(request, method)
        if world.faults:
            world.service.check_gate(request, operation)
        self._look(world, operation, request)
        if not world.faults:
            return self._carry_out(world.service, operation, request)
        request.effect = effect = self._effect(world, request, method)
        if not effect.takes_effect:
            raise fault_hit(effect)
        answer = self._carry_out(world.service, operation, request)
        # Messages come first where a fault says so, and they leave when the verb is done.
        request.effect = effect._replace(delays=(*effect.delays, *world.faults.take_owed()))
        if effect.status is None:
            return answer
        # The write has taken effect, and the client is told that it failed.
        if answer.file:
            answer.file.file.close()
        raise fault_hit(effect)

    @staticmethod
    def _effect(world: Emulation, request: HttpRequest, method: str) -> Effect:
        """Find out what the faults of a world do to a request."""
        names = functools.partial(world.service.names, request)
        return world.faults.on_request(request.endpoint, method, names, is_console=request.parameters.from_console)

    def _let_in(self, world: Emulation, request: HttpRequest) -> Answer:
        """Let a handshake in, whatever it shows: a browser can read only from a socket why not (contract 7.2)."""
        check_handshake(request)
        if self.worlds.count_listeners() >= self._most_sockets:
            hint = f"{self._most_sockets} are open; raise the limit of open files (ulimit -n)."
            raise Refusal(Message.TOO_MANY_SOCKETS, hint)
        with contextlib.suppress(OriginRefused):  # a foreign page uses no fault up
            world.service.check_gate(request)
            request.effect = effect = self._effect(world, request, WEBSOCKET)
            if not effect.takes_effect:
                raise fault_hit(effect)
        request.warnings = request.parameters.warnings
        request.warnings += world.service.look_at_flags(request, Operation.LISTEN, WEBSOCKET)
        if request.headers.get("Sec-Websocket-Protocol"):
            request.warnings += (NO_SUBPROTOCOL,)
        return Answer(101)

    def _look(self, world: Emulation, operation: Operation, request: HttpRequest) -> None:
        """Take note of what is odd about a request that may well be served."""
        parameters = request.parameters
        if parameters.flags or parameters.warnings:
            request.warnings = parameters.warnings + world.service.look_at_flags(request, operation, request.method)
        if request.method in ("POST", "PUT"):
            kind, body = request.headers.get("Content-Type"), request.body
            # An object or array that says that it is JSON is what nearly all send.
            if (kind != "application/json" or (body and body[:1] == b'"')) and operation is not Operation.LOGOUT:
                request.warnings += look_at_body(request)
        elif "Sec-Websocket-Key" in request.headers:
            why = "it lacks Upgrade: websocket, which a proxy has to pass on (nginx: proxy_set_header Upgrade)"
            request.warnings += (f"This is a WebSocket's handshake, answered as a plain GET: {why}.",)

    def _read(self, request: HttpRequest) -> None:
        """Note what a request shows: endpoint, parameters, and a token, which a WebSocket may bring in the URL.

        Of several places the first that has a token counts (contract 6.7).
        """
        request.endpoint = request.path.removeprefix(API_PREFIX)
        request.parameters = parse_parameters(request.query)
        candidates: list[str | None] = []
        if authorization := request.headers.get("Authorization"):
            candidates.append(bearer_token(authorization))
        if request.is_handshake:
            candidates.append(request.parameters.access_token)
        if cookies := request.headers.get("Cookie"):
            candidates += [cookie_value(cookies, name) for name in self._cookies]
        request.token = next(filter(None, candidates), None) if candidates else None

    def check_head(self, request: HttpRequest) -> None:
        world = self._find_world(request)
        if not request.path.startswith(API_PREFIX):
            raise Refusal(Message.NOT_FOUND, "")
        method = served_as(request.method, request)
        if method not in METHODS:
            raise wrong_method(method, METHODS)
        operation = world.service.operation(request, method)
        world.service.admit(request, operation)
        if request.method in ("POST", "PUT") and operation is not Operation.LOGOUT:
            check_encoding(request.headers.get("Content-Encoding"))
            check_content_type(request.headers.get("Content-Type"))

    def start_upload(self, request: HttpRequest) -> Upload | None:
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # Any other body is collected, and judged when it is here.
        if (request.method, media_type) != ("POST", MULTIPART) or not request.path.startswith(API_PREFIX):
            return None
        try:
            world = self._find_world(request)
            if world.service.operation(request, "POST") is not Operation.CREATE:
                return None
            return world.service.start_upload(request, self._max_body)
        except Refusal as refusal:
            request.refused = refusal
            return None

    def _carry_out(self, service: Service, operation: Operation, request: HttpRequest) -> Answer:
        if operation is Operation.CREATE and request.upload:
            return self._show(service.upload(request, request.upload), request)
        if operation is Operation.READ and "fileOnly" in request.parameters.flags:
            return self._send_file(service, request)
        if operation is Operation.LOGIN:
            user, session = service.login(request)
            answer = self._show(user, request)
            if "noATCookie" in request.parameters.flags:
                answer.headers.append(("Authorization", f"Bearer {session.token}"))
            else:
                answer.headers += self._set_cookies(session.token)
                self._warn_of_lost_cookie(request)
            return answer
        if operation is Operation.SEND_RESET:
            service.send_reset(request)
            return Answer(body=b"{}")
        if operation is Operation.RESET_PASSWORD:
            service.reset_password(request)
            return Answer(body=b"{}")
        if operation is Operation.LOGOUT:
            service.logout(request)
            return Answer(body=b"{}", headers=self._set_cookies("", "; Max-Age=0"))
        # The other operations have the names of their verbs, which return records.
        verb: Callable[[HttpRequest], Record | Listing] = getattr(service, operation)
        return self._show(verb(request), request)

    def _send_file(self, service: Service, request: HttpRequest) -> Answer:
        """Answer with an uploaded file (contract 8.2)."""
        file, path = service.download(request)
        # A client has named it, so it may be no header's value at all.
        kind = file["mimeType"] if MIME_TYPE.match(file["mimeType"]) else "application/octet-stream"
        try:
            answer = send_file(path, kind, request, ranges="stream" in request.parameters.flags)
        except OSError as error:
            log.error("%s: %s", path, error.strerror)
            raise Refusal(Message.NO_FILE, f"The file is not readable: {error.strerror}.") from None
        answer.headers.append(("Content-Disposition", content_disposition(file["originalName"])))
        answer.headers += HARMLESS
        return answer

    def _show(self, result: Record | Listing, request: HttpRequest) -> Answer:
        """Answer with what a verb returned (contract 4.7)."""
        expression = request.parameters.jsonata if request.method == "GET" else None
        if expression is not None:
            check_jsonata()
            body = result.packed_data if request.parameters.data_only else result.wire
            return Answer(later=functools.partial(self.evaluator.evaluate, expression, body))
        if not request.parameters.data_only:
            return Answer(body=result.wire)
        if isinstance(result, Record) and isinstance(result.data, str):
            return Answer(body=result.data.encode(), content_type=TEXT_TYPE)
        return Answer(body=result.packed_data)

    def _preflight(self, world: Emulation, request: HttpRequest) -> Answer:
        """Answer what a browser asks before it lets a page send a request (contract 9.1).

        Only what the page may not read is refused here. A wrong key or endpoint passes, since a browser
        shows the page nothing of a failed preflight, and the request itself will say what is wrong.
        """
        method = request.headers.get("Access-Control-Request-Method", "GET")
        operation = world.service.operation(request, method) if method in METHODS[:4] else Operation.READ
        try:
            world.service.preflight(request, operation)
        except Refusal as refusal:
            if refusal.hidden:
                raise
        headers = [
            ("Access-Control-Allow-Methods", ", ".join(METHODS)),
            ("Access-Control-Allow-Headers", request.headers.get("Access-Control-Request-Headers", "")),
            ("Access-Control-Max-Age", "600"),
        ]
        return Answer(204, headers=[(name, value) for name, value in headers if value])

    def cors(self, origin: str) -> list[tuple[str, str]]:
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", "Authorization"),
            ("Vary", "Origin"),
        ]

    def _set_cookies(self, value: str, extra: str = "") -> list[tuple[str, str]]:
        return [("Set-Cookie", f"{name}={value}; {attributes}{extra}") for name, attributes in self._cookies.items()]

    def _warn_of_lost_cookie(self, request: HttpRequest) -> None:
        """Say once when a browser logs in that will drop the cookie, as it comes over plain http."""
        origin, agent = request.headers.get("Origin"), request.headers.get("User-Agent", "")
        page, here = origin_host(origin or ""), host_name(request.headers.get("Host", ""))
        if self._warned_of_cookies or not (is_webkit(agent) or (page and page != here)):
            return
        self._warned_of_cookies = True
        why = "it is WebKit" if is_webkit(agent) else f"the page is on {page} and the emulator on {here}"
        log.warning(
            "login: this browser will drop the access token cookie, because %s and this is plain http; "
            "use one host name for both, log in with noATCookie=true, or start with --plain-cookie",
            why,
        )


def fault_hit(effect: Effect) -> Refusal:
    """Make the refusal that a client gets of the faults that hit its request."""
    which = ", ".join(map(str, effect.numbers))
    hint = f"Fault {which} was asked for; DELETE {CONTROL_PREFIX}faults clears it."
    return Refusal(Message.FAULT_HIT, hint, status=effect.status, headers=effect.headers, body=effect.body)


def served_as(method: str, request: HttpRequest) -> str:
    """Return the method whose rules count: a HEAD for a file is a GET without its body (contract 1.7)."""
    return "GET" if method == "HEAD" and "fileOnly" in request.parameters.flags else method


def check_handshake(request: HttpRequest) -> None:
    """Raise a Refusal for a handshake that RFC 6455, section 4.2.1, does not allow; Tornado 6.6.1 lets some pass."""
    connection, version = request.headers.get("Connection", ""), request.version
    if version != "HTTP/1.1":
        why = f"It came over {shown(version, 20)}; a WebSocket takes HTTP/1.1 (behind nginx: proxy_http_version 1.1)."
    elif "upgrade" not in (part.strip().lower() for part in connection.split(",")):
        why = "The header Connection does not say Upgrade (behind nginx: proxy_set_header Connection upgrade)."
    elif not HANDSHAKE_KEY.match(request.headers.get("Sec-Websocket-Key", "")):
        why = "It takes one header Sec-WebSocket-Key, of 16 bytes in base64."
    elif (asked := request.headers.get("Sec-Websocket-Version")) != "13":
        what = f"is {shown(asked, 20)}" if asked else "is missing"
        hint = f"Sec-WebSocket-Version {what}; it takes 13 (RFC 6455)."
        # Its section 4.4 wants status and header.
        raise Refusal(Message.WRONG_HANDSHAKE, hint, status=426, headers={"Sec-WebSocket-Version": "13"})
    else:
        return
    raise Refusal(Message.WRONG_HANDSHAKE, why)


def content_disposition(name: str) -> str:
    """Show the file, and save it under its name: plain for old clients, whole for others (RFC 6266)."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def bearer_token(header: str) -> str | None:
    """Return the token in an Authorization header, None where it is of another scheme (contract 6.7)."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def cookie_value(header: str, name: str) -> str | None:
    """Return the value of a cookie; of several with that name the last one, and junk beside it is ignored."""
    pairs = [part.strip().partition("=") for part in header.split(";")]
    return next((value for cookie, _, value in reversed(pairs) if cookie == name), None)


# What the console may do: run its own files, and speak to the emulator; nobody puts it into a frame.
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
CONSOLE_HEADERS = (
    ("Content-Security-Policy", CONSOLE_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
NOTICE = f"""\
rested-emulator {__version__} runs here, a local stand-in for RESTED_DEV.

Endpoints    {API_PREFIX}NAME?key=KEY
Control      {CONTROL_PREFIX}status

The console is not here: only the module was copied. It is the folder sample_data/console of a checkout,
looked for beside the module, and comes along with an installed package.
"""


# What a machine's own table says (mime.types, on Windows the registry) is often enough text/plain for .js.
FILE_TYPES = MappingProxyType(
    {
        ".css": "text/css",
        ".html": "text/html",
        ".ico": "image/vnd.microsoft.icon",
        ".jpg": "image/jpeg",
        ".js": "text/javascript",
        ".json": "application/json",
        ".map": "application/json",
        ".mjs": "text/javascript",
        ".mp4": "video/mp4",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".txt": "text/plain",
        ".wasm": "application/wasm",
        ".webm": "video/webm",
        ".webmanifest": "application/manifest+json",
        ".webp": "image/webp",
        ".woff2": "font/woff2",
    }
)
CA_KEY_SUFFIX = ".ca-key.pem"


def file_type(name: str) -> str:
    """Return the content type of a file by its name, the same on every machine."""
    kind = FILE_TYPES.get(os.path.splitext(name)[1].lower())
    if kind is None:
        from mimetypes import MimeTypes

        kind, encoding = MimeTypes().guess_type(name)  # one of its own has Python's table alone
        if kind is None or encoding:  # a packed page is sent packed, as a file to keep
            return "application/octet-stream"
    has_charset = kind.startswith("text/") or kind.endswith(("javascript", "json"))
    return f"{kind}; charset=utf-8" if has_charset else kind


def has_hidden_part(path: str) -> bool:
    """Tell whether a part of a path begins with a dot, as ``.git`` and ``.env`` do; ``.well-known`` is for everyone."""
    parts = os.path.normpath(path).split(os.sep)
    return any(part.startswith(".") and part not in (".", "..", ".well-known") for part in parts)


def file_identity(path: str) -> tuple[int, int] | None:
    """Identify a file, whichever link or spelling leads to it; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def beside(path: str) -> Iterator[str]:
    """Find a file and all that is named after it: journal, lock, CA, uploads, and an editor's copies."""
    folder, name = os.path.split(os.path.realpath(path))
    whole_name = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            if whole_name.search(entry):
                yield os.path.join(folder, entry)


INDEX = b"index.html"
NOT_THE_APPS = frozenset(prefix.split("/")[1] for prefix in (API_PREFIX, CONTROL_PREFIX))


def is_navigation(request: HttpRequest) -> bool:
    """Tell whether a browser goes to an address that an app may have made up: no file's, and not below API or control.

    What a page loads, and what a program asks for, does not name ``text/html`` among what it accepts.
    """
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(",")]
    start, *parts = unquote(request.path).split("/")
    names = [part for part in parts if part not in ("", ".")]
    if "text/html" not in accepted or start or ".." in names:  # a browser resolves dots itself
        return False
    return not names or (names[0] not in NOT_THE_APPS and not os.path.splitext(names[-1])[1])


class Static(Door):
    """Serves the files of a folder below ``base``: no listing, no way out of it, and nothing that is hidden.

    Nor are the emulator's ``own`` files served, nor what is named after one of them and a dot. A browser that goes to a
    path without a file gets the folder's ``index.html``, as from every dev server.
    """

    def __init__(
        self,
        folder: str,
        service: Service,
        base: str = "/",
        headers: Sequence[tuple[str, str]] = (),
        own: Sequence[str] = (),
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._service = service
        self._base = base
        self._headers = headers
        self._own = own

    def check_head(self, request: HttpRequest) -> None:
        host = request.headers.get("Host")
        self._service.check_page(request.headers.get("Origin"), host)
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(request.method, ("GET", "HEAD"))

    def perform(self, request: HttpRequest) -> Answer:
        self.check_head(request)
        asked = "/" + request.path.removeprefix(self._base)
        target = unquote_to_bytes(asked.encode("latin1"))  # as which a request's first line is read
        path = self._find(target, request)
        if path and os.path.isdir(path):
            if not request.path.endswith("/"):
                # Relative links of a page count from the last slash. Two slashes at the front would name another host.
                where = f"{quote(target)}/{'?' if request.query else ''}{request.query}"
                return Answer(301, headers=[("Location", self._base + where.lstrip("/"))])
            target += INDEX
            path = self._find(target, request)
        elif request.path.endswith("/"):
            path = None
        if path is None and is_navigation(request):
            # The address is one of the app's own, which it shows once it runs.
            target = INDEX
            path = self._find(target, request)
        if path is None:
            raise self._missing(request)
        try:
            answer = send_file(path, file_type(target.decode()), request)
        except OSError as error:
            raise self._missing(request, f" that can be read: {error.strerror}") from None
        answer.headers += [("Cache-Control", "no-cache"), *self._headers]
        return answer

    def _find(self, target: bytes, request: HttpRequest) -> str | None:
        """Follow a path and all links to a file or folder, None where there is none.

        Raises Refusal where that is outside, or not served.
        """
        try:
            name = target.decode().lstrip("/")
            if len(target) > LONGEST_PATH or (os.name == "nt" and ":" in name):  # a drive, or a stream of a file
                raise self._missing(request)
            # All links are followed before anything is compared: one inside may lead outside.
            real = os.path.realpath(os.path.join(self._folder, name))
            inside = os.path.commonpath((real, self._folder)) == self._folder
        except ValueError:  # not UTF-8, or with a null byte
            raise self._missing(request) from None
        if not inside:
            raise self._missing(request)
        if has_hidden_part(f"/{name}") or has_hidden_part(os.path.relpath(real, self._folder)):
            hint = (
                f"A part of {shown(request.path)} begins with a dot; --static serves none of these, .well-known aside."
            )
            raise Refusal(Message.NOT_FOUND, hint)
        if not (os.path.isfile(real) or os.path.isdir(real)):
            return None
        if self._is_own(real):
            hint = (
                "is, or is named after, the emulator's own (data, seed, uploads, a key), which --static never serves."
            )
            raise Refusal(Message.NOT_FOUND, f"{shown(request.path)} {hint}")
        return real

    def _is_own(self, path: str) -> bool:
        """Tell whether a path leads to what is the emulator's own, or into it."""
        if CA_KEY_SUFFIX in os.path.basename(path).casefold():  # be it of another data file
            return True
        own = {file_identity(one) for place in self._own for one in beside(place)}
        inside = path.removeprefix(self._folder).split(os.sep)
        ways = itertools.accumulate(inside, os.path.join, initial=self._folder)
        return any(file_identity(way) in own for way in ways)

    def _missing(self, request: HttpRequest, why: str = "") -> Refusal:
        return Refusal(Message.NOT_FOUND, f"There is no file {shown(request.path)} in the folder of --static{why}.")


class Notice(Door):
    """Says in plain text what runs here, where there is no page to show it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def check_head(self, request: HttpRequest) -> None:
        self._gate.check_host(request.headers.get("Host"))
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(request.method, ("GET", "HEAD"))

    def perform(self, request: HttpRequest) -> Answer:
        self.check_head(request)
        return Answer(body=NOTICE.encode(), content_type=TEXT_TYPE)


WAIT_PATH = f"{CONTROL_PREFIX}wait"
CONSOLE_WAITS = b'"from":"%b"' % CONSOLE.encode()  # as JSON.stringify writes it


class Front:
    """What Tornado's HTTP server and the lane talk to: decides at first sight who answers a request.

    ``doors`` are tried by the prefix of the path, in order, after the ``pages``, which are whole paths.
    ``open_socket`` makes a WebSocket of a handshake that is let in. ``tell`` writes a line of the log.
    """

    def __init__(
        self,
        doors: Sequence[tuple[str, Door]],
        open_socket: Callable[[Exchange], None],
        max_body: int,
        pages: Mapping[str, Door],
        tell: Tell,
    ) -> None:
        self._doors = doors
        self.tell = tell
        self._pages = pages
        self.open_socket = open_socket
        self.max_body = max_body
        self.pending: set[Exchange] = set()
        self.now = asyncio.get_running_loop().time
        self._waiting: dict[object, tuple[float, HTTPConnection]] = {}  # when a connection last sent something

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> Exchange:
        """Begin with a request on a connection of Tornado's."""
        self.is_waiting(server_conn, request_conn)
        return Exchange(self, server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self._waiting.pop(server_conn, None)

    def is_waiting(self, server_conn: object, connection: HTTPConnection) -> None:
        """Take note that the client is to send something: a request, or more of its body."""
        self._waiting[server_conn] = self.now(), connection

    def is_served(self, server_conn: object) -> None:
        """Take note that a request has arrived."""
        self._waiting.pop(server_conn, None)

    def close_idle(self) -> None:
        """Close connections whose client has sent nothing for too long.

        One look at all of them now and then does what Tornado would do with a timer for each request.
        """
        longest = self.now() - IDLE_SECONDS
        # A list, since a connection that closes takes itself out.
        for since, connection in list(self._waiting.values()):
            is_tls = begins_with_tls(connection)
            if is_tls:
                log.warning("TLS was spoken to a port of plain http; use http:// and ws://, or start with --tls")
            if since < longest or is_tls:
                getattr(connection, "close")()

    def in_flight(self, world: Emulation) -> int:
        """Count how many requests to the API are under way that are for this world, or do not say so yet."""
        return sum(one.is_for(world) for one in self.pending)

    def is_page(self, path: str) -> bool:
        """Tell whether the console, or the word that there is none, stands at this path."""
        return path in self._pages

    def door(self, path: str) -> Door:
        """Find the door that answers at this path."""
        if path in self._pages:
            return self._pages[path]
        for prefix, door in self._doors:
            if path.startswith(prefix):
                return door
        raise AssertionError("the last prefix is empty")


class Exchange:
    """One request and its answer, as Tornado reads the one and writes the other: an ``HTTPMessageDelegate`` of its.

    Like all here it derives from nothing of Tornado's, which is imported when something asks for it.
    """

    # Here what most requests never set.
    _size = 0
    _answers_early = False
    _has_answered = False
    _has_body = False
    _upload: Upload | None = None
    _feeding: asyncio.Future[None] | None = None
    _is_noted = False
    _is_opening = False

    def __init__(self, front: Front, server_conn: object, connection: HTTPConnection) -> None:
        self._front = front
        self._server_conn = server_conn
        self.connection = connection
        self._chunks: list[bytes] = []

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Any:
        self.line, self.headers = start_line, headers
        self.begin(HttpRequest.of(start_line, headers))
        if self.request.is_handshake:
            headers.pop("Expect", None)  # it has no body to ask for
            return None
        self._upload = self._door.start_upload(self.request)
        if self._upload:
            return None
        fields = self.request.headers  # Tornado's own take twenty times as long to look into
        if self._is_too_long(fields.get("Content-Length", "")) or ("Expect" in fields and self._is_lost()):
            headers.pop("Expect", None)  # or Tornado would ask for the body after all
            self._answer_early()
        else:
            self._front.is_waiting(self._server_conn, self.connection)
        return None

    def begin(self, request: HttpRequest) -> None:
        """Take up a request whose head is here."""
        self.request = request
        self._since = self._front.now()
        # Tornado's own writing of headers is only needed where they depend on the connection.
        keeps_alive = request.headers.get("Connection", "keep-alive").lower() == "keep-alive"
        self._is_plain = request.version == "HTTP/1.1" and keeps_alive
        self._front.pending.add(self)
        self._door = self._front.door(request.path)

    def _is_too_long(self, length: str) -> bool:
        """Tell whether a length is over the limit; Tornado accepts one that is said several times."""
        length = length.partition(",")[0]
        return length.isdecimal() and (len(length) > 18 or self._is_over_limit(int(length)))

    def _is_over_limit(self, size: int) -> bool:
        """Tell whether a body of that size is over the limit."""
        # In this order, since most bodies are small and the door looks twice.
        return size > self._front.max_body and size > self._door.most_body(self.request)

    def _is_lost(self) -> bool:
        """Tell whether the request will be refused whatever its body."""
        try:
            self._door.check_head(self.request)
        except Refusal:
            return True
        return False

    def is_for(self, world: Emulation) -> bool:
        """Tell whether the request is one to the API that is for this world, as far as it is known."""
        request = self.request
        return request.world is world or (request.world is None and request.path.startswith(API_PREFIX))

    def data_received(self, chunk: bytes) -> Any:
        if self.request.is_handshake:
            return None  # it has no body, and one that comes all the same is not collected
        self._size += len(chunk)
        if self._upload:  # which may take its time, as long as it goes on
            self._front.is_waiting(self._server_conn, self.connection)
        if self._answers_early:
            if self._size > LINGER_BYTES:
                self._close()
            # A client may be so fast that the loop would read it for ever, since Tornado waits for nothing else.
            return asyncio.sleep(0)
        if self._upload:
            return self._feed(self._upload, chunk)
        if self._is_over_limit(self._size):
            self._answer_early()
        else:
            self._chunks.append(chunk)
        return None

    async def _feed(self, upload: Upload, chunk: bytes) -> None:
        """Let an upload take its bytes in a thread; the client is read no faster than the disk is written."""
        self._feeding = asyncio.get_running_loop().run_in_executor(None, upload.feed, chunk)
        await self._feeding
        if upload.refusal:
            self._size = 0
            self._answer_early()

    def _discard_upload(self) -> None:
        """Delete what has not become a record, once the thread that writes it is done."""
        upload = self._upload
        if upload and self._feeding and not self._feeding.done():
            self._feeding.add_done_callback(lambda _: upload.discard())
        elif upload:
            upload.discard()

    def finish(self) -> None:
        self._front.is_served(self._server_conn)
        if not self._answers_early:
            self._answer(b"".join(self._chunks))
        elif self._has_answered:
            self._close()
        self._has_body = True

    def on_connection_close(self) -> None:
        # The client is gone: nothing is owed to it, and stopping need not wait for it.
        self._front.pending.discard(self)
        self._discard_upload()

    def _answer(self, body: bytes | None) -> None:
        request = self.request
        request.body, request.upload = body, self._upload
        answer = self._door.answer(request)
        self._discard_upload()
        effect = request.effect
        if answer.delay or answer.file or answer.later or effect.delays or effect.is_cut or effect.hangs:
            self._answering = asyncio.ensure_future(self._answer_later(answer))
            # Tornado tells only who asks that a client has left while its answer is made.
            getattr(self.connection, "set_close_callback")(self._answering.cancel)
        else:
            self._write(answer)

    async def _answer_later(self, answer: Answer) -> None:
        """Write an answer that needs a while, unless the client leaves."""
        with contextlib.ExitStack() as finally_:
            # These run from the last to the first: the file closes, evidence is kept, then it is over.
            finally_.callback(self._is_over)
            finally_.callback(self._note_left, answer)
            if answer.file:
                finally_.enter_context(answer.file.file)
            if answer.later:
                await make_body(answer, answer.later)
            await asyncio.sleep(answer.delay)
            effect = self.request.effect
            for fault, seconds in effect.delays:
                await wait_until_over(fault, seconds)
            if effect.keeps_half:
                await self._write_half(answer)
            elif effect.hangs or effect.is_cut:
                await self._cut(answer, effect)
            elif answer.file and self.request.method != "HEAD":
                await self._write_file(answer, answer.file)
            else:
                self._write(answer)

    async def _cut(self, answer: Answer, effect: Effect) -> None:
        """Reset the connection in place of an answer, at once or when the fault that keeps it hanging is over."""
        log.info("%s not answered", self.request.title)
        self._note(answer, None)
        if effect.hangs:
            await wait_until_over(effect.hangs)
        self._reset()

    async def _write_half(self, answer: Answer) -> None:
        """Write the head and half of the body, as far as the client takes it, and reset the connection."""
        from tornado.iostream import StreamClosedError

        self._write_head(answer)
        half = answer.body[: len(answer.body) // 2]
        with contextlib.suppress(TimeoutError, StreamClosedError):
            async with asyncio.timeout(LINGER_SECONDS):  # a client that does not read is not waited for
                if self.request.method == "HEAD":
                    pass
                elif answer.file:
                    await self._copy_file(answer.file._replace(length=answer.file.length // 2))
                elif half:
                    await self.connection.write(half)
        self._reset()

    def _reset(self) -> None:
        self._front.pending.discard(self)
        reset_connection(getattr(self.connection, "stream"))

    def _note_left(self, answer: Answer) -> None:
        """Note as evidence a request whose client did not wait for the answer."""
        if not self._is_noted:
            level = logging.DEBUG if self._is_look() else logging.INFO
            log.log(level, "%s not answered, its client has left", self.request.title)
            self._note(answer, None, left=True)

    def _note(self, answer: Answer, status: int | None, *, left: bool = False) -> None:
        """Keep a request to the API, and what became of it, as evidence; a preflight only where it is refused."""
        self._is_noted = True
        request = self.request
        if request.world is None or (request.method == "OPTIONS" and answer.refusal is None):
            return
        if request.is_handshake and not (request.effect.numbers or left):
            return  # one that is let in is told as OPEN, and its end as CLOSE
        seconds = self._front.now() - self._since
        may_be_read = status == 200 and request.method == "GET" and request.world.evidence.recoveries.unread
        if may_be_read and answer.refusal is None and not request.effect.is_cut:
            request.world.service.saw_read(request, seconds)
        request.world.evidence.saw_request(
            method=WEBSOCKET if request.is_handshake else request.method,
            url=f"{request.path}?{request.query}" if request.query else request.path,
            headers=request.headers,
            body=request.body or b"",
            endpoint=request.endpoint,
            status=status,
            seconds=seconds,
            refusal=answer.refusal,
            faults=request.effect.numbers,
            left=left,
            answer=b"" if status is None or request.method == "HEAD" else answer.body,
            warnings=request.warnings,
            is_console=request.parameters.from_console,
        )

    async def _write_file(self, answer: Answer, body: FileBody) -> None:
        """Write an answer that is a file; the client is sent no more than it takes."""
        from tornado.iostream import StreamClosedError

        self._write_head(answer)
        with contextlib.suppress(StreamClosedError):
            if await self._copy_file(body):
                self._finish_answer()
            else:  # somebody has cut the file
                self._close()

    async def _copy_file(self, body: FileBody) -> bool:
        """Write part of a file, as fast as the client takes it; tells whether all of it was there."""
        loop, left = asyncio.get_running_loop(), body.length
        body.file.seek(body.start)
        # Read in a thread: a disk may be slow, and the loop serves everybody else.
        while left and (block := await loop.run_in_executor(None, body.file.read, min(left, FILE_BLOCK))):
            await self.connection.write(block)
            left -= len(block)
        return not left

    def _answer_early(self) -> None:
        """Answer a body that is over the limit without having read it.

        The connection closes, but only after the client had time to read why: closing at once, with
        unread data in the socket, would reset the connection and lose the answer (contract 5.7).
        """
        self._answers_early = True
        self._chunks.clear()
        self._answer(None)

    def _write(self, answer: Answer) -> None:
        if answer.status == 101:
            self._is_noted = self._is_opening = True
            self._front.open_socket(self)
            return
        self._write_head(answer, b"" if self.request.method == "HEAD" else answer.body)
        self._finish_answer()

    def _write_head(self, answer: Answer, body: bytes = b"") -> None:
        """Write the first line, the headers, and the body as far as it is here."""
        self._log(answer)
        self._note(answer, answer.status)
        if self._is_plain and not self._answers_early:
            if answer.headers or answer.file or answer.status != 200:
                lines = [f"{name}: {value}" for name, value in answer.head()]
                head = "\r\n".join([f"HTTP/1.1 {answer.status} {phrase_of(answer.status)}", *lines, "\r\n"])
            else:  # nearly all are like this
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\n"
                head += f"Content-Length: {len(answer.body)}\r\n\r\n"
            # One write for what is short; to copy what is long costs more than a second write.
            if len(body) < COPIED_BYTES:
                self.connection.write(head.encode("latin1") + body)
            else:
                self.connection.write(head.encode("latin1"))
                self.connection.write(body)
            return
        from tornado.httputil import HTTPHeaders, ResponseStartLine

        # Tornado's way: it knows when to say Connection: keep-alive to HTTP/1.0, and when to close.
        headers = HTTPHeaders()
        for name, value in answer.head():
            headers.add(name, value)
        if self._answers_early:
            headers.add("Connection", "close")
        line = ResponseStartLine("HTTP/1.1", answer.status, phrase_of(answer.status))
        self.connection.write_headers(line, headers, body)

    def _log(self, answer: Answer) -> None:
        """Tell of the request and of its answer in a line."""
        request = self.request
        level = logging.INFO
        if request.warnings and not answer.refusal:
            level = logging.WARNING
        elif self._is_look() and isinstance(answer.refusal, NotSeen | None):  # what is refused is always told
            level = logging.DEBUG
        if log.isEnabledFor(level):
            why = "".join(f" {text}" for text in (answer.refusal, *request.warnings) if text)
            refused = " refused:" if request.is_handshake else ""
            self._front.tell(level, f"{request.title}{refused} {answer.status}{why}")
        if log.isEnabledFor(logging.DEBUG):
            log.debug("  origin %s, agent %s", request.headers.get("Origin"), request.headers.get("User-Agent"))

    def _is_look(self) -> bool:
        """Tell whether it is what an open console asks by itself, every few seconds and of each change anew."""
        request = self.request
        if request.path.startswith(API_PREFIX):
            return request.method == "GET" and request.parameters.from_console
        if request.method in ("GET", "HEAD"):
            return request.path.startswith(CONTROL_PREFIX) or self._front.is_page(request.path)
        return request.path == WAIT_PATH and CONSOLE_WAITS in (request.body or b"")

    def _is_over(self) -> None:
        """Note that the request is done, but for a handshake that Tornado is still to answer."""
        if not self._is_opening:
            self._front.pending.discard(self)

    def is_open(self) -> None:
        """Take note that the handshake has become a WebSocket, or never will."""
        self._front.pending.discard(self)

    def _finish_answer(self) -> None:
        """Finish the request; the connection waits for the next one, unless this one was answered early."""
        self._front.pending.discard(self)
        self.request.world = None  # which may end before the connection does
        self._has_answered = True
        if not self._answers_early:
            self.connection.finish()
        elif self._has_body:
            self._close()
        else:
            # The client may read why for a while, although it goes on sending.
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        self._front.pending.discard(self)
        getattr(self.connection, "close")()


def phrase_of(status: int) -> str:
    """What stands behind a status in an answer's first line."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a fault can have any
        return "Unknown"


async def wait_until_over(fault: ActiveFault, seconds: float | None = None) -> None:
    """Wait until a fault is stopped, or for so many seconds at most."""
    if fault.is_stopped:
        return
    is_over = asyncio.Event()
    fault.held.add(is_over.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await is_over.wait()
    finally:
        # Who has left is not to be called, nor kept in memory.
        fault.held.discard(is_over.set)


def reset_connection(stream: IOStream) -> None:
    """Close a connection so that its peer sees a reset, not an orderly end."""
    if stream.closed():  # with the request before, where two came at once
        return
    with contextlib.suppress(OSError):  # its client has left
        # On, with zero seconds to linger: closing sends RST in place of FIN (socket(7)).
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


async def make_body(answer: Answer, later: Callable[[], Awaitable[bytes]]) -> None:
    """Make the body of an answer, or turn it into an error answer that says why there is none."""
    try:
        answer.body = await later()
    except Refusal as refusal:
        failed = refuse(refusal)
        # The head is not written yet, so it can still say another status.
        answer.status, answer.body, answer.refusal = failed.status, failed.body, refusal


def begins_with_tls(connection: HTTPConnection) -> bool:
    """Tell whether a client speaks TLS where plain http is spoken; it would wait for an answer that never comes."""
    stream = getattr(connection, "stream")
    # The type of a TLS record that holds a handshake (RFC 8446, section 5.1).
    return stream is not None and stream._read_buffer[:1] == b"\x16"


# - WebSocket ----------------------------------------------------------------------------------------

CLOSE_FRAME = 0x8  # the opcode (RFC 6455, section 5.5.1)
MAX_MESSAGE = 2**20  # what a client may send, to be ignored
PING_SECONDS = 20.0  # between two pings, and to wait for an answer to one
WRITE_BLOCK = 256 * 2**10
MOST_WAITING = 16 * 2**20
STALLED_BYTES, STALLED_SECONDS = 2**20, 10.0
SOCKETS_PER_TURN = 25


def text_frame(message: bytes) -> bytes:
    """Frame a text message as a server sends it: one frame, unmasked (RFC 6455, section 5.2)."""
    size = len(message)
    # 0x81 is the last frame of a message, and the message text; 126 and 127 announce a longer length.
    if size < 126:
        return bytes((0x81, size)) + message
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2) + message
    return b"\x81\x7f" + size.to_bytes(8) + message


def send_now(stream: IOStream, data: bytes) -> int:
    """Hand the system what it takes at once, in bytes; where that is not all, the stream sees to the rest.

    Most clients have room for a message, and then Tornado's buffer, future and callbacks are two thirds of the cost.
    """
    # What the stream still holds comes first.
    if stream.closed() or stream.writing():
        return 0
    try:
        return stream.socket.send(data)
    except OSError:  # would block, or is gone, which the stream will find out
        return 0


def keep_silent(connection: socket.socket) -> Callable[[], None]:
    """Keep a connection open until its client leaves it, whatever that says; returns a function that closes it."""
    from tornado.ioloop import IOLoop

    loop = IOLoop.current()  # which can watch a socket also where asyncio's own loop cannot, on Windows
    connection.setblocking(False)

    def close() -> None:
        if connection.fileno() >= 0:
            loop.remove_handler(connection)
            connection.close()

    def hear_out(*_: object) -> None:
        try:
            # Thrown away: it is read so that the client's end shows, and so that the client can go on writing.
            is_over = not connection.recv(COPIED_BYTES)
        except OSError as error:
            is_over = not isinstance(error, BlockingIOError)
        if is_over:
            close()

    loop.add_handler(connection, hear_out, IOLoop.READ)
    return close


class Outbox:
    """Hands waiting frames to the kernel, some sockets in each turn of the loop.

    A verb only leaves its message here, so its answer does not wait for listeners (contract 7.6), and what many
    writers leave in one turn goes out in one write. Yielding between batches lets healthy clients read
    while a burst goes out. Tornado's ``write_message`` would buffer without bound, at the cost of a task
    for each message.
    """

    def __init__(self) -> None:
        self._ready: dict[Socket, None] = {}
        self._writing: set[Socket] = set()
        self._messages: list[tuple[Sequence[Listener], bytes]] = []
        # What goes out now, and who still has to get it.
        self._block = b""
        self._left: Iterator[Listener] = iter(())
        self._is_scheduled = False

    def send(self, listeners: Sequence[Listener], message: bytes) -> None:
        """Take a message for many, in place of ``send_to_all``; they get it in the next turns of the loop."""
        self._messages.append((listeners, text_frame(message)))
        self._schedule()

    def share_out(self) -> None:
        """Queue what was left here at each socket; whoever asks or ends a socket needs it now."""
        messages, self._messages = [(self._left, self._block), *self._messages], []
        self._left = iter(())
        for listeners, frames in messages:
            for listener in listeners:
                cast("Socket", listener.channel).queue(frames)

    def add(self, ready: Socket) -> None:
        """Let a socket send in the next turn of the loop."""
        self._ready[ready] = None
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        # Not all in one turn: between two of them the loop reads requests.
        for ready in list(itertools.islice(self._ready, SOCKETS_PER_TURN)):
            del self._ready[ready]
            ready.write_waiting()
        batch = list(itertools.islice(self._left, SOCKETS_PER_TURN))
        if not batch and self._messages:
            self._take_block()
            batch = list(itertools.islice(self._left, SOCKETS_PER_TURN))
        for listener in batch:
            cast("Socket", listener.channel).write(self._block)
        if self._ready or self._messages or len(batch) == SOCKETS_PER_TURN:
            self._schedule()

    def _take_block(self) -> None:
        """Begin with the oldest message, and those behind it that are for the same listeners: they go out as one."""
        everybody, _ = self._messages[0]
        together = itertools.takewhile(lambda message: message[0] == everybody, self._messages)
        frames = [frame for _, frame in together]
        if sum(map(len, frames)) > WRITE_BLOCK:
            # Every socket gets it in pieces that it can take, and may owe all of one burst.
            self.share_out()
            return
        del self._messages[: len(frames)]
        self._block, self._left = b"".join(frames), iter(everybody)

    def watch(self, writing: Socket) -> None:
        """Look after a socket whose client has not taken everything yet."""
        # One timer for all, and only while somebody is slow.
        if not self._writing:
            asyncio.get_running_loop().call_later(1, self._patrol)
        self._writing.add(writing)

    def _patrol(self) -> None:
        self._writing = {writing for writing in self._writing if writing.is_slow()}
        if self._writing:
            asyncio.get_running_loop().call_later(1, self._patrol)


class Socket:
    """A WebSocket of an endpoint; it is a Channel. ``handler`` is Tornado's side of it.

    The handshake is accepted before the checks, since a browser cannot read why it failed (contract 7.2).
    """

    def __init__(self, exchange: Exchange, outbox: Outbox) -> None:
        request = exchange.request
        self._exchange: Exchange | None = exchange  # until it is open
        self._world = request.world  # until it ends: its world may be over long before Tornado's handler is
        self._outbox = outbox
        self._endpoint = request.endpoint
        self._level = logging.DEBUG if request.parameters.from_console else logging.INFO
        self._frames: list[bytes] = []  # mostly empty, and then a tenth of what a deque takes
        self._waiting = 0  # bytes queued or on their way
        self._on_their_way = 0
        self._since = 0.0  # the last progress, in the loop's time
        self.is_over = False  # the connection, be the end confirmed or not

    def open(self, handler: WebSocketHandler) -> None:
        """Listen, after the handshake."""
        self._handler = handler
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return  # the client has left while the handshake was answered
        exchange.is_open()
        # Or Nagle's algorithm holds a message back until the last one is confirmed.
        handler.set_nodelay(True)
        world, request = self._world, exchange.request
        assert world is not None
        # The world was stopped since the handshake was let in, and will close no socket any more.
        if world.evidence.over:
            self.close(CloseCode.GOING_AWAY, world.evidence.over)
            return
        odd = "".join(f" {warning}" for warning in request.warnings)
        try:
            world.service.listen(request, self, request.warnings, request.attempt)
        except Refusal as refusal:
            log.info("open %s refused: %d %s%s", self._endpoint, CloseCode.REFUSED, str(refusal), odd)
            self.close(CloseCode.REFUSED, refusal.reason)
        else:
            log.log(logging.WARNING if odd else self._level, "open %s%s", self._endpoint, odd)

    def closed(self, code: int | None) -> None:
        """Take note that the connection is over, with the code of the client's close frame."""
        self.is_over = True
        self._frames.clear()
        code = code or CloseCode.LOST
        if self._exchange:  # the client has left before it was open
            self._exchange.is_open()
            self._exchange = None
        elif self._world and self._world.service.leave(self._endpoint, self, code):
            log.log(self._level, "close %s: by the client, %d", self._endpoint, code)
        self._world = None

    # As a Channel

    def send(self, message: bytes) -> None:
        self.queue(text_frame(message))

    def write(self, frames: bytes) -> None:
        """Send frames, at once where nothing waits before them."""
        if self._world is None or self._frames or self._on_their_way:
            self.queue(frames)
        else:
            self._waiting += len(frames)
            self._hand_over(frames)

    def queue(self, frames: bytes) -> None:
        """Send frames when their turn comes."""
        if self._world is None:
            return
        self._frames.append(frames)
        self._waiting += len(frames)
        if self._on_their_way and self._waiting > MOST_WAITING:  # what comes in one burst is not the client's fault
            self._cut_stalled(f"{self._waiting} bytes wait for it")
        else:
            self._outbox.add(self)

    @property
    def waiting(self) -> int:
        self._outbox.share_out()
        return 0 if self.is_over else self._waiting

    def cut(self) -> None:
        self._world = None
        self._cut_stream()

    def silence(self) -> Callable[[], None]:
        """Take the connection from Tornado, which closes its copy, and keep another that nobody serves."""
        stream = self._stream()
        if stream is None or stream.closed():
            self.cut()
            return lambda: None
        kept = socket.socket(fileno=socket.dup(stream.socket.fileno()))  # not the socket's dup, which TLS does not have
        self.cut()
        return keep_silent(kept)

    def close(self, code: int, reason: str) -> None:
        """Send what is queued, then close; a silent peer is dropped after five seconds."""
        self._outbox.share_out()
        self._world = None
        if code != CloseCode.REFUSED:
            log.log(self._level, "close %s: %d %s", self._endpoint, code, shown(reason) if reason else "")
        stream = self._stream()
        if stream is None:
            return
        if not stream.closed():
            # These are frames already, and Tornado's close frame comes behind them.
            stream.write(b"".join(self._frames))
        self._frames.clear()
        self._handler.close(code, reason or None)

    # As the Outbox sees it

    def write_waiting(self) -> None:
        """Give the stream one block of frames, unless it still holds the last one."""
        if self._on_their_way or not self._frames:
            return
        count = size = 0
        while count < len(self._frames) and size < WRITE_BLOCK:
            size += len(self._frames[count])
            count += 1
        data = b"".join(self._frames[:count])
        del self._frames[:count]
        self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        stream = self._stream()
        if stream is None or stream.closed():
            return  # closed() follows
        is_plain = self._handler.request.protocol == "http"  # TLS has buffers of its own, which the stream sees to
        sent = send_now(stream, data) if is_plain else 0
        if sent == len(data):
            self._waiting -= sent
            if self._frames:
                self._outbox.add(self)
            return
        written = stream.write(data[sent:])
        self._on_their_way = len(data)
        if written.done():
            self._written(written)
        else:
            self._since = asyncio.get_running_loop().time()
            self._outbox.watch(self)
            written.add_done_callback(self._written)

    def _written(self, _: object) -> None:
        self._waiting -= self._on_their_way
        self._on_their_way = 0
        if self._frames:
            self._outbox.add(self)

    def is_slow(self) -> bool:
        """Tell whether the client still has to take something, and cut one that has stopped reading."""
        if not self._on_their_way or self.is_over:
            return False
        idle = asyncio.get_running_loop().time() - self._since
        if self._waiting > STALLED_BYTES and idle > STALLED_SECONDS:
            self._cut_stalled(f"it took nothing for {idle:.0f} s and {self._waiting} bytes wait")
            return False
        return True

    def _cut_stalled(self, why: str) -> None:
        """Drop a client that does not read: it can be told no code, but it shall not lose a message unnoticed."""
        world = self._world
        listener = world.hub.leave(self._endpoint, self) if world else None
        if world and listener:
            world.evidence.saw_end(self._endpoint, listener, CloseCode.LOST, "", STOPPED_READING, why)
            self._world = None
            log.warning("close %s: cut, its client stopped reading, %s", self._endpoint, why)
        self._cut_stream()

    def _cut_stream(self) -> None:
        """Drop the connection without a close frame."""
        self._frames.clear()
        self._waiting = 0
        stream = self._stream()
        if stream is not None:
            stream.close()

    def _stream(self) -> IOStream | None:
        return self._handler.ws_connection.stream if self._handler.ws_connection else None


def opener(outbox: Outbox) -> Callable[[Exchange], None]:
    """Make a function that opens the WebSocket of a handshake that is let in."""
    tornado = functools.cache(tornado_side)

    def open_socket(exchange: Exchange) -> None:
        from tornado.httputil import HTTPServerRequest

        application, handler = tornado()
        asked = HTTPServerRequest(connection=exchange.connection, start_line=exchange.line, headers=exchange.headers)
        application.get_handler_delegate(asked, handler, {"socket": Socket(exchange, outbox)}).execute()

    return open_socket


def tornado_side() -> tuple[Application, type[WebSocketHandler]]:
    """Make what Tornado opens WebSockets with: an application, and a handler that passes everything to a Socket.

    Its web framework is imported here, for the first handshake: no other answer needs it.
    """
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

    class Protocol(WebSocketProtocol13):
        """Tells a close frame without a code, or with no real one, from a lost connection; Tornado 6.6.1 does not."""

        def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
            handled: asyncio.Future[None] | None = super()._handle_message(opcode, data)
            if opcode == CLOSE_FRAME and self.close_code in (None, 0, CloseCode.LOST):
                self.close_code = CloseCode.NO_CODE
            return handled

    class Handler(WebSocketHandler):
        """Tornado's side of a Socket."""

        def initialize(self, socket: Socket) -> None:
            self._socket = socket

        def set_default_headers(self) -> None:
            # The service sends neither, and an answer without body has no type.
            self.clear_header("Server")
            self.clear_header("Content-Type")

        def check_origin(self, origin: str) -> bool:
            """Accept the handshake of any page; the origin is checked with the rest."""
            return True

        def get_websocket_protocol(self) -> WebSocketProtocol | None:
            protocol = super().get_websocket_protocol()
            return Protocol(self, False, protocol.params) if isinstance(protocol, WebSocketProtocol13) else protocol

        def open(self, *args: str, **kwargs: str) -> None:
            self.request.headers.clear()  # nobody asks for them again, and there may be many sockets
            self._socket.open(self)

        def on_message(self, message: str | bytes) -> None:
            """Ignore what a client sends (contract 7.6)."""

        def on_close(self) -> None:
            self._socket.closed(self.close_code)

    application = Application(
        websocket_ping_interval=PING_SECONDS,
        websocket_ping_timeout=PING_SECONDS,
        websocket_max_message_size=MAX_MESSAGE,
        cross_origin_protection=False,  # the rules of origins are ours, and stand in Access
        log_function=lambda _: None,
    )
    return application, Handler


# - Lane ---------------------------------------------------------------------------------------------

REQUEST_LINE = re.compile(rf"(GET|POST|PUT|DELETE|OPTIONS) ({API_PREFIX}[!->@-~]*)(?:\?([!-~]*))? HTTP/1\.1\r\n")
HEADER_LINE = re.compile(r"([A-Za-z][A-Za-z0-9-]*): ([!-~](?:[ -~]*[!-~])?)\r\n")
FOR_TORNADO = frozenset({"Transfer-Encoding", "Expect", "Upgrade", "Te", "Trailer"})
LANE_BYTES = 2**16  # read at once; a head that is longer is Tornado's
MOST_KNOWN, LONGEST_KNOWN = 256, 2048  # header lines that are kept as they were read


def begun_streams() -> Callable[[socket.socket, bytes], IOStream]:
    """What makes a stream of a connection of which some bytes were read already: they come first."""
    from tornado.iostream import IOStream

    class Begun(IOStream):
        def __init__(self, connection: socket.socket, received: bytes) -> None:
            super().__init__(connection)
            self._received = received

        def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
            size = min(len(buf), len(self._received))
            if not size:
                return super().read_from_fd(buf)
            buf[:size] = self._received[:size]
            self._received = self._received[size:]
            return size

    return Begun


class Plain(NamedTuple):
    """A request that the lane takes; ``head`` is where its body begins, and ``size`` where it ends."""

    request: HttpRequest
    head: int
    size: int


def read_header_lines(lines: str) -> dict[str, str] | None:
    """The fields of header lines as nearly every client writes them; None for any other, which are Tornado's."""
    fields: dict[str, str] = {}
    place = 0
    while place < len(lines):
        line = HEADER_LINE.match(lines, place)
        name = "-".join(map(str.capitalize, line[1].split("-"))) if line else ""
        if line is None or name in fields or name in FOR_TORNADO:
            return None
        fields[name] = line[2]
        place = line.end()
    length, kind = fields.get("Content-Length", "0"), fields.get("Content-Type", "")
    if len(length) > 9 or not length.isdecimal() or kind.lower().startswith(MULTIPART.partition("/")[0]):
        return None
    return fields if fields.get("Connection", "keep-alive").lower() == "keep-alive" else None


class Lane:
    """The connections of plain http that Tornado has not seen yet, and how their requests are recognised.

    It exists for speed: Tornado's reading, its futures and its stream cost more than all that the emulator does for
    a request. Past them a GET of a record takes 28 µs of the processor's time instead of 70 and a POST 62 instead of
    120 (wrk, 16 connections, 10,000 records, 2026-11-28), which is 2.5 and 1.9 times as many a second.

    It is no second parser. A request is *plain* where two regular expressions say all of it: HTTP/1.1, below the
    API's prefix, every header line of one form and no name twice, a length at most, nothing behind the body. What is
    not plain, or not answered at once and whole, makes its connection Tornado's, with every byte that was read, and
    there it stays. So there is nothing here about chunks, pipelining, or clients that read slowly.
    """

    def __init__(self, front: Front, hand_over: Callable[[IOStream, Any], None]) -> None:
        """``hand_over`` gives a stream to Tornado, with the address of its client."""
        self.front = front
        self.hand_over = hand_over
        self.stream_kind = functools.cache(begun_streams)
        self.loop = asyncio.get_running_loop()
        self.connections: set[LaneConnection] = set()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.done.set_result(None)
        self._known: dict[str, dict[str, str]] = {}

    def take(self, connection: socket.socket, address: Any) -> None:
        """Begin with a connection that was accepted. Raises OSError where its client has left."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.add(LaneConnection(self, connection, address))

    def recognise(self, data: bytes) -> Plain | None:
        """The request that the data begins with and at most is; None where it is not plain."""
        head = data.find(b"\r\n\r\n") + 4
        try:
            text = str(data[: head - 2], "ascii")
        except UnicodeDecodeError:
            return None
        line = REQUEST_LINE.match(text) if head > 3 else None
        fields = self._fields(text[line.end() :]) if line else None
        if line is None or fields is None:
            return None
        length = int(fields.get("Content-Length", 0))
        if length > self.front.max_body or len(data) > head + length:
            return None
        request = HttpRequest(method=line[1], path=line[2], query=line[3] or "", headers=fields)
        return Plain(request, head, head + length)

    def _fields(self, lines: str) -> dict[str, str] | None:
        """The fields of header lines; a client mostly sends those that it has sent before."""
        fields = self._known.get(lines)
        if fields is None:
            fields = read_header_lines(lines)
            if fields is not None and len(lines) <= LONGEST_KNOWN:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[lines] = fields
        return fields

    def close_idle(self) -> None:
        """Close connections whose client has sent nothing for too long, or no whole body."""
        longest = self.loop.time() - IDLE_SECONDS
        for connection in list(self.connections):
            if connection.stream is None and connection.since < longest:
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.close()


class LaneConnection:
    """A connection in the lane, in place of Tornado's ``HTTPConnection`` for an Exchange.

    It has a ``stream`` from when an answer takes its time, or more of it than the system takes; its next request is
    Tornado's. ``since`` is when its client was last up to something, in the loop's time.
    """

    def __init__(self, lane: Lane, connection: socket.socket, address: Any) -> None:
        self._lane = lane
        self.socket = connection
        self._address = address
        self.stream: IOStream | None = None
        self.since = lane.loop.time()
        self._written: asyncio.Future[None] = lane.done
        self._waiting: tuple[Exchange, Plain] | None = None  # for its body
        self._received: list[bytes] = []
        self._size = 0
        lane.loop.add_reader(connection.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self.socket.recv(LANE_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset
            data = b""
        if not data:
            self.close()
        elif self._waiting:
            self._go_on(*self._waiting, data)
        elif plain := self._lane.recognise(data):
            exchange = Exchange(self._lane.front, self, cast("HTTPConnection", self))
            exchange.begin(plain.request)
            self._size = 0
            self._go_on(exchange, plain, data)
        else:
            self._begin_stream(data)
            self._leave()

    def _go_on(self, exchange: Exchange, plain: Plain, data: bytes) -> None:
        """Answer a request, or wait for the rest of its body."""
        self._size += len(data)
        if self._size < plain.size:
            if not self._waiting:  # that it trickles in is no reason to wait longer
                self._waiting, self.since = (exchange, plain), self._lane.loop.time()
            self._received.append(data)
            return
        if self._waiting:
            data = b"".join([*self._received, data])
            self._waiting = None
            self._received.clear()
        if self._size > plain.size:  # the next request came with the end of this one
            exchange.on_connection_close()
            self._begin_stream(data)
            self._leave()
            return
        try:
            if plain.size > plain.head:
                exchange.data_received(data[plain.head :])
            exchange.finish()
        except Exception:  # whose client would wait for ever
            log.exception("%s failed", plain.request.title)
            exchange.on_connection_close()
            self.close()

    def _begin_stream(self, received: bytes = b"") -> IOStream:
        self._lane.loop.remove_reader(self.socket.fileno())
        self.stream = stream = self._lane.stream_kind()(self.socket, received)
        return stream

    def _leave(self, _: object = None) -> None:
        """Leave the lane, for Tornado if the client is still there."""
        self._lane.connections.discard(self)
        if self.stream and not self.stream.closed():
            self.stream.set_close_callback(None)
            self._lane.hand_over(self.stream, self._address)

    # As an Exchange sees it

    def set_close_callback(self, callback: Callable[[], object]) -> None:
        """Call back when the client leaves. Who asks for that answers later."""

        def on_close() -> None:
            self._lane.connections.discard(self)
            callback()

        stream = self.stream or self._begin_stream()
        stream.set_close_callback(on_close)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        if self.stream is None:
            try:
                sent = self.socket.send(chunk)
            except OSError:  # would block, or is gone, which the stream will find out
                sent = 0
            if sent == len(chunk):
                return self._written
            self._begin_stream()
            chunk = chunk[sent:]
        assert self.stream is not None
        from tornado.iostream import StreamClosedError

        try:
            self._written = self.stream.write(chunk)
        except StreamClosedError as error:
            self._written = self._lane.loop.create_future()
            self._written.set_exception(error)
            self._written.exception()
        return self._written

    def finish(self) -> None:
        if self.stream is None:
            self.since = self._lane.loop.time()
        else:
            self._written.add_done_callback(self._leave)

    def close(self) -> None:
        """Let go of the connection, and of a request whose body was not here yet."""
        if self.stream:
            self.stream.close()
        else:
            self._lane.loop.remove_reader(self.socket.fileno())
            self.socket.close()
        if self._waiting:
            exchange, _ = self._waiting
            self._waiting = None
            exchange.on_connection_close()
        self._lane.connections.discard(self)


def watches_sockets(listening: socket.socket) -> bool:
    """Whether the running loop can watch a socket for others, which that of Windows cannot."""
    try:
        asyncio.get_running_loop().remove_reader(listening)
    except NotImplementedError:
        return False
    return True


# - Control ------------------------------------------------------------------------------------------

LONGEST_WAIT = 600.0
LARGEST_DATA = 64_000_000  # bytes of a call that brings a data file


class Watcher:
    """Waits for what clients do, so that their tests need not sleep; what takes time takes the machine's."""

    def __init__(self, world: Emulation, in_flight: Callable[[Emulation], int]) -> None:
        self._world = world
        self._in_flight = in_flight

    async def wait(
        self,
        *,
        requests: Mapping[str, Json] | None = None,
        messages: Mapping[str, Json] | None = None,
        recoveries: Mapping[str, Json] | None = None,
        count: int = 1,
        timeout: float = 5.0,
    ) -> dict[str, Json]:
        """Wait until so many requests, messages, or clients who are back, were seen; they may be there already.

        ``requests``, ``messages`` and ``recoveries`` are arguments of those verbs; of several all together count.
        Returns what fits. Raises OptionError, and NotSeen after ``timeout`` seconds, or when the emulator stops.
        """
        reports = self._world.reports
        pairs = (reports.requests, requests), (reports.messages, messages), (reports.recoveries, recoveries)
        filters = read_filters(*pairs)
        within(1, MOST_SEEN)(count, "count")
        within(0, LONGEST_WAIT)(timeout, "timeout")
        evidence, is_seen = self._world.evidence, asyncio.Event()
        waiting = evidence.wait_for(filters, count, is_seen.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await is_seen.wait()
        finally:
            evidence.forget(waiting)
        # Not by the TimeoutError: both may happen in one turn of the loop, and then it was in time.
        if not is_seen.is_set():
            asked = [f"{kind.__name__} that fit {encode(what).decode()}" for kind, what in pairs if what is not None]
            hint = f"There were {waiting.seen} of {count} {' and '.join(asked)} within {timeout:g} s; "
            hint += "a recovery counts once its client is back; " if "recoveries" in filters else ""
            raise NotSeen(Message.NOT_SEEN, f"{hint}GET {CONTROL_PREFIX}{next(iter(filters))} shows all there were.")
        if not waiting.is_over:
            self._check_goes_on()
        seen = {kind: getattr(reports, kind)(**values) for kind, values in filters.items()}
        if "recoveries" in seen:
            seen["recoveries"] = [recovery for recovery in seen["recoveries"] if recovery["back"] is not None]
        return seen

    async def settle(self, *, timeout: float = 5.0) -> dict[str, Json]:
        """Wait until no request is under way, and the system has taken every message.

        Returns how long it took, in seconds. Raises OptionError, and NotSeen after ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        since, limit = loop.time(), within(0, LONGEST_WAIT)(timeout, "timeout")
        while any(left := self._left()):
            self._check_goes_on()
            if loop.time() - since > limit:
                requests, late, listeners = left
                hint = (
                    f"{requests} requests are under way, {late} messages are late, {listeners} listeners do not read."
                )
                raise NotSeen(Message.NOT_SEEN, hint)
            # Asked rather than told: to tell would cost every request, and only tests wait for it.
            await asyncio.sleep(0.002)
        return {"seconds": round(loop.time() - since, 3)}

    def _check_goes_on(self) -> None:
        """Raise Refusal where there is nothing to wait for any more."""
        if self._world.evidence.over:
            raise Refusal(self._world.evidence.over, "Nothing more will happen there, so waiting has ended too.")

    def _left(self) -> tuple[int, int, int]:
        """Count requests under way, messages that are to come later, and listeners that have not taken all."""
        world = self._world
        return (
            self._in_flight(world),
            world.faults.waiting,
            sum(bool(listener.channel.waiting) for listener in world.hub.listeners()),
        )


def read_filters(*pairs: tuple[Callable[..., Any], Mapping[str, Json] | None]) -> dict[str, dict[str, Any]]:
    """Read the filters that are given to some of these verbs, by the verbs' names; raises OptionError."""
    filters = {
        # All of a verb's, since one that is not given says something too: without ``from_`` the console is left out.
        verb.__name__: dict.fromkeys(inspect.signature(verb).parameters) | read_arguments(verb, dict(given))
        for verb, given in pairs
        if given is not None
    }
    if not filters:
        raise OptionError("requests, messages, recoveries: at least one of the three is waited for")
    return filters


# The verbs that the owner can call, by whose they are: method, name and verb.
CONTROL_ROUTES: Mapping[type, tuple[tuple[str, str, Callable[..., Any]], ...]] = MappingProxyType(
    {
        Worlds: (
            ("GET", "health", Worlds.health),
            ("POST", "fork", Worlds.fork),
            ("POST", "drop", Worlds.drop),
        ),
        Owner: (
            ("POST", "sign-in", Owner.sign_in),
            ("POST", "change-project", Owner.change_project),
            ("POST", "change-endpoint", Owner.change_endpoint),
            ("POST", "delete-endpoint", Owner.delete_endpoint),
            ("POST", "put-record", Owner.put_record),
            ("POST", "delete-record", Owner.delete_record),
            ("POST", "expire-tokens", Owner.expire_tokens),
            ("POST", "close-listeners", Owner.close_listeners),
            ("POST", "faults", Owner.add_fault),
            ("DELETE", "faults", Owner.clear_faults),
            ("DELETE", "requests", Owner.clear_requests),
            ("DELETE", "messages", Owner.clear_messages),
            ("DELETE", "recoveries", Owner.clear_recoveries),
        ),
        States: (
            ("POST", "advance", States.advance),
            ("POST", "set-time", States.set_time),
            ("POST", "freeze", States.freeze),
            ("POST", "unfreeze", States.unfreeze),
            ("POST", "reset", States.reset),
            ("POST", "checkpoint", States.checkpoint),
            ("POST", "restore", States.restore),
            ("POST", "undo", States.undo),
            ("POST", "load", States.load),
        ),
        Reports: (
            ("GET", "status", Reports.status),
            ("GET", "listeners", Reports.listeners),
            ("GET", "records", Reports.records),
            ("GET", "faults", Reports.faults),
            ("GET", "requests", Reports.requests),
            ("GET", "messages", Reports.messages),
            ("GET", "recoveries", Reports.recoveries),
            ("GET", "coverage", Reports.coverage),
            ("GET", "mails", Reports.mails),
            ("GET", "changes", Reports.changes),
            ("GET", "data", Reports.data),
        ),
        Watcher: (
            ("POST", "wait", Watcher.wait),
            ("POST", "settle", Watcher.settle),
        ),
    }
)
DATA_VERBS = ("load", "fork")  # which take a data file
OPEN_VERBS = ("health",)  # which whoever starts the emulator may ask before knowing host or token


class Control(Door):
    """The owner's verbs over HTTP, those that do something as POST with a JSON object of arguments.

    ``?key=`` names the world they are for. With a ``token`` every request has to show it; that is so when others
    than this machine can connect, and where the owner chose one. ``in_flight`` counts requests under way to a world.
    """

    def __init__(self, worlds: Worlds, in_flight: Callable[[Emulation], int], token: str | None) -> None:
        self._worlds = worlds
        self._in_flight = in_flight
        self._token = token
        self._verbs: dict[str, dict[str, tuple[type, Callable[..., Any]]]] = {}  # by name and method
        for kind, routes in CONTROL_ROUTES.items():
            for method, name, verb in routes:
                verbs = self._verbs.setdefault(name, {})
                verbs[method] = kind, verb
                if method == "GET":
                    # HEAD is GET without the body (RFC 9110, section 9.3.2); the Exchange leaves that out.
                    verbs["HEAD"] = kind, verb

    def find(self, kind: type[T], key: str | None) -> T:
        """Find what has the verbs of this class in the world of a key; raises OptionError where there is no such world.

        A key means nothing to the verbs of all worlds, since it may be another one that they are about.
        """
        if kind is Worlds:
            return cast("T", self._worlds)
        world = self._worlds.named(key)
        # A Watcher holds nothing between two calls, so each gets its own.
        parts = (world.owner, world.states, world.reports, Watcher(world, self._in_flight))
        return next(part for part in parts if isinstance(part, kind))

    def check_head(self, request: HttpRequest) -> None:
        self._find_verb(request)

    def most_body(self, request: HttpRequest) -> int:
        name = request.path.removeprefix(CONTROL_PREFIX)
        # Whoever may not call it is not to fill the memory.
        with contextlib.suppress(Refusal):
            # A record that a client may store, the owner may store too, with the arguments around it.
            return LARGEST_DATA if name in (*DATA_VERBS, "put-record") and self._find_verb(request) else 0
        return 0

    def perform(self, request: HttpRequest) -> Answer:
        verb = self._find_verb(request)
        return Answer(204) if verb is None else self._call(*verb, request)

    def _find_verb(self, request: HttpRequest) -> tuple[type, Callable[..., Any]] | None:
        """Find the verb that a request calls; None for a preflight. Raises a Refusal where it may not call it."""
        name = request.path.removeprefix(CONTROL_PREFIX)
        verbs = self._verbs.get(name, {})
        if name not in OPEN_VERBS or request.method not in verbs:
            self._check_gate(request)
        if request.method == "OPTIONS":
            # For an unknown verb too: a browser shows the page nothing of a failed preflight.
            return None
        if not verbs:
            like = closest(name, list(self._verbs))
            guess = f"did you mean {like}? There are" if like else "there are"
            names = ", ".join(self._verbs)
            raise Refusal(Message.NOT_FOUND, f"There is no control verb {shown(name)}; {guess}: {names}.")
        if request.method not in verbs:
            raise wrong_method(request.method, (*verbs, "OPTIONS"))
        if request.method == "POST":
            self._check_type(request)
        return verbs[request.method]

    def cors(self, origin: str) -> list[tuple[str, str]]:
        if not is_loopback_origin(origin):
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Methods", ", ".join(METHODS)),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
            ("Vary", "Origin"),
        ]

    def _check_gate(self, request: HttpRequest) -> None:
        """Ask the outer gate, without the exceptions that the API has."""
        headers = request.headers
        service = self._worlds.default.service
        service.check_page(headers.get("Origin"), headers.get("Host"), for_control=True)
        if self._token is None or request.method == "OPTIONS":
            return
        if not same_secret(bearer_token(headers.get("Authorization", "")) or "", self._token):
            hint = (
                "Control wants Authorization: Bearer and the control token, which the banner shows: that of "
                "--control-token, or beyond loopback (--host) one that was made up."
            )
            raise Refusal(Message.CONTROL_REFUSED, hint)

    def _check_type(self, request: HttpRequest) -> None:
        """Let in only a type that a page of another origin cannot send without a preflight (CSRF)."""
        kind = request.headers.get("Content-Type", "")
        if kind.partition(";")[0].strip(" \t").lower() != "application/json":
            hint = f"Content-Type is {shown(kind) if kind else 'missing'}; send application/json."
            raise Refusal(Message.CONTROL_REFUSED, hint)

    def _call(self, kind: type, verb: Callable[..., Any], request: HttpRequest) -> Answer:
        """Call the verb of the world that is meant, with the arguments in the query or in the body."""

        name = request.path.removeprefix(CONTROL_PREFIX)

        async def later() -> bytes:
            try:
                return encode(await bound(**arguments))
            except OptionError as error:
                raise wrong_argument(name, verb, error) from None

        async def with_data() -> bytes:
            try:
                # In a thread, since a large data file takes seconds, and the loop serves everybody else.
                given = await asyncio.to_thread(read_body, name, request)
                return encode(bound(**read_arguments(bound, given)))
            except OptionError as error:
                raise wrong_argument(name, verb, error) from None

        try:
            bound = functools.partial(verb, self.find(kind, parse_parameters(request.query).key))
            if name in DATA_VERBS:
                return Answer(later=with_data)
            given = read_body(name, request) if request.method == "POST" else read_query(bound, request.query)
            arguments = read_arguments(bound, given)
            if inspect.iscoroutinefunction(verb):
                return Answer(later=later)
            result = bound(**arguments)
        except OptionError as error:
            raise wrong_argument(name, verb, error) from None
        # What is a text in Python is an object here, as every answer of control.
        if isinstance(result, str):
            result = {"token": result}
        return Answer(body=result if isinstance(result, bytes) else encode(result))


def wrong_argument(name: str, verb: Callable[..., object], error: OptionError) -> Refusal:
    """Make a Refusal of an OptionError, with the arguments there are."""
    names = ", ".join(camel(argument) for argument in list(inspect.signature(verb).parameters)[1:]) or "none"
    return Refusal(Message.WRONG_PARAMETER, f"{error}. Arguments of {name}: {names}.")


def read_body(verb: str, request: HttpRequest) -> Json:
    """Read the arguments in a body; raises a Refusal, or OptionError for a data file that says something twice."""
    if request.body == b"":
        return {}
    if verb in DATA_VERBS and request.body is None:
        raise Refusal(Message.TOO_LARGE, f"{verb} takes {LARGEST_DATA} bytes at most, a data file and all.")
    packed = parse_body(request, MAX_DEPTH + 4)  # the arguments, the tables, a table and a record, around its data
    given = decode(packed)
    if verb in DATA_VERBS and isinstance(given, dict) and isinstance(given.get("data"), dict):
        text = (request.body or b"").decode()
        # What is there twice is there once when it is written anew; to find it takes longer than all the rest.
        if count_members(text) > count_members(packed.decode()):
            check_data_once(text)
    return given


def read_query(verb: Callable[..., object], query: str) -> dict[str, Json]:
    """Read the arguments of a verb that only reports from a query; raises OptionError."""
    parameters = inspect.signature(verb).parameters
    members: dict[str, Json] = {name: value for name, value in parse_qsl(query, True) if name != "key"}
    for name, value in members.items():
        if value == "":  # of a variable that was not set, mostly, and without it other things would be meant
            raise OptionError(f"{name} is empty; give it a value, or leave it out")
        if name in parameters and "int" in str(parameters[name].annotation):
            # A query has texts only, so it is the annotation that tells a number.
            if not re.fullmatch(r"\d{1,18}", str(value), re.ASCII):
                raise OptionError(f"{name} is {shown(value)}; it takes a whole number")
            members[name] = int(str(value))
    return members


def read_arguments(verb: Callable[..., object], members: Json) -> dict[str, Any]:
    """Check JSON arguments against the names and annotations of a verb's signature; raises OptionError."""
    if not isinstance(members, dict):
        raise OptionError(f"the body is {kind_of(members)}, not an object of arguments")
    parameters = inspect.signature(verb).parameters
    expected = {camel(name): parameter for name, parameter in parameters.items() if name != "self"}
    unknown = members.keys() - expected.keys()
    if unknown:
        like = closest(min(unknown), list(expected))
        guess = f" (did you mean {like}?)" if like else ""
        raise OptionError(f"unknown argument {', '.join(map(shown, sorted(unknown)[:10]))}{guess}")
    required = [name for name, parameter in expected.items() if parameter.default is parameter.empty]
    missing = [name for name in required if name not in members]
    if missing:
        raise OptionError(f"argument {', '.join(missing)} is missing")
    return {expected[name].name: check_kind(value, expected[name].annotation, name) for name, value in members.items()}


# - Options ------------------------------------------------------------------------------------------

DEFAULT_DATA = "rested-db.json"
DEFAULT_PORT = 7378  # REST on a phone


def check_text(value: object) -> str:
    """Return a text that is not empty; raise OptionError for anything else."""
    if isinstance(value, str) and value:
        return check_utf8(value, "it")
    raise OptionError("is empty" if value == "" else f"{value!r:.120} is not a text")


def check_path(value: object) -> str:
    """Return a file's path, as text."""
    path = check_text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if "\0" in path:
        raise OptionError(f"{shown(path)} is no path: no name of a file has NUL in it")
    return path


def check_given_key(value: object) -> str:
    """Return a key, or a pattern of keys."""
    # "it", for the option's name stands before the message already.
    return check_key(check_text(value), "it")


def check_token(value: object) -> str:
    """Return a token that an Authorization header can carry."""
    token = check_given_key(value)
    if re.fullmatch("[!-~]+", token):
        return token
    raise OptionError(f"{shown(token)} fits in no header; it takes letters, digits and signs of ASCII, without spaces")


def check_flag(value: object) -> bool:
    """Return true or false, from a boolean or from a text of the environment."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise OptionError(f"{shown(value)} is neither true nor false")


def check_port(value: object) -> int:
    """Return a port number; 0 stands for a free one."""
    text = str(value) if isinstance(value, str | int) else ""
    # int() alone would also take " 80", "8_0" and the digits of other scripts.
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) < 65536:
        return int(text)
    raise OptionError(f"{shown(value)} is no port: 0 to 65535, and 0 takes a free one")


def check_duration(value: object) -> float:
    """Return a duration in seconds that is longer than nothing."""
    seconds = parse_duration(value if isinstance(value, str | int | float) else str(value))
    if seconds > 0:
        return seconds
    raise OptionError(f"{shown(value)} is no time at all; write 30 (seconds), 500ms, 10s, 5m or 1h")


def check_latency(value: object) -> tuple[float, float]:
    """Return the shortest and longest wait in seconds, from one duration or two with - between."""
    if isinstance(value, int | float):
        value = (value, value)
    if isinstance(value, tuple) and len(value) == 2:
        low, high = (parse_duration(part) for part in value)
    else:
        shortest, dash, longest = str(value).partition("-")
        # Nothing before the dash is a negative duration; the message shows it whole.
        low = parse_duration(shortest or str(value))
        high = parse_duration(longest) if dash else low
    if low <= high:
        return low, high
    raise OptionError(f"{shown(value)} begins with the longer duration; write 100ms-2s")


def check_access(value: object) -> str:
    """Return WHAT:NAME, with WHAT one of read, update and delete."""
    what, colon, name = check_text(value).partition(":")
    if what not in ("read", "update", "delete") or not colon:
        raise OptionError(f"{shown(value)} is not WHAT:NAME; WHAT is read, update or delete")
    return f"{what}:{check_endpoint_name(name)}"


def check_name(value: object) -> str:
    """Return an endpoint's name."""
    return check_endpoint_name(check_text(value))


def check_allowed_origin(value: object) -> str:
    """Return an origin, or several with commas."""
    return ",".join(parse_origins([check_text(value)]))


def check_allowed_host(value: object) -> str:
    """Return the name of a host as it stands in a Host header, without port."""
    name = host_name(check_text(value))
    if name and "*" not in name:
        return name
    raise OptionError(f"{shown(value)} is no host name, and there are no patterns of them")


def check_folder(value: object) -> str:
    """Return the path of a folder that is there."""
    path = check_path(value)
    if os.path.isdir(path):
        return path
    raise OptionError(f"{shown(path)} is no folder")


def check_time_of_day(value: object) -> str:
    """Return a time in ISO 8601, as text."""
    text = check_text(value)
    parse_moment(text, "the time")
    return text


def check_fault_option(value: object) -> Fault:
    """Return a fault, from the arguments of ``add_fault`` as JSON."""
    text = check_text(value)
    try:
        members = DECODER.decode(text)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise OptionError(f'{shown(text)} is no JSON object; write {{"kind": "delay", "seconds": 2}}')
    arguments = read_arguments(Owner.add_fault, members)
    fault = check_fault(arguments.pop("kind"), arguments)
    if fault.listener is not None:
        raise OptionError("listener is the number of a socket that is open, and at the start there are none")
    if FAULT_KINDS[fault.kind].is_at_once:
        raise OptionError(f"{fault.kind} hits the sockets that are open, and at the start there are none")
    return fault


def check_template(value: object) -> str:
    """Return NAME=FILE."""
    name, _, path = check_text(value).partition("=")
    if name and path:
        return f"{name}={path}"
    raise OptionError(f"{shown(value)} is not NAME=FILE")


def option(
    default: Any, check: Callable[[Any], Any], help: str, metavar: str = "", *flags: str, group: str = ""
) -> Any:
    """Declare an option, from which come parser, help, environment variable, keyword argument and check.

    A tuple as default makes it repeatable. A ``group`` begins with it in the help, and goes on until the next one does.
    """
    metadata = {"group": group, "check": check, "help": help, "metavar": metavar, "flags": flags}
    return field(default=default, metadata=metadata)


def switch(help: str, *flags: str, group: str = "") -> Any:
    """Declare an option that is off until it is named."""
    return option(False, check_flag, help, "", *flags, group=group)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be set from outside; read at start only. Durations are in seconds."""

    data: str | None = option(
        None, check_path, f"the data file; default {DEFAULT_DATA}, made if missing", "DATA", group="data"
    )
    memory: bool = switch("keep nothing on disk; DATA, if given, is only read")
    seed: str | None = option(None, check_path, "what a new data file begins with, and what reset goes back to", "FILE")
    no_watch: bool = switch("do not look for edits of the data file while running")

    endpoint: tuple[str, ...] = option((), check_name, "make an endpoint if it is missing", "NAME", group="endpoints")
    auth: tuple[str, ...] = option((), check_name, "an authentication endpoint", "NAME")
    secure: tuple[str, ...] = option((), check_name, "an endpoint for logged-in users only", "NAME")
    others_can: tuple[str, ...] = option(
        (), check_access, "let other users read, update or delete records of a secure endpoint", "WHAT:NAME"
    )
    key: str | None = option(None, check_given_key, "the API key of the default project", "KEY")
    master_key: str | None = option(None, check_given_key, "the master key of the default project", "KEY")
    reset_template: tuple[str, ...] = option(
        (), check_template, "a template of password reset mails, an HTML file", "NAME=FILE"
    )

    allow_origin: tuple[str, ...] = option(
        (),
        check_allowed_origin,
        "an origin that the project allows; without any it allows every one",
        "ORIGIN",
        group="access",
    )
    disallow_no_origin: bool = switch("refuse requests without an origin")
    allow_any_origin: bool = switch("let pages of other sites in, as far as the project does")
    allow_host: tuple[str, ...] = option((), check_allowed_host, "answer to this host name too", "NAME")
    control_token: str | None = option(
        None, check_token, "what control and console want to be shown; beyond loopback one is made up", "TOKEN"
    )
    plain_cookie: bool = switch("set a second cookie that every browser keeps over plain http")

    token_ttl: float | None = option(
        None, check_duration, "how long access tokens live; default 1h", "DURATION", group="time"
    )
    expire_tokens_after: float | None = option(
        None, check_duration, "all tokens expire that long after the start, and again and again", "DURATION"
    )
    change_options_after: float | None = option(
        None, check_duration, "likewise the options of every endpoint change, which ends its sockets", "DURATION"
    )
    set_time: str | None = option(
        None, check_time_of_day, "the time it is at the start, as 2030-01-01T00:00:00Z", "TIME"
    )
    freeze: bool = switch("let the clock stand")

    fault: tuple[Fault, ...] = option(
        (), check_fault_option, 'a fault, as {"kind": "delay", "seconds": 2}', "JSON", group="trouble"
    )
    latency: tuple[float, float] = option(
        (0.0, 0.0),
        check_latency,
        "every answer of the API waits that long, or a random time between",
        "DURATION[-DURATION]",
    )

    port: int = option(
        DEFAULT_PORT,
        check_port,
        f"the port; default {DEFAULT_PORT}, and 0 takes a free one",
        "N",
        "-p",
        group="serving",
    )
    host: str = option(
        "localhost", check_text, "the address; default localhost, which means 127.0.0.1 and ::1", "ADDR", "-H"
    )
    tls: bool = switch("https and wss, with a certificate for localhost that is made here")
    cert: str | None = option(None, check_path, "https and wss, with this certificate (PEM)", "FILE")
    cert_key: str | None = option(None, check_path, "the key of --cert, where it is in a file of its own", "FILE")
    max_body: int = option(1_000_000, parse_size, "the largest JSON or text body; default 1MB", "SIZE")
    static: str | None = option(
        None, check_folder, "also serve this folder at /, and its index.html for an app's own paths", "DIR"
    )
    quiet: bool = switch("log only what needs attention", "-q")
    verbose: bool = switch("log also what the console asks, and each request's origin and agent", "-v")

    json: bool = switch("print one line of JSON when ready, instead of the banner", group="in CI")
    with_parent: bool = switch("end when the process ends that started it")
    fork_keys: tuple[str, ...] = option(
        (), check_given_key, "an API key of this shape, as test-*, makes a world of its own at first use", "PATTERN"
    )
    stable_ids: bool = switch(
        "ids and tokens are the same on every run, so anybody can guess them; not beyond loopback"
    )
    coverage: str | None = option(None, check_path, "write what the clients met of the service, as Markdown", "FILE")

    @classmethod
    def of(cls, **values: Any) -> Options:
        """Make options of values or their texts, None for a default; raises OptionError that names the option."""
        items = {item.name: item for item in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - items.keys())
        if unknown:
            raise OptionError(f"unknown option {unknown[0]}; there are: {', '.join(items)}")
        return cls(**{name: cls._check(items[name], value) for name, value in values.items() if value is not None})

    @staticmethod
    def _check(item: dataclasses.Field[Any], value: Any) -> Any:
        check = item.metadata["check"]
        try:
            if item.default != ():
                return check(value)
            # A text is a list of letters too, and is meant as one value.
            is_one = isinstance(value, str) or not isinstance(value, Iterable)
            return tuple(check(one) for one in ([value] if is_one else value))
        except (OptionError, TypeError) as error:  # TypeError, for a latency of what is no number
            raise OptionError(f"{item.name}: {error}") from None


# - Start --------------------------------------------------------------------------------------------

FILES_SUFFIX = ".files"
LOOPBACK = ("127.0.0.1", "::1")
CA_DAYS, CA_LEFT = 730, 30  # how long a CA is valid, and how many days of it must be left at a start


def check_regular(what: str, path: str | None) -> None:
    """Raise OptionError for what is there and is no file, as a folder or a pipe."""
    if path and os.path.exists(path) and not os.path.isfile(path):
        hint = ": a folder, as containers make it for a missing file; mount one with {}" if os.path.isdir(path) else ""
        raise OptionError(f"{what} {path} is not a regular file{hint}")


def read_apart(path: str) -> Tree:
    """Read a data file that is not to be written; raises as ``load_tree`` does."""
    journal = f"{os.path.realpath(path)}.journal"
    if os.path.isfile(journal) and os.path.getsize(journal):
        told = "%s is read without %s, which has what was stored last; an emulator with the file as DATA brings it in"
        log.warning(told, path, journal)
    return load_tree(path)


def open_store(options: Options, seed: Tree | None = None, drop_file: Callable[[str], None] = lambda _: None) -> Store:
    """Open the data that the options name; data that is new begins as ``seed``, or as the sample project.

    Raises DataFileError, OSError, or OptionError.
    """
    path = options.data or DEFAULT_DATA
    new_data = dict(seed or check_tree(sample_project()))
    check_regular("data file", path if options.data or not options.memory else None)
    if options.memory:
        return Store(JsonFile(None, read_apart(path) if options.data else new_data), drop_file)
    if os.path.islink(os.path.realpath(path)):  # which follows links to the end, unless they go round
        raise OptionError(f"data file {path} is a symbolic link that leads back to itself")
    if os.path.islink(path) and os.path.exists(f"{path}.journal"):
        raise OptionError(
            f"data file {path} is a symbolic link, and {path}.journal has what an emulator stored while it was a file;"
            f" move that to {os.path.realpath(path)}.journal, or delete it"
        )
    for what in ("lock", "journal"):  # to open a pipe would wait for its writer
        check_regular(what, f"{os.path.realpath(path)}.{what}")
    storage = JsonFile(path, new_data, watched=not options.no_watch)
    try:
        # Locked before it is read: what another emulator still writes would be missed.
        storage.lock()
        store = Store(storage, drop_file)
        if os.path.exists(path):
            storage.load(path)
        store.replay()
        store.file.save()  # a data file that is missing is written too
    except BaseException:
        storage.unlock()
        raise
    return store


def set_up(world: Emulation, options: Options) -> None:
    """Carry out the options that change projects and endpoints, by the owner's own verbs."""
    owner = world.owner
    templates = dict(world.store.projects()[0].reset_templates)
    for name, _, path in (template.partition("=") for template in options.reset_template):
        templates[name] = read_text(path)
    owner.change_project(
        key=options.key,
        master_key=options.master_key,
        allowed_origins=options.allow_origin or None,
        disallow_no_origin=options.disallow_no_origin or None,
        token_ttl=options.token_ttl,
        reset_templates=templates if options.reset_template else None,
    )
    for name in options.endpoint:
        owner.change_endpoint(name)
    for name in options.auth:
        owner.change_endpoint(name, authentication=True)
    for name in options.secure:
        owner.change_endpoint(name, secure=True)
    for what, _, name in (access.partition(":") for access in options.others_can):
        others: dict[str, Any] = {f"others_can_{what}": True}
        world.store.require_endpoint(name)  # or a typing error would make an open one
        owner.change_endpoint(name, **others)


def seed_store(tree: Tree, options: Options, world: Emulation) -> Store:
    """Return the seed as the options change it: ``reset`` goes back to that, not to the data file at this start."""
    clock = world.clock
    seed = Emulation(Store(JsonFile(None, tree)), clock, world.gate, Files(None), Evidence(clock))
    set_up(seed, options)
    key = world.store.projects()[0].key
    if seed.store.project(key) is None:  # the data have another key, which clients know, from a start before
        seed.owner.change_project(key=key)
    return seed.store


def set_timers(world: Emulation, options: Options) -> None:
    """Expire a world's tokens, and change its endpoints' options, again and again where the options want that."""

    def expire_tokens() -> None:
        # It rings in the server's tick or in advance(), neither of which a full disk is to end; and it rings again.
        try:
            world.owner.expire_tokens()
        except Refusal as error:
            log.warning("tokens do not expire: %s", error)

    def change_options() -> None:
        for endpoint in world.store.endpoints():
            world.owner.change_endpoint(endpoint.name)  # nothing is stored: every value is as before

    if options.expire_tokens_after is not None:
        world.clock.every(options.expire_tokens_after, expire_tokens)
    if options.change_options_after is not None:
        world.clock.every(options.change_options_after, change_options)


def prepare_world(world: Emulation, options: Options, like: Store | None = None, *, is_default: bool = True) -> None:
    """Set the clock, the faults and the timers of a world; ``reset`` will go back to this, with the data of ``like``.

    A world other than the default one has the endpoints of one project alone, and no faults for the others.
    """
    # Frozen before the time is set, so that no millisecond passes between.
    if options.freeze:
        world.states.freeze()
    if options.set_time:
        world.states.set_time(options.set_time)
    faults = options.fault
    if not is_default:
        faults = tuple(one for one in faults if one.endpoint is None or world.store.endpoint(one.endpoint))
    world.states.begin(like, faults)
    set_timers(world, options)


Tls: TypeAlias = "tuple[ssl.SSLContext | None, str | None, str]"


def open_tls(options: Options, scratch: contextlib.ExitStack) -> Tls:
    """Read or make the certificate that the options want; raises OptionError.

    Returns the context, None for plain http, and where a CA was made here the path of its certificate, and why it took
    the place of an earlier one, if it did.
    A CA that is made lies beside the data file and is used again, so that it has to be trusted once; where
    nothing is kept on disk, closing ``scratch`` deletes it.
    """
    if options.cert_key and not options.cert:
        raise OptionError("cert_key: there is no --cert to go with it")
    if not options.tls and not options.cert:
        return None, None, ""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Session tickets of TLS 1.3 come after the handshake, and a client that reads them in one thread while it writes
    # in another, as websockets.sync does, may lose inside OpenSSL what it writes. Nobody resumes sessions here.
    context.num_tickets = 0
    if options.cert:
        load_pair(context, "cert", options.cert, "cert_key", options.cert_key or options.cert)
        return context, None, ""
    return make_certificate(options, context, scratch)


def make_certificate(options: Options, context: ssl.SSLContext, scratch: contextlib.ExitStack) -> Tls:
    """Give the context a certificate by a CA of our own; raises OptionError."""
    try:
        import cryptography  # noqa: F401
        import trustme
    except ImportError:
        missing = "pip install 'trustme>=1.2,<2' 'cryptography>=42'"
        raise OptionError(f"tls: it takes a package that is missing: {missing}") from None
    base = os.path.realpath(options.data or DEFAULT_DATA)
    if options.memory:
        import shutil
        import tempfile

        # A TemporaryDirectory would be deleted at the end of a fork of this process too.
        folder = tempfile.mkdtemp(prefix="rested-emulator-")
        scratch.callback(shutil.rmtree, folder, ignore_errors=True)
        base = os.path.join(folder, "tls")
    addresses = [host.strip("[]") for host in gate_for(options).hosts]
    hosts = tuple(dict.fromkeys(("localhost", *LOOPBACK, *addresses)))
    today = datetime.fromtimestamp(Clock().now(), UTC)
    try:
        limits = limits_of(hosts, trustme)
    except ValueError as error:
        raise OptionError(f"tls: no certificate can be made for {', '.join(addresses)}: {error}") from None
    ca, path, replaced = open_ca(base, limits, today, trustme)
    days = timedelta(days=1)
    ca.issue_cert(*hosts, not_before=today - days, not_after=today + 365 * days).configure_cert(context)
    return context, path, replaced


def limits_of(hosts: Sequence[str], trustme: Any) -> list[Any]:
    """Return the name constraints of a CA for these hosts (RFC 5280, section 4.2.1.10).

    A name includes those below it. Raises ValueError for a host that no certificate can name.
    """
    import ipaddress

    from cryptography import x509

    # trustme knows how a certificate spells a host (IDNA, addresses); it tells only in a certificate.
    leaf = x509.load_pem_x509_certificate(trustme.CA().issue_cert(*hosts).cert_chain_pems[0].bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    limits: list[Any] = [x509.IPAddress(ipaddress.ip_network("127.0.0.0/8"))]
    for name in names:
        # A constraint on addresses is a network, where a certificate has an address.
        is_address = isinstance(name, x509.IPAddress)
        limits.append(x509.IPAddress(ipaddress.ip_network(name.value)) if is_address else name)
    return limits


def load_pair(context: ssl.SSLContext, option: str, path: str, key_option: str, key_path: str) -> None:
    """Let TLS use a certificate and its key; raises OptionError that names the option of the wrong one."""
    import ssl

    # OpenSSL does not say which of the two files it cannot read.
    for name, file in ((option, path), (key_option, key_path)):
        read_text(file, f"{name}: ")
    try:
        context.load_cert_chain(path, key_path, password=refuse_password)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise OptionError(f"{option}: {path} and {key_path} are no certificate with its key, in PEM: {why}") from None


def refuse_password() -> str:
    """Raise ValueError where OpenSSL would ask at the terminal for the password of a key."""
    raise ValueError("the key has a password; the emulator takes one without")


def open_ca(base: str, limits: Sequence[Any], today: datetime, trustme: Any) -> tuple[Any, str, str]:
    """Read the CA from files that begin with ``base``, or make it; raises OptionError.

    It is made anew where the one there is not limited to these names, lacks one, or ends soon. Returns the
    CA, the path of its certificate, and why it was made anew, empty where it was not.
    """
    import ssl

    path, key_path = f"{base}.ca.pem", f"{base}{CA_KEY_SUFFIX}"
    replaced = ""
    try:
        if os.path.exists(path):
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls", path, "tls", key_path)
            pair = [read_text(file).encode() for file in (path, key_path)]
            replaced = why_replaced(pair[0], limits, today)
            if not replaced:
                return trustme.CA.from_pem(*pair), path, ""
            log.warning("%s is a new CA, and to be trusted anew: the one before %s", path, replaced)
            os.unlink(path)
        ca = make_ca(limits, today, trustme)
        # Each file whole or not at all, and the certificate last: where it is, its key is too.
        for where, pem in ((key_path, ca.private_key_pem), (path, ca.cert_pem)):
            draft = f"{where}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            with open(draft, "xb", opener=open_private) as file:
                file.write(pem.bytes())
            os.replace(draft, where)
    except OptionError as error:
        raise OptionError(f"{error}; delete {path} to have another made, which is to be trusted anew") from None
    except OSError as error:
        raise OptionError(f"tls: {error.filename or path}: {error.strerror}") from None
    return ca, path, replaced


def why_replaced(pem: bytes, limits: Sequence[Any], today: datetime) -> str:
    """Say why a CA of an earlier start cannot be used any more; empty where it can."""
    from cryptography import x509

    ca = x509.load_pem_x509_certificate(pem)
    try:
        permitted = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        return "could speak for every host there is"
    missing = [str(name.value) for name in limits if name not in permitted]
    if missing:
        return f"could not speak for {', '.join(missing)}"
    begins, ends = ca.not_valid_before_utc, ca.not_valid_after_utc
    if begins <= today <= ends - timedelta(days=CA_LEFT):
        return ""
    return f"was valid from {begins.date()} to {ends.date()}"


def make_ca(limits: Sequence[Any], today: datetime, trustme: Any) -> Any:
    """Make a CA as trustme does, but for these names and for servers only, and not for ever.

    Whoever finds the key of a CA that a developer's browser trusts can then speak for nobody but this machine.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    # trustme's own is good for every name and until the year 3000; it cannot be told otherwise.
    plain = trustme.CA(organization_name="rested-emulator")
    key: Any = serialization.load_pem_private_key(plain.private_key_pem.bytes(), None)
    model = x509.load_pem_x509_certificate(plain.cert_pem.bytes())
    builder = x509.CertificateBuilder(model.issuer, model.subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - timedelta(days=1)).not_valid_after(today + timedelta(days=CA_DAYS))
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(x509.NameConstraints(limits, None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    return trustme.CA.from_pem(made.public_bytes(serialization.Encoding.PEM), plain.private_key_pem.bytes())


def console_folder() -> str | None:
    """Find the console's files, beside the module in a checkout or in an installation; None without them."""
    here = os.path.dirname(os.path.realpath(__file__))
    places = (os.path.join(here, "sample_data", "console"), os.path.join(here, "rested_emulator_console"))
    return next((place for place in places if os.path.isfile(os.path.join(place, "index.html"))), None)


def open_pages(options: Options, world: Emulation) -> dict[str, Door]:
    """Return who answers at the paths of the console, which is at the root unless --static takes that place."""
    folder = console_folder()
    bases = (CONTROL_PREFIX,) if options.static else (CONTROL_PREFIX, "/")
    if folder is None:
        return {base: Notice(world.gate) for base in bases}
    # File by file: at the root, every other path is still the API's, the control interface's or not found.
    console = {base: Static(folder, world.service, base, CONSOLE_HEADERS) for base in bases}
    return {f"{base}{name}": console[base] for base in bases for name in ("", *os.listdir(folder))}


def own_files(options: Options) -> tuple[str, ...]:
    """Return the paths of data and secrets, which --static does not serve; those of a start without options too."""
    paths = DEFAULT_DATA, options.data, options.seed, options.cert, options.cert_key
    return tuple(os.path.abspath(path) for path in paths if path)


def open_files(options: Options) -> Files:
    """Open the uploaded files that go with the data; those of a seed are only read. Raises OSError."""
    data = options.data or DEFAULT_DATA
    others = [f"{path}{FILES_SUFFIX}" for path in (data if options.memory else None, options.seed) if path]
    if options.memory:
        return Files(None, *others)
    folder = f"{os.path.realpath(data)}{FILES_SUFFIX}"
    if options.seed and os.path.isdir(others[-1]) and not os.path.exists(folder):
        import shutil

        shutil.copytree(others[-1], folder)  # a later start may do without the seed
    return Files(folder, *others)


def read_text(path: str, prefix: str = "") -> str:
    """Read the text in a file that an option names; raises OptionError."""
    try:
        with open(path, "rb") as file:
            return decode_text(file.read()).replace("\r\n", "\n")
    except (OSError, OptionError) as error:
        raise OptionError(f"{prefix}{path}: {error.strerror if isinstance(error, OSError) else error}") from None


def gate_for(options: Options) -> Gate:
    """Make the outer gate of an emulator that listens where the options say."""
    address = None if options.host == "localhost" else parse_address(options.host)
    hosts = frozenset((*options.allow_host, host_name(options.host) or f"[{options.host}]"))
    everywhere = address is not None and address.is_unspecified
    # Those two say where to listen; as the host of a request they are as foreign as any other.
    return Gate(hosts - {"0.0.0.0", "[::]"}, any_address=everywhere, any_origin=options.allow_any_origin)


def control_token_for(options: Options) -> str | None:
    """Return what control wants to be shown: beyond loopback always something. Raises OptionError."""
    if options.host == "localhost" or is_loopback(options.host):
        return options.control_token
    if options.stable_ids:
        raise OptionError(f"stable_ids: tokens can be guessed then, and host {options.host} lets others in; drop one")
    return options.control_token or new_id()


# - Server -------------------------------------------------------------------------------------------

STOP_SECONDS = 2.0  # for requests that are under way; half of it for sockets that have to confirm their end
NO_LANE = "RESTED_EMULATOR_NO_LANE"  # in the environment: everything is Tornado's, as tests compare it
ACCEPTED_PER_TURN = 128  # connections
FEWEST_FILES = 128  # that may be open: 16 sockets, as many connections, and what belongs to the process


def is_no_tls(error: object) -> bool:
    """Tell whether a connection ended because its client spoke plain http, or anything else that is no TLS."""
    return getattr(error, "reason", None) in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER")


def tornado_server(front: Front, context: ssl.SSLContext | None, is_beyond: Callable[[int], bool]) -> HTTPServer:
    """Make Tornado's server for a Front; ``is_beyond`` tells whether a connection of a descriptor is one too many.

    It is imported here, for the first connection that is not plain: that costs a third of the start.
    """
    from tornado.httpserver import HTTPServer

    class Tornado(HTTPServer):
        def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
            return cast("HTTPMessageDelegate", front.start_request(server_conn, request_conn))

        def handle_stream(self, stream: IOStream, address: Any) -> None:
            if is_beyond(stream.socket.fileno()):
                # Without reading the request: that would keep a descriptor, which is what is short.
                stream.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                stream.close()
                return
            stream.set_nodelay(True)
            # Tornado would turn it off and on again for each request, two system calls that change nothing.
            stream.set_nodelay = lambda value: None  # type: ignore[method-assign]  # noqa: ARG005
            super().handle_stream(stream, address)

        def on_close(self, server_conn: object) -> None:
            super().on_close(server_conn)
            if is_no_tls(getattr(server_conn, "stream").error):
                log.warning("no TLS was spoken to a port of TLS alone; use https:// and wss://, or start without --tls")
            front.on_close(server_conn)

    server = Tornado(
        lambda _: None,  # nobody calls it: start_request is ours
        ssl_options=context,
        max_body_size=math.inf,  # ours is lower, and not a bare 400
        max_header_size=HEAD_BYTES,
    )
    # A timer for each request is dear; the Front closes idle connections, and those that stop in a body, by itself.
    server.conn_params.header_timeout = None
    return server


class Intake:
    """Accepts connections, as many as may be: for the lane where there is one, else for Tornado's server.

    Accepting beyond what the system allows fails for ever. It gives out the lowest descriptor that is free, so a high
    one tells how many are open. On Windows it does not, and there the requests under way and idle connections have a
    limit beside that of the sockets.
    """

    def __init__(self, front: Front, context: ssl.SSLContext | None, most: int, listening: Sequence[socket.socket]):
        """Begin, in the running loop."""
        self.most = most
        self._front, self._context, self._listening = front, context, listening
        self._http: HTTPServer | None = None  # Tornado's, once it is needed
        self._watched: Mapping[int, tuple[Any, object]] = {}  # what Tornado waits for, by descriptor
        self._loop = asyncio.get_running_loop()
        is_watching = watches_sockets(listening[0])
        # The lane reads sockets itself: not with TLS, and not on Windows, whose loop cannot watch one for others.
        self.lane: Lane | None = None
        if is_watching and context is None and not os.environ.get(NO_LANE):
            self.lane = Lane(front, lambda stream, address: self._tornado().handle_stream(stream, address))
        watch = self._watch if is_watching else self._watch_by_tornado
        self._unwatch = [watch(one) for one in listening]

    def _watch(self, listening: socket.socket) -> Callable[[], object]:
        self._loop.add_reader(listening, self._accept, listening)
        return functools.partial(self._loop.remove_reader, listening)

    def _watch_by_tornado(self, listening: socket.socket) -> Callable[[], object]:
        from tornado.netutil import add_accept_handler

        return add_accept_handler(listening, self._take)

    def _tornado(self) -> HTTPServer:
        if self._http is None:
            self._http = tornado_server(self._front, self._context, self._is_beyond)
            from tornado.ioloop import IOLoop

            # Tornado lists what its loop waits for, asyncio does not; a fork has to close all of it.
            self._watched = cast("BaseAsyncIOLoop", IOLoop.current()).handlers
        return self._http

    def _is_beyond(self, descriptor: int) -> bool:
        in_lane = self.lane.connections if self.lane else ()
        in_tornado = getattr(self._http, "_connections", ())
        return (descriptor if resource else len(in_tornado) + len(in_lane)) >= self.most

    def _accept(self, listening: socket.socket) -> None:
        """Take some of the connections that wait: others are served in between, as Tornado does it."""
        for _ in range(ACCEPTED_PER_TURN):
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # it left while it waited, as FreeBSD says it
                continue
            self._take(connection, address)

    def _take(self, connection: socket.socket, address: Any) -> None:
        try:
            # Fails where the client has left; wrapping its socket in TLS would fail too, and leak it.
            connection.getpeername()
            if self.lane and not self._is_beyond(connection.fileno()):
                self.lane.take(connection, address)
            else:
                self._tornado()._handle_connection(connection, address)
        except OSError as error:  # the client has left, which Tornado 6.6.1 takes for a bug
            log.info("a connection ended before it began: %s", error)
            connection.close()

    def close_idle(self) -> None:
        """Close connections whose client has sent nothing for too long."""
        self._front.close_idle()
        if self.lane:
            self.lane.close_idle()

    def stop(self) -> None:
        """Accept no more."""
        for unwatch in self._unwatch:
            unwatch()
        for one in self._listening:
            one.close()

    async def close_connections(self) -> None:
        """Close what is still connected."""
        if self.lane:
            # Lane first: a connection that leaves it goes to Tornado.
            self.lane.close()
        if self._http:
            await self._http.close_all_connections()

    def leave_to_parent(self) -> None:
        """Close the copies that a fork of the process has of connections, and send nothing."""
        # The loop is left alone: parent and fork share its epoll, and what leaves it is lost to the parent too.
        for file, _ in list(self._watched.values()):
            with contextlib.suppress(OSError):
                os.close(file) if isinstance(file, int) else file.close()
        for connection in self.lane.connections if self.lane else ():
            connection.socket.close()


class Server:
    """One emulator: its data, its sockets and its timers, in the loop that calls ``start``.

    ``read`` is the machine's time, and ``tell`` writes the log's line of a request.
    """

    def __init__(self, options: Options, read: Callable[[], float] | None = None, tell: Tell = log.log) -> None:
        """Read the data and carry out the options. Raises DataFileError, OSError, or OptionError."""
        self.options, self._tell = options, tell
        self.control_token = control_token_for(options)
        self._most = most_sockets()
        if options.coverage:
            # Opened only so that a file that cannot be written is known before the suite has run.
            with open(options.coverage, "a"):
                pass
        gate = gate_for(options)
        self._scratch = contextlib.ExitStack()
        self._timer: asyncio.TimerHandle | None = None
        self._is_serving = False
        self._outbox = Outbox()
        clock = Clock(read, self._wake)
        files = open_files(options)
        check_regular("seed", options.seed)
        seed_tree = read_apart(options.seed) if options.seed else None
        store = open_store(options, seed_tree, files.drop)
        try:
            files.finish_drafts(store.has_file)
            evidence, send, stable = Evidence(clock), self._outbox.send, options.stable_ids
            self.world = Emulation(store, clock, gate, files, evidence, send, self._take_key, stable_ids=stable)
            prepare = functools.partial(prepare_world, options=options, is_default=False)
            self.worlds = Worlds(self.world, options.fork_keys, prepare)
            self._tls, self._ca, self.ca_replaced = open_tls(options, self._scratch)
            set_up(self.world, options)
            prepare_world(self.world, options, seed_store(seed_tree, options, self.world) if seed_tree else None)
            store.file.save()
            self.world.states.tell_who_cannot_log_in()
        except BaseException:  # Ctrl-C as well: the lock on the data file would stay
            self._scratch.close()
            store.file.unlock()
            raise
        self.port = 0
        self._sockets: list[socket.socket] = []
        self._cannot_save = False
        self._saving: asyncio.Future[None] | None = None

    # Worlds are made around the default one, which asks them later.

    def _take_key(self, key: str) -> bool:
        return self.worlds.take(key)

    def _wake(self, clock: Clock) -> None:
        if self._is_serving:
            self.worlds.wake(clock)
            self._set_timer()

    def bind(self) -> None:
        """Take the port, on both families where the host is localhost. Raises OSError."""
        # A port that the system gives out as free on one family may be taken on the other; then another one is free.
        tries = 1 if self.options.port else 20
        while not self._sockets:
            tries -= 1
            try:
                self._bind_families()
            except OSError as error:
                self._close_sockets()
                if not tries or error.errno != errno.EADDRINUSE:
                    self.close()
                    raise

    def _bind_families(self) -> None:
        addresses = LOOPBACK if self.options.host == "localhost" else (self.options.host,)
        for address in addresses:
            try:
                self._bind_address(address)
            except OSError as error:
                # A machine may lack IPv4 or IPv6, but not both; a port that is taken is an error on either.
                is_port_refused = error.errno in (errno.EADDRINUSE, errno.EACCES)
                has_none = address == addresses[-1] and not self._sockets
                if address not in LOOPBACK or is_port_refused or has_none:
                    raise

    def _bind_address(self, address: str) -> None:
        # A port the system chose for the first address is the one for the next.
        port = self.port or self.options.port
        try:
            # As bytes where it can be: for a text Python imports its codec of international names.
            name = address.encode() if address.isascii() else address
            places = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except ValueError as error:  # the codec "idna" raises it for what cannot be the name of a host
            raise OSError(errno.EADDRNOTAVAIL, str(error)) from None
        for family, _, _, _, where in places:
            # The default backlog, 128, is too short for a suite that opens a thousand sockets at once.
            listening = socket.create_server(where, family=family, backlog=1024)
            listening.setblocking(False)
            self._sockets.append(listening)
            self.port = port = listening.getsockname()[1]

    def close(self) -> None:
        """Close port and data file of a server that was never started; ``stop`` is for one that was."""
        self._close_sockets()
        self._scratch.close()
        self.world.close()

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()
        self.port = 0

    def start(self) -> None:
        """Serve, in the running loop."""
        options = self.options
        api = self._api = Api(
            self.worlds,
            is_secure=self._tls is not None,
            plain_cookie=options.plain_cookie,
            latency=options.latency,
            max_body=options.max_body,
            most_sockets=self._most,
        )
        self.control = Control(self.worlds, lambda world: self._front.in_flight(world), self.control_token)
        static = Static(options.static, self.world.service, own=own_files(options)) if options.static else api
        doors: list[tuple[str, Door]] = [(CONTROL_PREFIX, self.control), (API_PREFIX, api), ("", static)]
        pages = open_pages(options, self.world)
        self._front = Front(doors, opener(self._outbox), options.max_body, pages, self._tell)
        self._intake = Intake(self._front, self._tls, self._most + 64, self._sockets)
        self._is_serving = True
        for world in self.worlds:
            self.worlds.wake(world.clock)
        self._set_timer()

    def _set_timer(self) -> None:
        """Call ``_tick`` when something is due, and twice a second: a clock may jump, a person edit the data file."""
        if self._timer:
            self._timer.cancel()
        wait = min(0.5, self.worlds.until_next())
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _tick(self) -> None:
        try:
            self._intake.close_idle()
            self.worlds.tick()
            # One at a time: there is one draft of the data file.
            if self._saving is None or self._saving.done():
                self._saving = asyncio.ensure_future(self._save())
        finally:
            # Whatever has failed: without a timer nothing would be due ever again.
            self._set_timer()

    async def _save(self) -> None:
        """Write the data file if it is time, in a thread, so that no request waits for the disk."""
        draft = self.world.store.file.begin_save()
        if draft is None:
            return
        try:
            self.world.store.file.end_save(draft, await asyncio.to_thread(draft.write))
        except OSError as error:
            # Told once: the next tick tries again, twice a second.
            if not self._cannot_save:
                log.warning("the data file cannot be written, the journal has what is new; trying again: %s", error)
            self._cannot_save = True
        else:
            self._cannot_save = False

    async def stop(self) -> None:
        """Stop serving, losing nothing. In this order:

        1. no more connections are accepted, no socket opens, and no timer rings;
        2. JSONata expressions are given up, as is what waits or hangs; other requests end, within two seconds;
        3. every socket is closed with 1001, and its client has a second to confirm;
        4. what is still connected is dropped;
        5. an edit of the data file is taken over, and the data file is written;
        6. the coverage is written, if it is wanted.

        Raises OSError where a file cannot be written; the journal beside the data file has what is new.
        """
        self._intake.stop()
        self._is_serving = False  # before the rest, some of which would set the timer again
        worlds = list(self.worlds)
        for world in worlds:
            world.stop_waiting(Message.STOPPING)
        if self._timer:
            self._timer.cancel()
        await self._api.evaluator.stop()
        await self._wait_for(lambda: not self._front.pending, STOP_SECONDS)
        # Listed before they close: a listener that is closed is in no hub any more.
        channels = [listener.channel for world in worlds for listener in world.hub.listeners()]
        for world in worlds:
            world.stop(Message.STOPPING)
        sockets = [channel for channel in channels if isinstance(channel, Socket)]
        await self._wait_for(lambda: all(one.is_over for one in sockets), STOP_SECONDS / 2)
        await self._intake.close_connections()
        if self._saving:
            await self._saving  # or its thread and the closing of the store would both write the draft
        try:
            self.world.tick()
        finally:
            self._scratch.close()
            try:
                # The default world last: it alone has a disk that can fail, and the others are to be closed by then.
                for world in worlds[::-1]:
                    world.close()
            finally:
                self._write_coverage()

    def leave_to_parent(self) -> None:
        """Close the copies that a fork of the process has of sockets and files, and send nothing.

        Were they open, the port would stay taken, clients would not see an end, and the data file would stay locked.
        """
        intake: Intake | None = getattr(self, "_intake", None)  # before ``start`` there is none
        if intake:
            intake.leave_to_parent()
        for listening in self._sockets:
            listening.close()
        self.world.store.file.leave_to_parent()

    async def _wait_for(self, done: Callable[[], bool], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not done() and loop.time() < deadline:
            await asyncio.sleep(0.005)

    def _write_coverage(self) -> None:
        path = self.options.coverage
        if not path:
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.world.evidence.coverage.markdown())  # which all worlds have in common
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None  # of a full disk it does not name the file

    def facts(self, world: Emulation | None = None) -> dict[str, Json]:
        """Return what a client of a world needs to know, as the ready line says it; null for what there is not."""
        project = (world or self.world).store.projects()[0]
        name = self.options.host
        if name == LOOPBACK[0] or self.world.gate.any_address:
            name = "localhost"  # cookies are kept for one host name, so everyone gets the same
        host = f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"
        s = "s" if self._tls else ""
        return {
            "url": f"http{s}://{host}{API_PREFIX}".removesuffix("/"),
            "wsUrl": f"ws{s}://{host}{API_PREFIX}".removesuffix("/"),
            "host": host,
            "port": self.port,
            "key": project.key,
            "masterKey": project.master_key,
            "controlUrl": f"http{s}://{host}{CONTROL_PREFIX}".removesuffix("/"),
            "controlToken": self.control_token,
            "pid": os.getpid(),
            "data": None if self.options.memory else os.path.abspath(self.options.data or DEFAULT_DATA),
            "ca": self._ca,
        }


def most_sockets() -> int:
    """Return how many WebSockets may be open: all files that may be, less those for everything else.

    Lifts the process's limit of open files as far as that is allowed. Raises OptionError where it is too low.
    """
    if resource is None:
        # On Windows Tornado waits with select, which takes 512 sockets, and as many connections come beside.
        return 192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    most = 0 if soft == resource.RLIM_INFINITY else soft
    # macOS says unlimited, and refuses more than it has; so what it refuses is tried lower.
    for limit in (allowed, 32768, 10240, 4096, 1024):
        if most < limit <= allowed:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                most = limit
    if most < FEWEST_FILES:
        raise OptionError(f"this process may open {most} files, and {FEWEST_FILES} are needed: ulimit -n 1024")
    return max(16, min(most, 65536) - 128)


# - Python -------------------------------------------------------------------------------------------


class Verbs:
    """The owner's verbs as methods of an emulator or of a world in it; their arguments are those in section World."""

    key: str | None = None  # that of the world the verbs are for; None for the default one

    def call(self, verb: Callable[[Server], T]) -> T:
        """Run something in the emulator's thread, and return what it returns or raise what it raises."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Json]:
        """What a client needs to know, as in the ready line: url, wsUrl, host, port, key, masterKey, controlUrl."""
        return self.call(lambda server: server.facts(server.worlds.named(self.key)))

    def url(self, endpoint: str) -> str:
        """Return the URL of an endpoint, with the key."""
        return f"{self.facts['url']}/{quote(endpoint)}?key={self._key_of(endpoint)}"

    def ws_url(self, endpoint: str) -> str:
        """Return the WebSocket's URL of an endpoint, with the key."""
        return f"{self.facts['wsUrl']}/{quote(endpoint)}?key={self._key_of(endpoint)}"

    def _key_of(self, endpoint: str) -> str:
        def key(server: Server) -> str:
            store = server.worlds.named(self.key).store
            options = store.endpoint(endpoint)
            return options.project if options else store.projects()[0].key

        return quote(self.call(key), safe="")

    @staticmethod
    def _remote(kind: type[S], verb: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Verbs, P], T]:
        """Make a method with the arguments of a verb, which carries it out in the emulator's thread."""
        signature = inspect.signature(verb)

        @functools.wraps(verb)
        def call(verbs: Verbs, /, *args: P.args, **options: P.kwargs) -> T:
            # Bound to the signature for their names, which the message about a wrong one needs.
            for name, value in signature.bind(verbs, *args, **options).arguments.items():
                if value is not verbs:
                    check_kind(value, signature.parameters[name].annotation, name)
            return verbs.call(lambda server: verb(server.control.find(kind, verbs.key), *args, **options))

        return call

    @staticmethod
    def _awaited(
        verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]],
    ) -> Callable[Concatenate[Verbs, P], T]:
        """Make a method that waits for a coroutine of the emulator's; raises TimeoutError where that takes too long."""

        @functools.wraps(verb)
        def call(verbs: Verbs, /, *args: P.args, **options: P.kwargs) -> T:
            coroutine = verb(verbs, *args, **options)
            # No variable for the future: it holds the exception, whose traceback holds this frame: a cycle.
            try:
                return verbs.call(
                    lambda _: asyncio.run_coroutine_threadsafe(coroutine, asyncio.get_running_loop())
                ).result()
            except NotSeen as refusal:
                raise TimeoutError(refusal.hint) from None

        return call

    wait = _awaited(_remote(Watcher, Watcher.wait))
    settle = _awaited(_remote(Watcher, Watcher.settle))
    sign_in = _remote(Owner, Owner.sign_in)
    change_project = _remote(Owner, Owner.change_project)
    change_endpoint = _remote(Owner, Owner.change_endpoint)
    delete_endpoint = _remote(Owner, Owner.delete_endpoint)
    put_record = _remote(Owner, Owner.put_record)
    delete_record = _remote(Owner, Owner.delete_record)
    expire_tokens = _remote(Owner, Owner.expire_tokens)
    close_listeners = _remote(Owner, Owner.close_listeners)
    advance = _remote(States, States.advance)
    set_time = _remote(States, States.set_time)
    freeze = _remote(States, States.freeze)
    unfreeze = _remote(States, States.unfreeze)
    reset = _remote(States, States.reset)
    checkpoint = _remote(States, States.checkpoint)
    restore = _remote(States, States.restore)
    undo = _remote(States, States.undo)
    load = _remote(States, States.load)
    add_fault = _remote(Owner, Owner.add_fault)
    clear_faults = _remote(Owner, Owner.clear_faults)
    clear_requests = _remote(Owner, Owner.clear_requests)
    clear_messages = _remote(Owner, Owner.clear_messages)
    clear_recoveries = _remote(Owner, Owner.clear_recoveries)
    status = _remote(Reports, Reports.status)
    listeners = _remote(Reports, Reports.listeners)
    records = _remote(Reports, Reports.records)
    faults = _remote(Reports, Reports.faults)
    requests = _remote(Reports, Reports.requests)
    messages = _remote(Reports, Reports.messages)
    recoveries = _remote(Reports, Reports.recoveries)
    coverage = _remote(Reports, Reports.coverage)
    mails = _remote(Reports, Reports.mails)
    changes = _remote(Reports, Reports.changes)
    _data = _remote(Reports, Reports.data)

    def data(self) -> dict[str, Json]:
        """Return everything as a data file, as ``Reports.data`` does."""
        return cast("dict[str, Json]", decode(self._data()))


class World(Verbs):
    """A world of its own inside an emulator (see Worlds), which ends with the ``with`` statement it is used in."""

    def __init__(self, emulator: RestedEmulator, key: str) -> None:
        self.key: str = key
        self._emulator = emulator

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._emulator.is_forked:
            with contextlib.suppress(OptionError):  # there is no such world any more
                self._emulator.drop(self.key)

    def call(self, verb: Callable[[Server], T]) -> T:
        return self._emulator.call(verb)


class RestedEmulator(Verbs):
    """An emulator inside this process, in a thread of its own: the fixture for tests in Python.

    ``with RestedEmulator(secure=["notes/private"]) as emulator:`` keeps its data in memory and takes a
    free port, unless told otherwise; the keyword arguments are the fields of Options. Raises OptionError
    for a wrong one, OSError for a port that is taken, DataFileError for a data file that cannot be read.
    """

    def __init__(self, **options: Any) -> None:
        self.options = Options.of(**{"memory": True, "port": 0} | options)
        self._lock = threading.Lock()
        self._server: Server | None = None  # while verbs can reach it
        self._held: Server | None = None  # while it has sockets and files
        self._thread: threading.Thread | None = None
        self._parent: int | None = None
        if hasattr(os, "register_at_fork"):
            # What is registered stays for ever; it is not to keep the emulator in memory as long.
            weak_method = weakref.WeakMethod(self._leave_to_parent)

            def leave_to_parent() -> None:
                method = weak_method()
                if method is not None:
                    method()

            os.register_at_fork(after_in_child=leave_to_parent)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_forked:
            self.stop()

    @property
    def is_forked(self) -> bool:
        """Whether the emulator runs in the process that this one was forked from."""
        return self._parent is not None

    def _leave_to_parent(self) -> None:
        """Note that this process is a fork of the one in which the emulator runs."""
        # A fork has one thread alone: the emulator's is not in it, nor one that held the lock and would give it back.
        self._server, self._lock = None, threading.Lock()
        if self._held is not None and not self.is_forked:
            # By the parent's id the error says where the emulator runs.
            self._parent = os.getppid()
            self._held.leave_to_parent()

    def _check_reachable(self) -> None:
        """Raise RestedError where waiting for the emulator's thread would never end."""
        if self.is_forked:
            raise RestedError(
                f"this emulator runs in process {self._parent}, which this one was forked from; "
                "ask it over HTTP, at its URL and control interface, or start() one here"
            )
        if threading.current_thread() is self._thread:
            raise RestedError(
                "this is the emulator's own thread, which cannot wait for itself; "
                "inside call() use the server that is handed over"
            )

    def start(self) -> None:
        """Start serving; returns when the emulator is ready."""
        with self._lock:
            if self._server is not None:
                raise RestedError("this emulator runs already; stop() it first, or make another one")
            server = Server(self.options)
            server.bind()
            self._held, self._parent = server, None
            ready: Future[None] = Future()
            serving = self._serve(server, ready)
            # A daemon, so that a test run that forgets to stop it can end.
            self._thread = threading.Thread(target=asyncio.run, args=[serving], name="rested-emulator", daemon=True)
            self._thread.start()
            ready.result()
            self._server = server

    def stop(self) -> None:
        """Stop serving: sockets close with 1001, data is saved. Does nothing when it does not run.

        Waits until all is done, a second for clients that do not confirm; in a coroutine call it with
        ``asyncio.to_thread``. Raises OSError where the data cannot be saved, and RestedError in a fork of the process.
        """
        self._check_reachable()
        with self._lock:
            if self._server is None:
                return
            server, self._server = self._server, None
            thread, loop, is_stopped = self._thread, self._loop, self._is_stopped
            stopping = asyncio.run_coroutine_threadsafe(server.stop(), loop)
        # By itself, so that it stops in order also where Ctrl-C ends the waiting for it.
        stopping.add_done_callback(lambda _: loop.call_soon_threadsafe(is_stopped.set))
        assert thread
        # Outside of the lock, so that other threads are told that it stops instead of waiting.
        thread.join()
        if self._held is server:
            self._held = None
        stopping.result()

    async def _serve(self, server: Server, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_stopped = asyncio.Event()
        try:
            server.start()
        except Exception as error:
            server.close()
            ready.set_exception(error)
        else:
            ready.set_result(None)
            await self._is_stopped.wait()

    def call(self, verb: Callable[[Server], T]) -> T:
        """Run something in the emulator's thread, and return what it returns or raise what it raises."""
        outcome: Future[T] = Future()

        def run(server: Server, outcome: Future[T]) -> None:
            try:
                outcome.set_result(verb(server))
            except BaseException as error:
                outcome.set_exception(error)
            finally:
                # It holds the exception, whose traceback holds this frame and the one below: a cycle, were it kept.
                del outcome

        self._check_reachable()
        # Under the lock, so that nothing is handed to a loop that has been told to stop: it would wait for ever.
        with self._lock:
            if self._server is None:
                raise RestedError("this emulator does not run; use it in a with statement, or call start()")
            self._loop.call_soon_threadsafe(run, self._server, outcome)
        try:
            return outcome.result()
        finally:
            del outcome

    def world(self, key: str, data: Mapping[str, Json] | None = None) -> World:
        """Make a world of this key, and return its verbs: ``with emulator.world("test-1") as world:``.

        ``data`` is what it begins with, as for ``fork``.
        """
        self.fork(key, data)
        return World(self, key)

    fork = Verbs._remote(Worlds, Worlds.fork)
    drop = Verbs._remote(Worlds, Worlds.drop)


# - Command line -------------------------------------------------------------------------------------

DESCRIPTION = """\
A local stand-in for RESTED_DEV: JSON endpoints over HTTP, and every change
pushed over a WebSocket.
"""
EPILOG = """\
NAME is an endpoint. Durations: 30 (seconds), 500ms, 10s, 5m, 1h. A repeatable
option may be given several times. Each option has an environment twin, as
RESTED_EMULATOR_TOKEN_TTL for --token-ttl (several values: with commas); the
command line beats the environment.

After -- comes a command that runs once the emulator is ready, with RESTED_URL,
RESTED_WS_URL, RESTED_HOST, RESTED_PORT, RESTED_KEY, RESTED_MASTER_KEY,
RESTED_CONTROL_URL, RESTED_CONTROL_TOKEN, RESTED_PID, RESTED_DATA and RESTED_CA
set as far as there are such; the emulator ends with it, and with its exit
code. Where a start is repeated, rested-emulator or python -m rested_emulator
takes half the time of python rested_emulator.py, which Python compiles anew
each time.

Examples:
  an app of your own, with users, its pages served too:
    rested-emulator --auth my-app/users --secure my-app/notes --static dist
  tokens that expire after 30 seconds, and answers that take their time:
    rested-emulator --token-ttl 30s --latency 200ms-2s
  a test run that begins with the same data each time:
    rested-emulator --memory --seed seed.json --port 0 -- npx playwright test
"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser from the fields of Options. Values stay texts here; Options checks them."""
    import argparse

    class Parser(argparse.ArgumentParser):
        # The message shows what was typed, control characters included.
        def error(self, message: str) -> NoReturn:
            super().error(printable(message))

    parser = Parser(
        prog="rested-emulator",
        usage="%(prog)s [DATA] [options] [-- COMMAND ...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    for item in dataclasses.fields(Options):
        title, help_text, metavar, flags = (item.metadata[name] for name in ("group", "help", "metavar", "flags"))
        if title:
            group = parser.add_argument_group(title)
        names = (*flags, flag_of(item.name))
        if item.name == "data":
            group.add_argument("data", nargs="?", metavar=metavar, help=help_text)
        elif item.default is False:
            # None where it is not given, so that the environment can say it.
            group.add_argument(*names, action="store_true", default=None, help=help_text)
        elif item.default == ():
            group.add_argument(*names, action="append", metavar=metavar, help=f"{help_text}; repeatable")
        else:
            group.add_argument(*names, metavar=metavar, help=help_text)
    about = parser.add_argument_group("about")
    about.add_argument("-h", "--help", action="help", help="show this help and exit")
    about.add_argument(
        "--version", action="version", version=f"rested-emulator {__version__}", help="show the version and exit"
    )
    return parser


def flag_of(name: str) -> str:
    """Spell an option as on the command line."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """Spell an option as in the environment."""
    return f"RESTED_EMULATOR_{name.upper()}"


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that the environment sets; empty variables set nothing."""
    texts = {item: environment.get(variable_of(item.name)) for item in dataclasses.fields(Options)}
    return {item.name: split_values(text) if item.default == () else text for item, text in texts.items() if text}


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that are nearly an option's, and which one; others may be somebody else's."""
    names = {flag_of(item.name)[2:]: variable_of(item.name) for item in dataclasses.fields(Options)}
    strange = [name for name in environment if name.startswith(variable_of("")) and name not in names.values()]
    likes = {name: closest(name.removeprefix(variable_of("")), list(names)) for name in strange}
    return {name: names[like] for name, like in likes.items() if like}


def split_values(text: str) -> list[str]:
    """Split the values of a repeatable option in the environment: texts or JSON objects, with commas between."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return [json.dumps(value) for value in json.loads(f"[{text.strip().removesuffix(',')}]")]
    return [part.strip() for part in text.split(",") if part.strip()]


def read_command_line(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Options, list[str]]:
    """Return the options and the command after ``--``; the command line beats the environment.

    Ends the process with 2 and a line that names the option where one is wrong.
    """
    split = argv.index("--") if "--" in argv else len(argv)
    words = argv[:split]
    arguments = read_words(words) if words else {}  # argparse is a tenth of a start
    command = list(argv[split + 1 :])
    if split < len(argv) and not command:
        build_parser().error("after -- comes a command")
    # Not as the parser's defaults: a wrong variable is to be named as one.
    variables = read_environment(environment)
    # One by one, a variable too that an argument beats, so that the message can say where the wrong one stands.
    places = [(f"argument {'DATA' if name == 'data' else flag_of(name)}", name, arguments[name]) for name in arguments]
    places += [(f"environment {variable_of(name)}", name, variables[name]) for name in variables]
    for place, name, value in places:
        try:
            Options.of(**{name: value})
        except OptionError as error:
            build_parser().error(f"{place}: {str(error).removeprefix(name + ': ')}")
    return Options.of(**variables | {name: value for name, value in arguments.items() if value is not None}), command


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Return the options that stand before ``--`` as texts; ends the process with 2 and a hint at an unknown one."""
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        flags = [flag_of(name)[2:] for name in (*vars(arguments), "help", "version")]
        like = closest(unknown[0].partition("=")[0].strip("-"), flags)
        told = f"did you mean --{like}?" if like else "--help shows all options"
        if not unknown[0].startswith("-") or like == "data":
            told = "DATA is one file, named without an option, and a command to run stands behind --"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; {told}")
    return vars(arguments)


def as_typed(message: str) -> str:
    """Spell the option that an OptionError names as on the command line."""
    name, _, rest = message.partition(": ")
    return f"argument {flag_of(name)}: {rest}" if name in vars(Options()) else message


def lan_address() -> str | None:
    """Find this machine's address for others on its network, without sending anything; None where it has none."""
    address = None
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # for a datagram that only looks up the way to it (RFC 5737)
        address = probe.getsockname()[0]
    if address is None:
        with contextlib.suppress(OSError):
            address = socket.gethostbyname(socket.gethostname())
    return None if address is None or is_loopback(address) else address


def console_urls(server: Server) -> list[tuple[str, str]]:
    """Return the named addresses of pages: those of --static, and the console's with its token, here and on the LAN.

    A page of --static that is named stage.html is one that uses the control interface, as the demo's does.
    """
    facts = server.facts()
    root = str(facts["url"]).removesuffix(API_PREFIX.rstrip("/"))
    pages = [("Pages", f"{root}/")] if server.options.static else []
    if console_folder() is None:
        return pages
    token = f"#token={quote(server.control_token, safe='')}" if server.control_token else ""
    url = root + (CONTROL_PREFIX if server.options.static else "/") + token
    if server.options.static and os.path.isfile(os.path.join(server.options.static, "stage.html")):
        pages.append(("Stage", f"{root}/stage.html{token}"))
    address = lan_address() if server.options.host == "0.0.0.0" else None
    elsewhere = [("On the LAN", url.replace("//localhost:", f"//{address}:", 1))] if address else []
    return [*pages, ("Console", url), *elsewhere]


def banner(server: Server) -> str:
    """Return what a person wants to know when the emulator is ready."""
    facts = server.facts()
    lines = [f"rested-emulator {__version__}", ""]
    rows = [
        ("HTTP", facts["url"]),
        ("WebSocket", facts["wsUrl"]),
        ("Key", facts["key"]),
        ("Master key", facts["masterKey"]),
        ("Data", facts["data"] or "in memory only"),
        ("Control", f"{facts['controlUrl']}/status"),
        ("Control token", facts["controlToken"]),
        *console_urls(server),
        ("CA", facts["ca"]),
        ("", server.ca_replaced and f"it is new, take the one before out of your browser: that {server.ca_replaced}"),
        ("", facts["ca"] and "trust it: curl --cacert CA, NODE_EXTRA_CA_CERTS=CA, or import it in the browser"),
    ]
    lines += [f"  {name:<14}{printable(str(value))}" for name, value in rows if value]
    samples = sample_project()[ENDPOINTS]
    endpoints = sorted(server.world.store.endpoints(), key=lambda item: item.name in samples)  # one's own first
    width = max((len(endpoint.name) for endpoint in endpoints), default=0)
    lines += ["", "  Endpoints"]
    lines += [f"    {item.name:<{width}}  {kind_of_endpoint(item, server.world.store)}" for item in endpoints]
    example = example_of(endpoints)
    if example:
        url = f"{facts['url']}/{example.name}?key={quote(example.project, safe='')}"
        username = free_username(server.world.store, example.name) if example.authentication else None
        lines += ["", "  Try", f"    {curl(url, facts['ca'], username)}"]
    return "\n".join([*lines, "", "  Ctrl-C stops it.", ""])


def example_of(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """Return the endpoint at which to try something without a token; None where there is none."""
    samples = sample_project()[ENDPOINTS]
    # On an authentication endpoint that is to register, with JSON that Windows cannot quote (see ``curl``).
    easy = [item for item in endpoints if not item.needs_token or (item.authentication and os.name != "nt")]
    return min(easy, key=lambda item: (item.name in samples, item.needs_token), default=None)


def free_username(store: Store, endpoint: str) -> str:
    """Return a name that no user has, for the line is to work at the second start too."""
    names = itertools.chain(("ada",), map("user-{}".format, itertools.count(1)))
    return next(name for name in names if store.user(endpoint, "username", name) is None)


def curl(url: str, ca: Json, username: str | None = None) -> str:
    """Return a line for the shell of this system that stores something at a URL, or registers a user there."""
    if os.name == "nt":
        # For cmd.exe and PowerShell alike: the one knows no single quotes, and the other drops a double one in an
        # argument. curl without .exe is another command in PowerShell.
        trusting = f'--cacert "{ca}" ' if ca else ""
        return printable(f'curl.exe {trusting}"{url}" -H "Content-Type: application/json" -d "[1, 2, 3]"')
    import shlex

    trusting = f"--cacert {shlex.quote(str(ca))} " if ca else ""
    data = {"username": username, "password": "secret"} if username else {"hello": "world"}
    return printable(f"curl {trusting}'{url}' -H 'Content-Type: application/json' -d '{json.dumps(data)}'")


def kind_of_endpoint(endpoint: Endpoint, store: Store) -> str:
    """Say in a few words what kind of endpoint it is, and how much is in it."""
    kind = "authentication" if endpoint.authentication else "secure" if endpoint.secure else "open"
    others = [what for what in ("read", "update", "delete") if getattr(endpoint, f"others_can_{what}")]
    count = store.count(endpoint.name)
    words = [kind, f"others can {' and '.join(others)}" if others and endpoint.secure else ""]
    words.append(f"{count} {'user' if endpoint.authentication else 'record'}{'' if count == 1 else 's'}")
    return ", ".join(filter(None, words))


def say(text: str, *, to_stderr: bool) -> None:
    """Print a text; letters that the terminal lacks are escaped, and a stream that nobody reads is no error."""
    stream = sys.stderr if to_stderr else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def drop_unread() -> None:
    """Empty stdout and stderr where nobody reads them: Python would write it again at exit, and end with 120."""
    # The log has lines left, and would write them after this: what is registered first at atexit runs last.
    logging.shutdown()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(open_bytes(os.devnull, os.O_WRONLY), stream.fileno())


LOG_SECONDS = 0.05  # that a line waits for others, to be written with them
LONGEST_LINE = 4000
TIME_LENGTH = len("12:00:00")
REFUSED = re.compile(r"open \S+ refused|\S+ \S+ [45]\d\d\b")  # a line of the log that tells of a request
RED, YELLOW, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def takes_colours(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Tell whether a stream is a terminal that shows colours, and whose person wants them (https://no-color.org)."""
    if stream is None or not stream.isatty() or environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in environment  # the older console of Windows may show the bare codes


class LogStream(logging.StreamHandler[TextIO]):
    """Writes lines to stderr with the time of day before each, those of a twentieth of a second together.

    Warnings and errors are written without delay.
    """

    def __init__(self) -> None:
        super().__init__()
        self._formatter = logging.Formatter()
        self._is_coloured = takes_colours(self.stream, os.environ)
        self._second, self._time = -1, ""  # spelled out once a second, for that is most of the work
        self._lines: list[str] = []

    def _paint(self, level: int, text: str) -> str:
        """Return a line as it is shown: on a terminal warnings are yellow, errors and refusals red."""
        if not self._is_coloured:
            return text
        if level == logging.WARNING:
            return f"{YELLOW}{text}{PLAIN}"
        return f"{RED}{text}{PLAIN}" if level > logging.WARNING or REFUSED.match(text) else text

    def format(self, record: logging.LogRecord) -> str:
        if int(record.created) != self._second:
            self._second, self._time = int(record.created), self._formatter.formatTime(record, "%H:%M:%S")
        message = record.getMessage()
        if len(message) > LONGEST_LINE:
            message = message[:LONGEST_LINE] + "…"
        trace = self._formatter.formatException(record.exc_info).split("\n") if record.exc_info else ()
        line = self._paint(record.levelno, printable(message))
        return "\n".join([f"{self._time} {line}", *map(printable, trace)])

    def tell(self, level: int, text: str) -> None:
        """Write a line as if it was logged; one that waits with others costs a fifth of that, and has their time."""
        if self._lines and level < logging.WARNING and len(text) < LONGEST_LINE:
            self._lines.append(f"{self._lines[0][:TIME_LENGTH]} {self._paint(level, printable(text))}")
        else:
            log.log(level, text)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
        if len(self._lines) > 1 and record.levelno < logging.WARNING:
            return  # the first of the lines has called for a flush
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # nothing can be called later, as before the start
            self.flush()
        else:
            loop.call_later(LOG_SECONDS if record.levelno < logging.WARNING else 0, self.flush)

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError, ValueError):  # a closed stderr is no reason to stop
            # At once: stderr flushes at each line's end, and by ``writelines`` that is a call of the system for each.
            self.stream.write("\n".join([*lines, ""]))
            super().flush()


def is_line_kept(record: logging.LogRecord) -> bool:
    """Tell whether to keep a line of Tornado's; that of a client without TLS goes, for ours says what to do."""
    return not (isinstance(record.args, tuple) and any(map(is_no_tls, record.args)))


def set_up_log(options: Options) -> LogStream:
    """Send the log to stderr, Tornado's own warnings with it; returns what writes it."""
    level = logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO
    stream = LogStream()
    logging.basicConfig(handlers=[stream], level=logging.WARNING)
    logging.raiseExceptions = False  # a line that cannot be written is no reason for a traceback
    # Documented, and a third of what a line costs: no line says from where or from which thread it was logged.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log.setLevel(level)
    logging.getLogger("tornado.general").addFilter(is_line_kept)
    return stream


PARENT_SECONDS = 0.5
COMMAND_SECONDS = 10.0
ENDINGS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGBREAK")  # Windows alone has the last, and lacks others
# Those that end a process too, unless whoever starts it has them ignored, as nohup does with the first.
RARE_ENDINGS = ("SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGVTALRM", "SIGPROF")
AT_TERMINAL = ("SIGINT", "SIGQUIT")  # which a terminal sends to every process in the foreground


async def run(server: Server, command: Sequence[str], parent: int) -> int:
    """Serve until a signal, the end of the command, or with --with-parent of the parent; returns the exit code."""
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[signal.Signals] = loop.create_future()
    child = Child(command)

    def stop(ending: signal.Signals) -> None:
        if not stopping.done():
            stopping.set_result(ending)

    asked = False

    def on_signal(number: int, _: object) -> None:
        nonlocal asked
        if asked:  # one handler for both: a second signal can come while the first one's handler still runs
            child.kill()
            os._exit(128 + number)  # at once, which is safe: the data file is replaced whole or not at all
        asked = True
        # A handler runs between any two steps of the program; the loop takes it up between two callbacks.
        loop.call_soon_threadsafe(stop, signal.Signals(number))

    if server.options.with_parent:
        watch_parent(parent, lambda: stop(signal.SIGTERM))
    catch_signals(on_signal)
    server.start()
    gc.freeze()  # what is there now stays, so no collection has to look at it
    gc.enable()
    # With a command stdout is the command's.
    say(json.dumps(server.facts()) if server.options.json else banner(server), to_stderr=bool(command))
    code = 0
    try:
        if command:
            code = await child.run(server.facts(), stopping)
        else:
            log.info("stopping, by %s", (await stopping).name)
    finally:
        lost = await stop_server(server)
    return lost or code


def catch_signals(handler: Callable[[int, object], None]) -> None:
    """Call a handler for each signal that asks a process to end."""
    for ending in signal.Signals:
        if ending.name in ENDINGS or (ending.name in RARE_ENDINGS and signal.getsignal(ending) is signal.SIG_DFL):
            # The loop's own handler has a signal wake the loop, which sleeps on where the signal comes to another
            # thread or just before the sleep. Windows lacks it, where the loop is woken as it is.
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(ending, int)
            signal.signal(ending, handler)  # over it: a loop that hangs could not be left by the second one


def watch_parent(parent: int, on_end: Callable[[], None]) -> None:
    """Call ``on_end`` when the process that started this one has ended."""
    if os.name == "nt":
        log.warning("--with-parent does nothing on Windows, which does not tell when a parent ends; use -- COMMAND")
        return
    # A process whose parent has ended gets another one; only Linux could send a signal for it.
    if os.getppid() == parent:
        asyncio.get_running_loop().call_later(PARENT_SECONDS, watch_parent, parent, on_end)
    else:
        log.info("process %d, which has started this one, has ended", parent)
        on_end()


async def stop_server(server: Server) -> int:
    """Stop the server in order; returns the exit code, 1 where a file cannot be written."""
    try:
        await server.stop()
    except OSError as error:
        if server.options.coverage and error.filename == server.options.coverage:
            return fail(f"the coverage could not be written: {error}", 1)
        return fail(f"the data file could not be saved, the journal beside it has what is new: {error}", 1)
    return 0


class Child:
    """The command after ``--``, which ends when the emulator does."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, facts: Mapping[str, Json], stopping: asyncio.Future[signal.Signals]) -> int:
        """Run the command with the emulator's facts in its environment; returns its exit code.

        A signal goes on to the command, which is killed where it does not end within ten seconds.
        """
        variables = {"RESTED_" + re.sub("([A-Z])", r"_\1", name).upper(): value for name, value in facts.items()}
        # Those of an emulator around this one go, where this one has no such fact.
        inherited = {name: value for name, value in os.environ.items() if name not in variables}
        environment = inherited | {name: str(value) for name, value in variables.items() if value is not None}
        try:
            process = self._process = await asyncio.create_subprocess_exec(*self._command, env=environment)
        except OSError as error:
            return fail(f"cannot run {self._command[0]}: {error.strerror}", 2)
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self._hand_on(process, stopping.result())
            await asyncio.wait((ended,), timeout=COMMAND_SECONDS)
        if not ended.done():
            name = stopping.result().name
            log.warning("%s goes on %g s after %s, and is killed", self._command[0], COMMAND_SECONDS, name)
            self.kill()
        code = await ended
        # Python gives a signal as a negative code, shells as 128 and its number.
        return code if code >= 0 else 128 - code

    @staticmethod
    def _hand_on(process: asyncio.subprocess.Process, ending: signal.Signals) -> None:
        """Send a signal to the command, unless a terminal or the console of Windows has sent it already."""
        at_terminal = ending.name in AT_TERMINAL and sys.stdin is not None and sys.stdin.isatty()
        if os.name != "nt" and not at_terminal:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(ending)

    def kill(self) -> None:
        """End the command at once, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the emulator as a program; returns the exit code (sample_data/REFERENCE.md, "Start and end")."""
    # While the imports ran, Ctrl-C ended the process; from here on there is something to give back.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return start(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # before it served: there is nothing to end in order
        return 0


def start(argv: Sequence[str]) -> int:
    """Read the command line and the data, take the port, and serve; returns the exit code."""
    parent = os.getppid()
    atexit.register(drop_unread)
    options, command = read_command_line(argv, os.environ)
    log_stream = set_up_log(options)
    for name, meant in misspelt_variables(os.environ).items():
        log.warning("environment %s counts for nothing; did you mean %s?", name, meant)
    if command:
        from shutil import which

        path = which(command[0])
        if path is None:
            return fail(f"there is no command {shown(command[0])} to run", 2)
        command[0] = path  # Windows finds npx.cmd by itself only in a shell
    try:
        server = Server(options, tell=log_stream.tell)
    except DataFileError as error:
        return fail(str(error), 1)
    except OptionError as error:
        return fail(as_typed(str(error)), 2)
    except Refusal as error:
        return fail(error.hint, 2)
    except OSError as error:
        code = 1 if options.coverage and error.filename == options.coverage else 2
        return fail(f"{error.filename or options.data or DEFAULT_DATA}: {error.strerror}", code)
    try:
        server.bind()
    except OSError as error:
        no_address = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        hint = "--host takes an address of this machine" if no_address else "take another with --port, 0 for a free one"
        return fail(f"port {options.port} on {options.host} cannot be had: {error.strerror or error}; {hint}", 2)
    return asyncio.run(run(server, command, parent))


def fail(text: str, code: int) -> int:
    """Say in one line why the emulator ends; returns the exit code."""
    say(f"rested-emulator: error: {printable(text)}", to_stderr=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
