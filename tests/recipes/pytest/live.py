from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosedOK, WebSocketException
from websockets.sync.client import connect

from rested_emulator import World


def keep_current(world: World, username: str, chance: float, over: Event) -> None:
    """Stands for your client: backs off, logs in again where the token is over, and reads what it has missed."""
    token, delay = "", 0.0
    while not over.wait(delay):
        token = token or world.sign_in("my-app/users", username)
        headers = {"Authorization": f"Bearer {token}"}
        try:
            with connect(world.ws_url("my-app/notes"), additional_headers=headers, proxy=None) as socket:
                urlopen(Request(world.url("my-app/notes"), headers=headers)).close()
                delay = 0.0
                while not over.is_set():
                    socket.recv()
        except (ConnectionClosedOK, HTTPError):
            token = ""  # expired or revoked
        except (WebSocketException, OSError):
            pass
        delay = 2 * delay or 0.1 * (1 + chance)


@contextmanager
def clients(world: World) -> Iterator[Callable[[str, float], None]]:
    """Begin clients, one for each user, for recoveries tell clients apart by their users."""
    over, threads = Event(), list[Thread]()

    def begin(username: str, chance: float) -> None:
        threads.append(Thread(target=keep_current, args=(world, username, chance, over)))
        threads[-1].start()
        world.wait(requests={"method": "GET", "status": 200}, count=len(threads))

    try:
        yield begin
    finally:
        over.set()
        world.close_listeners()
        for thread in threads:
            thread.join()
