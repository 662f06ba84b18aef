"""Keep what takes long to load, and close what was used least recently once it is idle."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cloudft.errors import CloudftError


class Closable(Protocol):
    """What a pool keeps."""

    def close(self) -> None:
        """Release it."""


Key = TypeVar("Key", bound=Hashable)
Member = TypeVar("Member", bound=Hashable)
Kept = TypeVar("Kept", bound=Closable)


@dataclass(eq=False)
class _Loaded(Generic[Member, Kept]):
    """What was loaded for some members. It is closed when it is retired and has no user."""

    members: tuple[Member, ...]
    kept: Kept
    users: int = 0
    is_retired: bool = False


@dataclass
class _Entry(Generic[Member, Kept]):
    opening: threading.Lock = field(default_factory=threading.Lock)
    loaded: _Loaded[Member, Kept] | None = None


class WarmPool(Generic[Key, Member, Kept]):
    """What is loaded, by its key. Those with one key share what is loaded, as its members.

    More than `limit` are kept only while they are all in use. `open_kept` loads what has these
    members. `is_usable` says whether one that was kept still works: its process may have ended.
    """

    def __init__(
        self,
        open_kept: Callable[[Sequence[Member]], Kept],
        limit: int,
        is_usable: Callable[[Kept], bool],
        max_members: int = 1,
    ) -> None:
        self._open = open_kept
        self._limit = limit
        self._is_usable = is_usable
        self._max_members = max_members
        self._lock = threading.Lock()
        # In order of use, the most recent last.
        self._entries: OrderedDict[Key, _Entry[Member, Kept]] = OrderedDict()

    @property
    def kept(self) -> list[Kept]:
        """Return what is loaded now, the most recently used last."""
        with self._lock:
            loaded = [entry.loaded for entry in self._entries.values()]
        return [one.kept for one in loaded if one is not None]

    @contextmanager
    def use(self, key: Key, member: Member) -> Iterator[Kept]:
        """Yield what has that member, loaded if it is not kept; it is not closed meanwhile."""
        loaded = self._take(key, member)
        try:
            yield loaded.kept
        finally:
            self._release(loaded)

    def _take(self, key: Key, member: Member) -> _Loaded[Member, Kept]:
        """Return what has that member, with one user more."""
        while True:
            with self._lock:
                entry = self._entries.setdefault(key, _Entry())
                self._entries.move_to_end(key)
            # Only those that need the same one wait while it is loaded.
            with entry.opening:
                with self._lock:
                    if self._entries.get(key) is not entry:  # it was idle, and is gone
                        continue
                loaded = self._load(entry, member)
                with self._lock:
                    loaded.users += 1
                return loaded

    def _load(self, entry: _Entry[Member, Kept], member: Member) -> _Loaded[Member, Kept]:
        """Return what the entry has, loaded again if it lacks the member or no longer works."""
        loaded = entry.loaded
        members: tuple[Member, ...] = (member,)
        if loaded is not None:
            if member in loaded.members and self._is_usable(loaded.kept):
                return loaded
            others = [one for one in loaded.members if one != member]
            members = (*others, member)[-self._max_members :]
            entry.loaded = None
            self._retire(loaded)
        entry.loaded = self._open_members(members, member)
        return entry.loaded

    def _open_members(self, members: tuple[Member, ...], needed: Member) -> _Loaded[Member, Kept]:
        try:
            return _Loaded(members, self._open(members))
        except CloudftError:
            if len(members) == 1:
                raise
            # One of the others is gone, or does not go with it.
            return _Loaded((needed,), self._open((needed,)))

    def _retire(self, loaded: _Loaded[Member, Kept]) -> None:
        with self._lock:
            loaded.is_retired = True
            is_idle = loaded.users == 0
        if is_idle:
            loaded.kept.close()

    def _release(self, loaded: _Loaded[Member, Kept]) -> None:
        with self._lock:
            loaded.users -= 1
            closed = [loaded] if loaded.is_retired and loaded.users == 0 else []
            for key in list(self._entries)[: -self._limit]:
                entry = self._entries[key]
                # An entry that is being opened is in use, too.
                if entry.opening.locked() or (entry.loaded is not None and entry.loaded.users):
                    continue
                del self._entries[key]
                closed += [entry.loaded] if entry.loaded is not None else []
        for one in closed:
            one.kept.close()

    def discard(self, kept: Kept) -> None:
        """Close what can no longer be used, when its last user leaves it."""
        with self._lock:
            entries = [e for e in self._entries.values() if e.loaded and e.loaded.kept is kept]
        for entry in entries:
            with entry.opening:
                loaded = entry.loaded
                if loaded is not None and loaded.kept is kept:
                    entry.loaded = None
                    self._retire(loaded)

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            loaded = [entry.loaded for entry in self._entries.values()]
            self._entries.clear()
        for one in loaded:
            if one is not None:
                one.kept.close()
