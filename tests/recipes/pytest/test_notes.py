import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from rested_emulator import World


def store(world: World, token: str, text: str) -> None:
    """Stands for your client."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    urlopen(Request(world.url("my-app/notes"), json.dumps({"text": text}).encode(), headers)).close()


def test_a_note_is_stored(world: World) -> None:
    store(world, world.sign_in("my-app/users", "ada"), "milk")
    assert [record["data"] for record in world.records("my-app/notes")] == [{"text": "milk"}]


def test_a_token_lasts_an_hour(world: World) -> None:
    token = world.sign_in("my-app/users", "ada")
    world.advance(3600)
    with pytest.raises(HTTPError, match="401"):
        store(world, token, "bread")
