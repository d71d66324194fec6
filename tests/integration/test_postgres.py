"""What differs on a real PostgreSQL server. The tests of the store (tests/unit/test_store*.py) run there as well."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from hyper2kvmd.errors import BrokenInstallation, TryLater
from hyper2kvmd.jobs.database_lock import DatabaseLock
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.tables import jobs
from tests.support.postgres import GERMAN, TEMPLATE, Postgres, server, short_folder
from tests.support.queue_verbs import add, claim


def test_a_refused_login_is_an_error_of_the_operator(postgres: Postgres) -> None:
    postgres.sql("CREATE ROLE stranger LOGIN PASSWORD 'right'")
    for address in refused_logins(postgres):
        with pytest.raises(BrokenInstallation) as refusal:
            Store(address)
        assert refusal.value.code == "database-login" and "wrong" not in refusal.value.message
        assert "pg_hba.conf" in refusal.value.hint
        with pytest.raises(BrokenInstallation) as refusal:
            DatabaseLock(address, "this test").take()
        assert refusal.value.code == "database-login"
    name = postgres.new_database(TEMPLATE)
    with pytest.raises(BrokenInstallation, match="too few rights") as refusal:
        Store(postgres.address(name, "stranger", "right"))
    assert refusal.value.code == "database-login"


def refused_logins(postgres: Postgres) -> tuple[str, ...]:
    return (
        postgres.address(TEMPLATE, "stranger", "wrong"),
        postgres.address(TEMPLATE, "stranger"),
        postgres.address(TEMPLATE, "nobody"),
        postgres.address("no_such_database"),
    )


def test_errors_are_told_by_their_codes_in_any_language(postgres: Postgres) -> None:
    with short_folder() as folder, server(folder / "server", GERMAN) as german:
        german.sql(f"CREATE DATABASE {TEMPLATE}")
        german.sql("CREATE ROLE stranger LOGIN PASSWORD 'right'")
        german.sql("CREATE DATABASE full_house CONNECTION LIMIT 0")
        german.sql("CREATE ROLE owner LOGIN")
        for address in refused_logins(german):
            with pytest.raises(BrokenInstallation) as refusal:
                Store(address)
            assert refusal.value.code == "database-login", refusal.value
        assert "existiert nicht" in refusal.value.message, "the server speaks German"
        with pytest.raises(TryLater) as full:
            Store(german.address("full_house", "owner"))
        assert full.value.code == "database-unavailable"
        german.sql(f"ALTER DATABASE {TEMPLATE} SET default_transaction_read_only = on")
        with pytest.raises(TryLater) as read_only:
            Store(german.address(TEMPLATE))
        assert read_only.value.code == "database-unavailable"


def test_a_connection_that_is_lost_in_a_transaction_changes_nothing(postgres: Postgres) -> None:
    """The next transaction has a new connection."""
    name = postgres.new_database(TEMPLATE)
    store = Store(postgres.address(name))
    add(store, "a")
    others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - ours

    def change_twice() -> None:
        with store.transaction(writes=True) as connection:
            connection.execute(update(jobs).values(priority=9))
            postgres.sql(others)
            connection.execute(update(jobs).values(priority=8))

    with pytest.raises(TryLater) as lost:
        change_twice()
    assert lost.value.code == "database-unavailable"
    assert store.get(1).priority == 5 and claim(store).id == 1
    lock = DatabaseLock(postgres.address(name), "this test")
    lock.take()
    postgres.sql(others)
    lock.take()
    with pytest.raises(BrokenInstallation, match="this test"):
        DatabaseLock(postgres.address(name), "another").take()
    lock.close()
    store.close()


def test_a_restart_of_the_server_is_waited_out_and_the_lock_is_taken_again(postgres: Postgres) -> None:
    name = postgres.new_database(TEMPLATE)
    store, lock = Store(postgres.address(name)), DatabaseLock(postgres.address(name), "this test")
    lock.take()
    postgres.stop()
    with pytest.raises(TryLater) as refusal:
        store.get(1)
    assert refusal.value.code == "database-unavailable"
    with pytest.raises(TryLater):
        lock.take()
    postgres.start()
    lock.take()
    with pytest.raises(BrokenInstallation, match="this test"):
        DatabaseLock(postgres.address(name), "another").take()
    add(store, "a")
    lock.close()
    store.close()
