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
    """One object of every kind, and one end record of every outcome."""
    chosen = {}
    for key in whole.objects:
        outcome = None
        if key.kind.name == "end":
            outcome = whole.sessions[key.session].ends[key].outcome
        if key.kind.name != "probe":
            chosen.setdefault((key.kind.name, outcome), key)
    return list(chosen.values())


# A flipped byte in every region

def flips(objects, whole):
    for key in examples(whole):
        data = objects[key.text]
        for name, start, end in regions(whole, key, data):
            start, end = start % len(data), (end % len(data)) or len(data)
            for at in sorted({start, (start + end) // 2, end - 1}):
                yield flip(key.text, data, at, name)
    for key in whole.objects:
        if key.kind.name != "probe":
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
    for session in whole.sessions.values():
        for kind in ("data", "meta"):
            for key in session.keys.get(kind, ()) if session.index else ():
                yield Fault(f"{key.text} is gone", {key.text: None}, {key.text})
        if session.committed:
            for key in session.keys.get("index", ()):
                yield Fault(f"{key.text} is gone", {key.text: None}, {key.text})
            for key in session.keys.get("open", ()):
                end = session.committed[0].text
                yield Fault(f"{key.text} is gone", {key.text: None}, {end})
    for before, gone, after in neighbours(whole):
        key = gone.committed[0]
        yield Fault(f"{key.text} is gone", {key.text: None}, {f"end/{key.cluster.hex()}/"})
    for folder in ("format/", "keys/"):
        yield Fault(f"{folder} is gone", {key: None for key in objects if key.startswith(folder)}, {folder})


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
    stranger = bytes(range(16)).hex()
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
    if key.kind.name in ("data", "meta"):
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
        if key.kind.name == "beat":
            yield f"beat/{session}/{key.n + 1000}"


# Pairs that changed places

def swaps(objects, whole):
    kinds = {}
    for key in whole.objects:
        if key.kind.name not in ("format", "slot", "probe"):
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
        elif key.kind.name == "index":
            yield from forged_indices(whole, objects, session, key)
        elif key.kind.name == "end" and session.ends[key].outcome == f.COMMITTED:
            yield from forged_ends(whole, objects, session, key)


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
    yield forgery(whole, objects, key, body(outcome=3), "an unknown outcome")
    yield forgery(whole, objects, key, body(generation=end.generation + 1), "another generation")
    yield forgery(whole, objects, key, body(root=bytes(32)), "a root that nobody has")
    yield forgery(whole, objects, key, body(packs=end.packs + 1), "one pack more", index)
    yield forgery(whole, objects, key, body(sequence=end.sequence + 10**6), "a sequence far ahead",
                  f"end/{key.cluster.hex()}/")
    yield forgery(whole, objects, key, body(summary=b"{}"), "another summary")
    some = next(chunk for chunk, places in whole.places.items() if places[0].pack.kind.name == "data")
    yield forgery(whole, objects, key, body(root=some), "a root that is no manifest")


if __name__ == "__main__":
    sys.exit(main())
