#!/usr/bin/env python3
"""Plants faults into copies of a repository and demands that `verify` names each.

    corruption.py --repository DIR --passphrase-file FILE

Deterministic: the same repository gives the same faults. The copies are in memory;
the repository itself is only read. Exit 1 if a fault is not found, or found where
none is.
"""

import argparse
import sys
from collections import namedtuple

sys.dont_write_bytecode = True

import repo_format as f  # noqa: E402
from golden_writer import index_entry  # noqa: E402
from lifebuoy_reader import passphrase  # noqa: E402
from repository import CannotOpen, Repository, unlock  # noqa: E402
from store import Directory  # noqa: E402
from verify import verify  # noqa: E402

# A change is a dictionary of keys with their new bytes, or None for an object that is
# gone. The fault is found if a finding has one of the keys in `named`.
Fault = namedtuple("Fault", "name changes named")

HEADER = (("magic", 0, 8), ("version", 8, 10), ("type", 10, 11), ("zeros", 11, 16))
RECORD = HEADER + (("salt", 16, 48), ("commitment", 48, 80), ("nonce", 80, 92), ("body", 92, -16), ("tag", -16, 0))
PACK = HEADER + (("session random", 16, 48), ("trailer length", -68, -64), ("commitment", -64, -32), ("hash", -32, 0))
REGIONS = {
    "format": HEADER + (
        ("repository", 16, 32), ("features to ignore", 32, 40), ("read-only features", 40, 48),
        ("features to know", 48, 56), ("chunker", 56, 57), ("derivation", 57, 58), ("more zeros", 58, 64),
        ("MAC", 64, 96), ("hash", 96, 128)),
    "slot": HEADER + (
        ("repository", 16, 32), ("derivation", 32, 33), ("more zeros", 33, 36), ("memory", 36, 40),
        ("passes", 40, 44), ("lanes", 44, 48), ("salt", 48, 80), ("commitment", 80, 112),
        ("master key", 112, 144), ("tag", 144, 160), ("hash", 160, 192)),
}


# A session that nobody ever began.
STRANGER = bytes(range(16))


class Memory:
    """A copy of a store in which some objects are others."""

    def __init__(self, objects, changes):
        self.objects = {**objects, **changes}

    def list(self, prefix=""):
        return sorted(key for key, data in self.objects.items() if data is not None and key.startswith(prefix))

    def read(self, key):
        return self.objects.get(key)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repository", metavar="DIR", required=True)
    parser.add_argument("--passphrase-file", metavar="FILE")
    arguments = parser.parse_args()
    store, secret = Directory(arguments.repository), passphrase(arguments)
    objects = {key: store.read(key) for key in store.list()}
    whole = Repository(Memory(objects, {}), unlock(store, secret, print), print)

    wrong = [f"untouched: {key}: {problem}" for key, problem in verify(Memory(objects, {}), secret).findings]
    planted = 0
    for make in (flips, lengths, absences, copies, swaps, forgeries):
        for fault in make(objects, whole):
            planted += 1
            found = findings(Memory(objects, fault.changes), secret)
            if not any(key in fault.named for key, _ in found):
                wrong.append(f"{fault.name}: not found; instead {found}")
    for problem in wrong:
        print(problem)
    print(f"planted {planted} faults, {len(wrong)} problems")
    return 1 if wrong or not planted else 0


def findings(store, secret):
    try:
        return verify(store, secret).findings
    except CannotOpen as error:
        # What cannot be opened at all names the folder it lacks.
        return [(word, str(error)) for word in str(error).split()]


def examples(whole):
    """One object of every kind, one end record of every outcome, and one index with
    packs and one without: rather of sessions that no run has closed.
    """
    chosen = {}
    for key in sorted(victims(whole), key=lambda key: is_closed(whole, key)):
        sort = None
        if key.kind.name == "end":
            sort = whole.sessions[key.session].ends[key].outcome
        elif key.kind.name == "index":
            sort = bool(whole.sessions[key.session].index.packs)
        chosen.setdefault((key.kind.name, sort), key)
    return list(chosen.values())


def victims(whole):
    """All objects of which a fault must be found: not those that are damaged already
    and have a mend, and not probes.
    """
    return [key for key in whole.objects if key.kind.name != "probe" and f.MEND + key.text not in whole.mends]


def is_closed(whole, key):
    """Whether the session of this object was born before the newest run."""
    session = whole.sessions.get(key.session)
    return bool(whole.run and session and all(birth < whole.run for birth in session.births))


# A flipped byte in every region

def flips(objects, whole):
    for key in examples(whole):
        data = objects[key.text]
        for name, start, end in regions(whole, key, data):
            start, end = start % len(data), (end % len(data)) or len(data)
            for at in sorted({start, (start + end) // 2, end - 1}):
                yield flip(key.text, data, at, name)
    for key in victims(whole):
        data = objects[key.text]
        at = int.from_bytes(f.blake3(key.text.encode()).digest()[:8], "little") % len(data)
        yield flip(key.text, data, at, "anywhere")


def flip(key, data, at, region):
    changed = bytearray(data)
    changed[at] ^= 1 << at % 8
    return Fault(f"byte {at} of {key} ({region}) flipped", {key: bytes(changed)}, {key})


def regions(whole, key, data):
    if key.kind.name not in ("data", "meta"):
        return REGIONS.get(key.kind.name, RECORD)
    pack = f.Pack(whole.keys, key, data)
    entries = pack.entries()
    chunks = [(f"chunk {n}", at, at + entry.stored) for n, (at, entry) in enumerate(entries)]
    start = len(data) - f.PACK_FOOTER - pack.trailer_length
    return PACK + tuple(chunks[:1] + chunks[-1:]) + (("trailer", start, len(data) - f.PACK_FOOTER),)


# Objects of another length

def lengths(objects, whole):
    for key in examples(whole):
        data = objects[key.text]
        cuts = {0, 1, 15, 16, 47, 48, 91, 92, 108, len(data) // 2, len(data) - 4096, len(data) - 68, len(data) - 1}
        for length in sorted(cut for cut in cuts if 0 <= cut < len(data)):
            yield Fault(f"{key.text} cut to {length} bytes", {key.text: data[:length]}, {key.text})
        for extra in (b"\0", bytes(256), bytes(4096), data):
            yield Fault(f"{key.text} with {len(extra)} bytes more", {key.text: data + extra}, {key.text})
        yield Fault(f"{key.text} of zeros", {key.text: bytes(len(data))}, {key.text})


# Objects that are gone

def absences(objects, whole):
    listed = {place.pack.text for places in whole.places.values() for place in places}
    for key in victims(whole):
        session = whole.sessions.get(key.session)
        kind, committed = key.kind.name, session and session.committed
        if key.text in listed or kind in ("data", "meta") and session.index and not is_closed(whole, key):
            yield gone(key.text, key.text)
        elif kind == "index" and committed and committed[1].packs and not is_closed(whole, key):
            yield gone(key.text, key.text)
        elif kind == "open" and committed:
            yield gone(key.text, committed[0].text)
        elif kind == "end" and key.session in whole.live:
            yield gone(key.text, f"end/…/{key.session.hex()}")
        elif kind == "part" and key.text in [name for _, name, _ in whole.parts]:
            yield gone(key.text, key.text)
        elif kind in ("run", "final") and any(n > key.n for n in whole.plans):
            yield gone(key.text, key.text)
        elif kind in ("mend-index", "mend-part", "mend-pack"):
            yield gone(key.text, key.text[len(f.MEND):])
    for _, session, _ in neighbours(whole) if not whole.collected else ():
        key = session.committed[0]
        yield gone(key.text, f"end/{key.cluster.hex()}/")
    for folder in ("format/", "keys/"):
        yield Fault(f"{folder} is gone", {key: None for key in objects if key.startswith(folder)}, {folder})


def gone(key, named):
    return Fault(f"{key} is gone", {key: None}, {named})


def neighbours(whole):
    """Three snapshots of one cluster, one after another."""
    found = whole.snapshots()
    for three in zip(found, found[1:], found[2:]):
        sequences = [session.committed[1].sequence for session in three]
        clusters = {session.committed[0].cluster for session in three}
        if len(clusters) == 1 and sequences[0] < sequences[1] < sequences[2]:
            yield three


# Objects under another name

def copies(objects, whole):
    stranger = STRANGER.hex()
    for key in examples(whole):
        for name in other_names(key, stranger):
            yield Fault(f"{key.text} copied to {name}", {name: objects[key.text]}, {name})
            if key.kind.name != "slot":
                yield Fault(f"{key.text} moved to {name}", {key.text: None, name: objects[key.text]}, {name})
    ends = [session.committed[0] for session in whole.snapshots()]
    for one in ends:
        for other in ends:
            if one.cluster != other.cluster:
                name = f"end/{other.cluster.hex()}/{one.session.hex()}"
                yield Fault(f"{one.text} copied to {name}", {name: objects[one.text]}, {name})
                yield Fault(f"{other.text} has the bytes of {one.text}", {other.text: objects[one.text]}, {other.text})


def other_names(key, stranger):
    if key.text.startswith(f.MEND):
        of = f.parse_key(key.text[len(f.MEND):])
        yield from (f.MEND + name for name in other_names(of, stranger))
    elif key.kind.name in ("data", "meta"):
        number = key.kind.number
        for session, n, kind in ((key.session, key.n + 256, number), (key.session, key.n, 33 - number),
                                 (bytes.fromhex(stranger), key.n, number)):
            yield f.pack_key(session, n, kind)
    elif key.kind.name == "slot":
        yield f"keys/{stranger}"
    elif key.session:
        session = key.session.hex()
        yield key.text.replace(session, stranger)
        if key.cluster:
            yield key.text.replace(key.cluster.hex(), stranger)
        if key.kind.name == "open":
            yield key.text.replace(f"/{key.n}-", f"/{key.n + 1}-")
        if key.kind.name in ("beat", "pin"):
            yield f"{key.kind.name}/{session}/{key.n + 1000}"
    elif key.kind.name == "part":
        yield f"index/parts/{key.n}-{stranger}"
    elif key.kind.name in ("plan", "final", "run", "keeper"):
        yield key.text.replace(f"/{key.n}", f"/{key.n + 1000}")


# Pairs that changed places

def swaps(objects, whole):
    kinds = {}
    for key in victims(whole):
        if key.kind.name not in ("format", "slot"):
            kinds.setdefault(key.kind.name, []).append(key)
    for kind, keys in kinds.items():
        for one, other in zip(keys, keys[1:]):
            yield swap(objects, one.text, other.text)
    packs = kinds.get("data", []) + kinds.get("meta", [])
    for one in packs:
        # The hardest to tell: the same number and type in two sessions.
        for other in packs:
            if one.session < other.session and (one.n, one.kind) == (other.n, other.kind):
                yield swap(objects, one.text, other.text)
                break


def swap(objects, one, other):
    changes = {one: objects[other], other: objects[one]}
    return Fault(f"{one} and {other} swapped", changes, {one})


# What a faulty writer that has the keys could store

def forgeries(objects, whole):
    for key in examples(whole):
        session = whole.sessions.get(key.session)
        if key.kind.name == "beat":
            yield forgery(whole, objects, key, f.little(key.n + 1, 8), "another number")
        elif key.kind.name == "open":
            yield from forged_opens(whole, objects, session, key)
        elif key.kind.name == "index" and session.index.packs:
            yield from forged_indices(whole, objects, session, key)
        elif key.kind.name == "end" and session.ends[key].outcome == f.COMMITTED:
            yield from forged_ends(whole, objects, session, key)
        elif key.kind.name in FORGED_BODIES:
            for body, what in FORGED_BODIES[key.kind.name]:
                yield forgery(whole, objects, key, body, what)
    for n, last in whole.finals.items():
        key = f.parse_key(f"gc/{n}.final")
        yield forgery(whole, objects, key, names([*last, f.PackName(b"\xff" * 16, 0, 16)]), "a pack that nobody condemned")
    if whole.run:
        yield from forged_runs(whole, objects, f.parse_key(f"index/runs/{whole.run}"))
        yield from forged_parts(whole, objects)


def forgery(whole, objects, key, body, what, named=None):
    salt = objects[key.text][16:48]
    return Fault(f"{key.text} with {what}", {key.text: f.seal_record(whole.keys, key, salt, body)}, {named or key.text})


def forged_opens(whole, objects, session, key):
    record = session.opens[key]

    def body(purpose=1, generation=record.generation, random=record.random, parent=bytes(16), tail=b""):
        label = f.little(len(record.label), 2) + record.label
        return bytes([purpose]) + f.little(generation, 8) + random + parent + label + tail

    yield forgery(whole, objects, key, body(purpose=9), "an unknown purpose")
    yield forgery(whole, objects, key, body(generation=record.generation + 1), "another generation")
    yield forgery(whole, objects, key, body(parent=bytes(15) + b"\1"), "a parent")
    yield forgery(whole, objects, key, body(tail=b"\1"), "a byte after its body")
    yield forgery(whole, objects, key, body(tail=bytes(256)), "too much padding")
    if session.packs:
        pack = session.packs[min(session.packs)][0].text
        yield forgery(whole, objects, key, body(random=bytes(32)), "another random", pack)


def forged_indices(whole, objects, session, key):
    random, packs = session.index.random, session.index.packs

    def body(packs, random=random):
        return random + f.little(len(packs), 4) + b"".join(map(index_entry, packs))

    def changed(**fields):
        return [packs[0]._replace(**fields)] + packs[1:]

    first = f.pack_key(session.id, packs[0].n, packs[0].number)
    entries = packs[0].entries
    yield forgery(whole, objects, key, body(packs, bytes(32)), "another random")
    yield forgery(whole, objects, key, body(packs[:-1] or packs * 2), "other packs")
    yield forgery(whole, objects, key, body(packs[::-1] + packs[:1]), "packs in no order")
    yield forgery(whole, objects, key, body(changed(commitment=bytes(32))), "another commitment", first)
    yield forgery(whole, objects, key, body(changed(length=packs[0].length + 4096)), "another length", first)
    yield forgery(whole, objects, key, body(changed(entries=entries[:-1] or entries * 2)), "other chunks", first)
    other = f.pack_key(session.id, packs[0].n, 33 - packs[0].number)
    yield forgery(whole, objects, key, body(changed(number=33 - packs[0].number)), "another type", other)


def forged_ends(whole, objects, session, key):
    end = session.ends[key]

    def body(outcome=1, generation=end.generation, sequence=end.sequence, root=end.root, packs=end.packs,
             summary=end.summary):
        return (bytes([outcome]) + f.little(generation, 8) + f.little(sequence, 8) + root + f.little(packs, 4)
                + f.little(len(summary), 4) + summary)

    index = f"index/{session.id.hex()}"
    yield forgery(whole, objects, key, body(outcome=9), "an unknown outcome")
    yield forgery(whole, objects, key, body(generation=end.generation + 1), "another generation")
    yield forgery(whole, objects, key, body(root=bytes(32)), "a root that nobody has")
    yield forgery(whole, objects, key, body(packs=end.packs + 1), "one pack more", index)
    if not whole.collected:
        yield forgery(whole, objects, key, body(sequence=end.sequence + 10**6), "a sequence far ahead",
                      f"end/{key.cluster.hex()}/")
    yield forgery(whole, objects, key, body(summary=b"{}"), "another summary")
    some = next(chunk for chunk, places in whole.places.items() if places[0].pack.kind.name == "data")
    yield forgery(whole, objects, key, body(root=some), "a root that is no manifest")


# Format 2

def names(packs):
    """A list of packs."""
    return f.little(len(packs), 4) + b"".join(pack.session + f.little(pack.n, 4) + bytes([pack.number]) for pack in packs)


def sessions(ids):
    """A list of sessions."""
    return f.little(len(ids), 4) + b"".join(ids)


ONE, TWO = (f.PackName(STRANGER, n, 16) for n in (1, 2))
BAD_REASON = f.little(1, 2) + b"\xff"
FORGED_BODIES = {
    "plan": ((sessions([]) + names([TWO, ONE]), "packs in no order"),
             (sessions([STRANGER] * 2) + names([]), "one session twice"),
             (sessions([]) + names([ONE._replace(number=18)]), "a pack of another type")),
    "final": ((names([ONE, ONE]), "one pack twice"), (names([]) + b"\1", "a byte after its body")),
    "run": ((sessions([]) + f.little(1, 4) + bytes([3]) + bytes(24), "a part of another kind"),
            (sessions([]) + f.little(2, 4), "parts that are not there")),
    "pin": ((BAD_REASON, "a reason that is not UTF-8"),),
    "keeper": ((bytes(32) + b"\1", "a byte after its body"),),
    "mend-index": ((bytes(32) + f.little(1, 4), "a pack that is not there"),),
    "mend-pack": ((BAD_REASON, "a reason that is not UTF-8"),),
}


def forged_runs(whole, objects, key):
    def body(live=(), parts=()):
        found = [(kind, int(name[12:-33]), bytes.fromhex(name[-32:])) for kind, name, _ in whole.parts] + list(parts)
        return (sessions(sorted([*whole.live, *live])) + f.little(len(found), 4)
                + b"".join(bytes([kind]) + f.little(n, 8) + random for kind, n, random in found))

    stranger = STRANGER.hex()
    yield forgery(whole, objects, key, body(live=[STRANGER]), "a session that is not there", f"end/…/{stranger}")
    part = f"index/parts/{whole.run}-{stranger}"
    yield forgery(whole, objects, key, body(parts=[(f.PACKS, whole.run, STRANGER)]), "a part that is not there", part)


def forged_parts(whole, objects):
    for kind, name, pairs in whole.parts:
        key, (session, content) = f.parse_key(name), pairs[0]
        if kind == f.RELIED:
            body = f.little(1, 4) + session + names([TWO, ONE])
            yield forgery(whole, objects, key, body, "packs in no order")
            continue
        pack = content.packs[0]
        longer = index_entry(pack._replace(length=pack.length + 4096))
        body = f.little(1, 4) + session + content.random + f.little(1, 4) + longer
        where = f.pack_key(session, pack.n, pack.number)
        yield forgery(whole, objects, key, body, "a pack of another length", where)


if __name__ == "__main__":
    sys.exit(main())
