"""A repository in a store: sections 5 and 9 of docs/format.md.

Opens it, gathers its objects by session, and finds chunks. Never writes.
"""

from collections import OrderedDict, namedtuple

import repo_format as f
from repo_format import Damaged, require

PACKS_IN_MEMORY = 8
STATES = {f.COMMITTED: "committed", f.FENCED: "fenced", f.PART: "part", f.COPIES: "copies"}
# Kinds of objects of which each belongs to one session.
OF_SESSIONS = ("open", "end", "index", "forget", "beat", "pin", "data", "meta")

Place = namedtuple("Place", "pack position offset entry random")


class CannotOpen(Exception):
    """There is no repository, or no way into it."""


# The newest version of the format that is known.
NEWEST = 2


def fetch(store, key):
    """The bytes of an object that was listed."""
    data = store.read(key)
    require(data is not None, "is missing")
    return data


def unlock(store, passphrase, damaged, newest=NEWEST):
    """The keys of the repository, to one who knows the formats up to `newest`. Damage
    on the way goes to `damaged(key, problem)`.

    Raises `CannotOpen`.
    """
    objects = [key for key in map(f.parse_key, store.list()) if key]
    formats = {key.n: key.text for key in objects if key.kind.name == "format"}
    slots = [key.text for key in objects if key.kind.name == "slot"]
    if not formats:
        raise CannotOpen("there is no repository: no object below format/")
    highest = max(formats)
    if not 1 <= highest <= newest:
        raise CannotOpen(f"the repository has format version {highest}, which is not known here")
    try:
        format_object = f.parse_format(fetch(store, formats[highest]), highest)
    except Damaged as damage:
        damaged(formats[highest], str(damage))
        raise CannotOpen(f"{formats[highest]} is damaged") from None
    master = _master(store, slots, format_object.repository, passphrase, damaged)
    keys = f.Keys(master, format_object.repository)
    if not f.same(f.keyed(keys.format, format_object.mac_input), format_object.mac):
        damaged(formats[highest], "does not have the MAC of this repository: forged, or of another one")
        raise CannotOpen(f"{formats[highest]} is not this repository's")
    return keys


def _master(store, slots, repository, passphrase, damaged):
    tried = broken = 0
    master = None
    for key in slots:
        try:
            slot = f.parse_slot(fetch(store, key), key)
            # Left over from an initialisation that lost a race: it counts for nothing.
            if slot.repository != repository or tried == f.SLOTS_MAX:
                continue
            tried += 1
            found = f.open_slot(slot, passphrase)
            require(master in (None, found), "holds another master key than the other slots")
            master = found
        except f.WrongPassphrase:
            continue
        except Damaged as damage:
            broken += 1
            damaged(key, str(damage))
    if master is not None:
        return master
    if broken:
        raise CannotOpen("no key slot can be opened, and some are damaged")
    raise CannotOpen("wrong passphrase" if tried else "no key slot below keys/ is of the repository of format/")


class Session:
    """All objects of one session."""

    def __init__(self, session):
        self.id = session
        self.keys = {}  # every key by kind, whether the object could be read or not
        self.opens, self.ends = {}, {}  # what could be read, by key
        self.beats, self.pins, self.packs = {}, {}, {}  # by key, and the keys of packs by number
        self.index = self.forget = None

    @property
    def committed(self):
        """The key of the end record and the record, if the session is committed."""
        ends = list(self.ends.items())
        return ends[0] if len(ends) == 1 and ends[0][1].outcome == f.COMMITTED else None

    @property
    def state(self):
        if "end" not in self.keys:
            return "open" if "open" in self.keys else "over"
        if not self.ends:
            return "damaged"
        outcomes = {end.outcome for end in self.ends.values()}
        return STATES[min(outcomes - {f.FENCED}, default=f.FENCED)]

    @property
    def births(self):
        """The generations in which it began, as far as anything still says."""
        return {end.generation for end in self.ends.values()} or {key.n for key in self.opens}

    @property
    def pinned(self):
        return max((key.n for key in self.keys.get("pin", ())), default=0) % 2 == 1


class Repository:
    """Sessions, snapshots and chunks. What cannot be read goes to `damaged(key, problem)`."""

    def __init__(self, store, keys, damaged, newest=NEWEST):
        self.store, self.keys, self.newest, self._damaged = store, keys, newest, damaged
        listed = [(text, f.parse_key(text)) for text in store.list()]
        self.objects = [key for _, key in listed if key and f.is_known(key.kind, newest)]
        self.ignored = [text for text, key in listed if not (key and f.is_known(key.kind, newest))]
        self._memory = OrderedDict()
        self.mends, self.healed = {}, []
        self.mends = self._records(*{kind.name for kind in f.MENDS.values()})
        self.plans, self.finals = self._numbered("plan"), self._numbered("final")
        self.claims = self._numbered("keeper")
        self.sessions = {}
        for key in self.objects:
            if key.kind.name in OF_SESSIONS:
                self._gather(key)
        self.run, self.live, self.parts = self._newest_run()
        self.places = self._places_by_index()

    def damaged(self, text, problem):
        """Says that an object is damaged, unless another one stands in for it."""
        if f.MEND + text in self.mends:
            self.healed.append((text, problem))
        else:
            self._damaged(text, problem)

    def _record(self, key):
        """The body of a record, or of what stands in for it, or None."""
        try:
            return f.open_record(self.keys, key, fetch(self.store, key.text), self.newest)
        except Damaged as damage:
            self.damaged(key.text, str(damage))
            return self.mends.get(f.MEND + key.text)

    def _records(self, *kinds):
        """The records of these kinds that can be read, by the text of the key."""
        found = {key.text: self._record(key) for key in self.objects if key.kind.name in kinds}
        return {text: body for text, body in found.items() if body is not None}

    def _numbered(self, kind):
        return {f.parse_key(text).n: body for text, body in self._records(kind).items()}

    def _newest_run(self):
        """The run that counts: its number, the sessions it closes as live, its parts."""
        newest = max((key for key in self.objects if key.kind.name == "run"), key=lambda key: key.n, default=None)
        body = self._record(newest) if newest else None
        if body is None:
            return 0, set(), []
        return newest.n, body.live, [(kind, name, self._part(kind, name)) for kind, name in body.parts]

    def _part(self, kind, name):
        """What a part of a run holds, or nothing if it cannot be read."""
        try:
            body = self._record(f.parse_key(name))
            return [] if body is None else f.read_part(kind, body)
        except Damaged as damage:
            self.damaged(name, str(damage))
            return []

    @property
    def collected(self):
        """Whether garbage was ever collected here."""
        return bool(self.run or self.plans or self.finals)

    def counts(self, session):
        """Whether a session is open to count, or closed by the newest run as live."""
        return session.id in self.live or any(birth >= self.run for birth in session.births)

    def _gather(self, key):
        session = self.sessions.setdefault(key.session, Session(key.session))
        session.keys.setdefault(key.kind.name, []).append(key)
        if key.kind.name in ("data", "meta"):
            session.packs.setdefault(key.n, []).append(key)
            return
        body = self._record(key)
        if body is None:
            return
        if key.kind.name in ("index", "forget"):
            setattr(session, key.kind.name, body)
        else:
            kinds = {"open": session.opens, "end": session.ends, "beat": session.beats, "pin": session.pins}
            kinds[key.kind.name][key] = body

    def snapshots(self):
        """Committed sessions, by cluster and sequence; ties by session id."""
        found = [session for session in self.sessions.values() if session.committed and self.counts(session)]
        return sorted(found, key=lambda s: (s.committed[0].cluster, s.committed[1].sequence, s.id))

    def chunk(self, chunk_id):
        """The plain bytes of a chunk, from the first pack that gives it."""
        problem = f"chunk {chunk_id.hex()} is in no index"
        for place in self.places.get(chunk_id, ()):
            try:
                pack = self._pack(place.pack)
                require(pack.random == place.random, "has another session random than the index says")
                return pack.chunk(place.position, place.offset, place.entry)
            except Damaged as damage:
                problem = f"chunk {chunk_id.hex()}: {place.pack.text} {damage}"
        raise Damaged(problem)

    def _pack(self, key):
        if key.text not in self._memory:
            self._memory[key.text] = f.Pack(self.keys, key, fetch(self.store, key.text))
            if len(self._memory) > PACKS_IN_MEMORY:
                self._memory.popitem(last=False)
        return self._memory[key.text]

    def _places_by_index(self):
        """Where each chunk of a committed session is, by the newest run and the deltas since."""
        places = {}
        for session, index in self.of_run(f.PACKS) + self._deltas():
            for pack in index.packs:
                key = f.parse_key(f.pack_key(session, pack.n, pack.number))
                offset = f.PACK_HEAD
                for position, entry in enumerate(pack.entries):
                    place = Place(key, position, offset, entry, index.random)
                    places.setdefault(entry.id, []).append(place)
                    offset += entry.stored
        return places

    def of_run(self, kind):
        """What all parts of this kind hold: pairs of a session and its packs."""
        return [pair for of, _, body in self.parts if of == kind for pair in body]

    def _deltas(self):
        """The indices of sessions that committed since the newest run."""
        found = []
        for session in self.sessions.values():
            committed = [end for end in session.ends.values() if end.outcome != f.FENCED]
            if any(end.generation >= self.run for end in committed):
                index = session.index or self.mends.get(f"{f.MEND}index/{session.id.hex()}")
                found += [(session.id, index)] if index else []
        return found

    def find_chunks_by_trailers(self):
        """Forgets the index deltas and rebuilds what they say from the packs alone."""
        self.places = {}
        for key in self.objects:
            if key.kind.name not in ("data", "meta"):
                continue
            try:
                pack = self._pack(key)
                for position, (offset, entry) in enumerate(pack.entries()):
                    place = Place(key, position, offset, entry, pack.random)
                    self.places.setdefault(entry.id, []).append(place)
            except Damaged as damage:
                self.damaged(key.text, str(damage))
