"""Packs and trees of `golden_writer.py`: section 7 of docs/format.md, and the
sections "Nodes" and "Where things are cut" of docs/format-archive.md.
"""

import json
from collections import namedtuple

import zstandard
from blake3 import blake3

import repo_format as f
from archive import SECRET, order

SEGMENT_BYTES_MAX, SEGMENT_OBJECTS_MAX, SEGMENT_RANK = 1 << 20, 1024, 5
NODE_ITEMS_MAX, LEAF_OBJECTS_MAX, RANK_PER_LEVEL = 128, 4096, 5
# Smaller than the format allows, so that small tests have many packs.
PACK_TARGET_BYTES = 64 * 1024

Object = namedtuple("Object", "key rank stable volatile hash")
Branch = namedtuple("Branch", "first rank objects encoded")


class ChunkSink:
    """Stores chunks that the repository does not have, in packs of one session."""

    def __init__(self, keys, session, random, known, store):
        self.keys, self.session, self.random = keys, session, random
        self.known, self.store = known, store
        self.waiting = {16: [], 17: []}
        self.packs = []

    def boundaries(self):
        """S: whoever cuts needs this chunk's id, and nobody needs to store it."""
        return self.keys.id_of(SECRET)

    def put(self, number, plain):
        chunk = self.keys.id_of(plain)
        if chunk in self.known:
            return chunk
        self.known.add(chunk)
        encoded, codec = zstandard.ZstdCompressor(level=3).compress(plain), 1
        if len(encoded) >= len(plain):
            encoded, codec = plain, 0
        entry = f.Entry(chunk, codec, len(plain), len(encoded) + f.TAG)
        self.waiting[number].append((entry, encoded))
        if sum(entry.stored for entry, _ in self.waiting[number]) >= PACK_TARGET_BYTES:
            self._write_pack(number)
        return chunk

    def finish(self):
        for number in (16, 17):
            if self.waiting[number]:
                self._write_pack(number)
        return self.packs

    def _write_pack(self, number):
        chunks, self.waiting[number] = self.waiting[number], []
        n = len(self.packs)
        key = f.parse_key(f.pack_key(self.session, n, number))
        triple = self.keys.pack_triple(self.random, n, number)
        data = f.header(number) + self.random
        for position, (entry, encoded) in enumerate(chunks):
            data += self._seal(triple, key, position, entry, encoded)
        entries = [entry for entry, _ in chunks]
        plain = f.little(len(entries), 4) + b"".join(map(f.write_entry, entries))
        plain += bytes(-(len(data) + len(plain) + f.TAG + f.PACK_FOOTER) % f.PACK_PADDING)
        trailer = f.Entry(f.ZERO_ID, 0, len(plain), len(plain) + f.TAG)
        data += self._seal(triple, key, f.TRAILER, trailer, plain)
        data += f.little(trailer.stored, 4) + triple.commitment
        data += blake3(data).digest()
        if not self.store.create(key.text, data):
            raise ValueError(f"{key.text} exists: the session id was used before")
        self.packs.append(f.IndexedPack(n, number, len(data), triple.commitment, entries))

    def _seal(self, triple, key, position, entry, plain):
        nonce = f.pack_nonce(triple, position, entry.id, entry.stored)
        aad = f.pack_aad(self.keys.repository, key, position, entry)
        return triple.aead.encrypt(nonce, plain, aad)


def save_type(sink, secret, kind):
    """Stores the objects of one type. Gives its entry of the manifest."""
    cut, hashing = (blake3(b"lifebuoy archive: " + use, key=secret).digest() for use in (b"cut", b"object"))
    objects = [_object(kind, whole, cut, hashing) for whole in kind["objects"]]
    objects.sort(key=lambda each: order(each.key))
    entry = {
        "group": kind.get("group", ""),
        "version": kind["version"],
        "servedVersions": [kind["version"]],
        "kind": kind["kind"],
        "resource": kind["resource"],
        "namespaced": kind["namespaced"],
        "fidelity": {"state": "exact"},
        "resourceVersion": "1",
        "objects": len(objects),
        "bytes": sum(len(each.stable) + len(each.volatile) for each in objects),
    }
    if objects:
        entry["tree"] = _tree(sink, objects).hex()
    return entry


def _object(kind, whole, cut, hashing):
    stable, volatile = dict(whole), {}
    stable["metadata"] = dict(whole["metadata"])
    for owner, field in ((stable["metadata"], "resourceVersion"), (stable["metadata"], "managedFields"),
                         (stable, "status")):
        if field in owner:
            volatile[field] = owner.pop(field)
    key = whole["metadata"].get("namespace", ""), whole["metadata"]["name"]
    parts = kind.get("group", ""), kind["resource"], *key
    named = b"".join(part.encode() + b"\0" for part in parts)
    first = int.from_bytes(blake3(named, key=cut).digest()[:8], "little")
    rank = (first & -first).bit_length() - 1 if first else 64
    columns = [json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode() for part in (stable, volatile)]
    return Object(key, rank, *columns, blake3(columns[0], key=hashing).digest()[:16])


def _tree(sink, objects):
    branches = [_segment(sink, run) for run in _segments(objects)]
    level = 0
    while True:
        nodes = [_node(sink, level, run) for run in _runs(level, branches)]
        if len(nodes) == 1:
            return nodes[0].encoded[-32:]
        branches, level = nodes, level + 1


def _segments(objects):
    run, size = [], 0
    for each in objects:
        length = len(each.stable) + len(each.volatile)
        full = size + length > SEGMENT_BYTES_MAX or len(run) == SEGMENT_OBJECTS_MAX
        if run and (each.rank >= SEGMENT_RANK or full):
            yield run
            run, size = [], 0
        run.append(each)
        size += length
    yield run


def _runs(level, branches):
    """The items of each node of a level."""
    run = []
    for branch in branches:
        full = len(run) == NODE_ITEMS_MAX
        if level == 0:
            full = full or sum(each.objects for each in run) + branch.objects > LEAF_OBJECTS_MAX
        if run and (branch.rank >= RANK_PER_LEVEL * (level + 2) or full):
            yield run
            run = []
        run.append(branch)
    yield run


def _segment(sink, run):
    encoded = (sink.put(16, b"".join(each.stable for each in run))
               + sink.put(16, b"".join(each.volatile for each in run)) + leb128(len(run)))
    for each in run:
        encoded += key_bytes(each.key) + leb128(len(each.stable)) + leb128(len(each.volatile)) + each.hash
    return Branch(run[0].key, run[0].rank, len(run), encoded)


def _node(sink, level, run):
    chunk = sink.put(17, bytes([1, level]) + leb128(len(run)) + b"".join(item.encoded for item in run))
    objects = sum(item.objects for item in run)
    return Branch(run[0].first, run[0].rank, objects, key_bytes(run[0].first) + leb128(objects) + chunk)


def key_bytes(key):
    return b"".join(leb128(len(part.encode())) + part.encode() for part in key)


def leb128(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
