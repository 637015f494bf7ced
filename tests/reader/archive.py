"""What the chunks of a saved cluster hold: docs/format-archive.md.

Walks the trees and gives Kubernetes objects. Knows of the repository only that it
gives a chunk for an id. A part that cannot be read is reported and passed over, so
that one damaged pack never hides the rest.
"""

import json
import re
from collections import namedtuple

from blake3 import blake3

from repo_format import CHUNK_BYTES_MAX, Cursor, Damaged, require, text

SECRET = b"lifebuoy archive: secret of the boundaries, version 1"
LEVEL_MAX = 12
TEXT_BYTES_MAX = 4096

Item = namedtuple("Item", "namespace name stable volatile")
Segment = namedtuple("Segment", "stable volatile entries")
SegmentEntry = namedtuple("SegmentEntry", "key stable volatile hash")
Child = namedtuple("Child", "first objects node")


class Number(str):
    """A number of a JSON text, kept as it was written."""


def parse_json(data, what):
    try:
        value = json.loads(data.decode(), parse_int=Number, parse_float=Number, parse_constant=_refuse)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is not JSON: {error}") from None
    require(isinstance(value, dict), f"{what} is not a JSON object")
    return value


def field(value, name, of, absent=None):
    """A field of the given type. Integers are numbers from 0 up."""
    found = value.get(name, absent)
    if of is int and isinstance(found, Number) and found.isdecimal():
        return int(found)
    require(isinstance(found, of) and not isinstance(found, Number), f"the manifest has a wrong {name}")
    return found


def _refuse(word):
    raise ValueError(f"{word} is not a JSON value")


def rendered(value, ordered=iter):
    """JSON without spaces, fields in their order, and numbers as they were written."""
    if isinstance(value, dict):
        fields = (f"{rendered(key)}:{rendered(value[key], ordered)}" for key in ordered(value))
        return "{" + ",".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(rendered(item, ordered) for item in value) + "]"
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def canonical(value):
    """As `rendered`, with the fields ordered by the bytes of their names."""
    return rendered(value, lambda fields: sorted(fields, key=str.encode))


# Keys and numbers

def order(key):
    """Keys are ordered by the bytes of `namespace` `/` `name`."""
    return key[0].encode() + b"/" + key[1].encode()


def leb128(cursor):
    value = shift = 0
    while True:
        byte = cursor.u8()
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        require(shift < 70, "a node has a number of more than 64 bits")
    require(value < 2**64, "a node has a number of more than 64 bits")
    require(byte or not shift, "a node has a number that is not in its shortest form")
    return value


def read_text(cursor):
    length = leb128(cursor)
    require(length <= TEXT_BYTES_MAX, "a node has a text of more than 4,096 bytes")
    return text(cursor.take(length))


def read_key(cursor):
    return read_text(cursor), read_text(cursor)


# Nodes

def read_node(data):
    """The level of a node and its items, each checked by itself and in its order."""
    cursor = Cursor(data)
    version, level, count = cursor.u8(), cursor.u8(), leb128(cursor)
    require(version == 1, f"a node has version {version}")
    require(level <= LEVEL_MAX, f"a node has level {level}")
    require(count >= 1, "a node has no item")
    items = []
    for _ in range(count):
        items.append(_segment(cursor) if level == 0 else
                     Child(read_key(cursor), leb128(cursor), cursor.take(32)))
    require(not cursor.rest(), "a node has bytes after its last item")
    keys = [entry.key for item in items for entry in item.entries] if level == 0 else [
        item.first for item in items]
    for before, after in zip(keys, keys[1:]):
        require(order(before) < order(after), "the keys of a node do not rise")
    return level, items, keys[0], keys[-1]


def _segment(cursor):
    stable, volatile, count = cursor.take(32), cursor.take(32), leb128(cursor)
    require(count >= 1, "a segment has no entry")
    entries = []
    for _ in range(count):
        key, sizes = read_key(cursor), (leb128(cursor), leb128(cursor))
        entries.append(SegmentEntry(key, *sizes, cursor.take(16)))
    return Segment(stable, volatile, entries)


class Type:
    """A type of the manifest."""

    def __init__(self, entry):
        require(isinstance(entry, dict), "the manifest has a type that is no JSON object")
        self.group, self.resource = field(entry, "group", str, ""), field(entry, "resource", str)
        self.version, self.kind = field(entry, "version", str), field(entry, "kind", str)
        self.objects, self.bytes = field(entry, "objects", int, 0), field(entry, "bytes", int, 0)
        self.namespaced = field(entry, "namespaced", bool, False)
        fidelity = field(entry, "fidelity", dict)
        self.state = field(fidelity, "state", str)
        tree = field(entry, "tree", str, "")
        require(re.fullmatch("([0-9a-f]{64})?", tree), "the manifest has a tree that is no chunk id")
        self.tree = bytes.fromhex(tree) or None
        # `group.resource`; the core group has no name.
        self.name = f"{self.group}.{self.resource}" if self.group else self.resource
        self.api_version = f"{self.group}/{self.version}" if self.group else self.version


class Volume:
    """A claim whose data was saved: a snapshot of files or of a device, or nothing here, where
    the data is a snapshot of its storage system (`root` is None)."""

    def __init__(self, entry):
        require(isinstance(entry, dict), "the manifest has a volume that is no JSON object")
        claim, saved = field(entry, "claim", dict), field(entry, "saved", dict)
        self.name = f"{field(claim, 'namespace', str, '')}/{field(claim, 'name', str)}"
        if field(saved, "way", str) == "Snapshot":
            for name in ("driver", "handle", "snapshotClass"):
                require(field(saved, name, str), f"the manifest has a kept snapshot without a {name}")
            self.root = None
            return
        root = field(saved, "root", str)
        require(re.fullmatch("[0-9a-f]{64}", root), "the manifest has a volume whose root is no chunk id")
        self.root = bytes.fromhex(root)


class Archive:
    """One snapshot. `chunk(id)` gives bytes or raises `Damaged`; problems go to `report`."""

    def __init__(self, chunk, root, hash_key, report):
        self.chunk, self.hash_key, self.report = chunk, hash_key, report
        self.manifest = parse_json(chunk(root), "the manifest")
        version = self.manifest.get("version")
        require(version in ("1", "2", "3"), f"the manifest has version {version}")
        saved = [Volume(a) for a in field(self.manifest, "volumesSaved", list, [])]
        self.volumes = [volume for volume in saved if volume.root is not None]
        expected = "3" if len(self.volumes) < len(saved) else "2" if saved else "1"
        require(version == expected, f"a manifest of version {version} has volumes of version {expected}")

    def types(self):
        types = [Type(a) for a in field(self.manifest, "types", list, [])]
        pairs = [(a.group, a.resource) for a in types]
        require(pairs == sorted(set(pairs)), "the types of the manifest are not in order")
        return types

    def objects(self, kind):
        """Every object of a type that can be read, in order."""
        seen = size = 0
        if kind.tree is not None:
            for item in self._walk(kind.name, kind.tree, LEVEL_MAX + 1, None, None):
                seen, size = seen + 1, size + len(item.stable) + len(item.volatile)
                yield item
        if (seen, size) != (kind.objects, kind.bytes):
            self.report(f"{kind.name}: {seen} objects in {size} bytes instead of "
                        f"{kind.objects} in {kind.bytes}")

    def _walk(self, name, node_id, above, low, high):
        """All objects below a node whose keys are from `low` (exactly) to below `high`."""
        try:
            level, items, first, last = read_node(self.chunk(node_id))
            require(level < above, "a node is not below its parent")
            require(low in (None, first), "a node does not begin with the key that its parent names")
            require(high is None or order(last) < order(high), "a node reaches into the next one")
        except Damaged as damage:
            self.report(f"{name}: a node of the tree cannot be read: {damage}")
            return
        if level == 0:
            for segment in items:
                yield from self._segment(name, segment)
            return
        for at, child in enumerate(items):
            end = items[at + 1].first if at + 1 < len(items) else high
            below = 0
            for item in self._walk(name, child.node, level, child.first, end):
                below += 1
                yield item
            if below != child.objects:
                self.report(f"{name}: {below} objects below {label(child.first)} instead of {child.objects}")

    def _segment(self, name, segment):
        try:
            stable, volatile = Cursor(self.chunk(segment.stable)), Cursor(self.chunk(segment.volatile))
            sizes = sum(e.stable for e in segment.entries), sum(e.volatile for e in segment.entries)
            require(sizes == (len(stable.data), len(volatile.data)), "its columns have another length")
            require(max(sizes) <= CHUNK_BYTES_MAX, "its columns are longer than a chunk")
        except Damaged as damage:
            lost = ", ".join(label(entry.key) for entry in segment.entries)
            self.report(f"{name}: cannot read {lost}: {damage}")
            return
        for entry in segment.entries:
            columns = stable.take(entry.stable), volatile.take(entry.volatile)
            if blake3(columns[0], key=self.hash_key).digest()[:16] != entry.hash:
                self.report(f"{name}: {label(entry.key)} is not what its hash says")
            yield Item(*entry.key, *columns)


def label(key):
    return f"{key[0]}/{key[1]}" if key[0] else key[1]


def merged(item):
    """The whole object: the stable column with the fields of the volatile one put back.

    Raises `Damaged` if the columns are not such parts, or the object has another key.
    """
    whole, volatile = parse_json(item.stable, "the stable column"), parse_json(item.volatile, "the volatile column")
    metadata = whole.get("metadata")
    require(isinstance(metadata, dict), "the stable column has no metadata")
    key = metadata.get("namespace", ""), metadata.get("name")
    require(key == (item.namespace, item.name), f"the object calls itself {key[0]}/{key[1]}")
    for field, value in volatile.items():
        require(field in ("resourceVersion", "managedFields", "status"), f"the volatile column has {field}")
        owner = whole if field == "status" else metadata
        require(field not in owner, f"both columns have {field}")
        owner[field] = value
    return whole


def secret_key(keys, use):
    """K₁ is for b"cut", K₂ for b"object"."""
    return blake3(b"lifebuoy archive: " + use, key=keys.id_of(SECRET)).digest()
