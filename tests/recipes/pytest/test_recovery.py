from typing import Any

from live import clients
from test_notes import store

from rested_emulator import World


def test_one_of_two_users_loses_the_socket_and_reads_what_she_has_missed(world: World) -> None:
    with clients(world) as begin:
        begin("ada", 0)
        begin("ben", 0)
        world.add_fault("refuse", username="ada", for_=60)
        world.add_fault("abort", username="ada")
        store(world, world.sign_in("my-app/users", "ada"), "missed")
        world.advance(60)
        world.wait(requests={"method": "GET", "status": 200}, count=3)
        [ada] = world.recoveries()
        assert (ada["username"], ada["token"], ada["missed"], ada["read"]) == ("ada", "same", 1, True)


def test_gaps_between_tries_grow_and_differ_from_user_to_user(world: World) -> None:
    with clients(world) as begin:
        begin("ada", 0)
        begin("ben", 0.9)
        for username in ("ada", "ben"):
            world.add_fault("refuse", username=username, times=3)
        world.add_fault("abort")
        recoveries: Any = world.wait(recoveries={}, count=2)["recoveries"]
        for first, _, third, last in ([each["after"] for each in one["attempts"]] for one in recoveries):
            assert last - third > 2 * first
        assert abs(recoveries[0]["after"] - recoveries[1]["after"]) > 0.3


def test_a_try_after_the_token_has_expired_shows_a_new_one(world: World) -> None:
    with clients(world) as begin:
        begin("ada", 0)
        world.expire_tokens(username="ada")
        recoveries: Any = world.wait(recoveries={"username": "ada"})["recoveries"]
        [ada] = recoveries
        assert (ada["rule"], ada["token"], len(ada["attempts"])) == ("expired token", "new", 1)
