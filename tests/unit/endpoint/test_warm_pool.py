"""What a pool keeps, shares, opens again and closes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from cloudft.endpoint.bedrock.warm_pool import WarmPool
from cloudft.errors import TrainerError


class Model:
    """Something that takes long to load."""

    def __init__(self, members: Sequence[str]) -> None:
        self.members = tuple(members)
        self.is_closed = False
        self.is_alive = True

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class Pool(WarmPool[str, str, Model]):
    """A pool of two, whose models have up to three members. `gone` can't be opened."""

    def __init__(self) -> None:
        self.opened: list[Model] = []
        self.gone: set[str] = set()
        super().__init__(self._make, 2, lambda model: model.is_alive, 3)

    def _make(self, members: Sequence[str]) -> Model:
        if self.gone & {*members}:
            raise TrainerError("gone")
        self.opened.append(Model(members))
        return self.opened[-1]

    def touch(self, key: str, member: str = "") -> Model:
        with self.use(key, member) as model:
            return model


def closed(model: Model) -> bool:
    return model.is_closed


def test_the_least_recently_used_is_closed() -> None:
    pool = Pool()
    a, b = pool.touch("a"), pool.touch("b")
    assert pool.touch("a") is a
    c = pool.touch("c")
    assert (a.is_closed, b.is_closed, c.is_closed) == (False, True, False)
    assert pool.kept == [a, c]
    pool.close()
    assert a.is_closed and c.is_closed


def test_what_is_in_use_stays() -> None:
    pool = Pool()
    with pool.use("a", "") as a:
        pool.touch("b")
        pool.touch("c")
        pool.touch("d")
        assert not closed(a)
    pool.touch("d")
    assert closed(a) and len(pool.kept) == 2


def test_members_share_what_is_loaded() -> None:
    pool = Pool()
    one = pool.touch("base", "x")
    both = pool.touch("base", "y")
    assert (both.members, one.is_closed) == (("x", "y"), True)
    assert pool.touch("base", "x") is both
    with pool.use("base", "x") as used:
        more = pool.touch("base", "z")
        assert (used, closed(used)) == (both, False)  # until its user leaves it
    assert (closed(used), more.members) == (True, ("x", "y", "z"))
    assert pool.touch("base", "w").members == ("y", "z", "w")


def test_a_member_that_is_gone_does_not_hinder_others() -> None:
    pool = Pool()
    pool.touch("base", "x")
    pool.gone = {"x"}
    assert pool.touch("base", "y").members == ("y",)
    with pytest.raises(TrainerError):
        pool.touch("base", "x")
    assert pool.touch("base", "y").members == ("y",)


def test_what_no_longer_works_is_opened_again() -> None:
    pool = Pool()
    dead = pool.touch("a")
    dead.is_alive = False
    assert pool.touch("a") is not dead and dead.is_closed
    with pool.use("a", "") as broken:
        pool.discard(broken)
        assert not closed(broken)
    assert closed(broken) and pool.touch("a") is not broken


def test_threads_that_need_the_same_one_load_it_once() -> None:
    pool = Pool()
    threads = [threading.Thread(target=pool.touch, args=(key,)) for key in "abab" * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pool.opened) == 2
    pool.close()
    assert all(model.is_closed for model in pool.opened)
