"""What the chunks of saved files and devices hold: docs/format-data.md.

Walks trees and maps, and gives entries and bytes. Knows of the repository only that
it gives a chunk for an id. A part that cannot be read is reported and passed over, so
that one damaged pack never hides the rest.
"""

import re
from collections import OrderedDict, namedtuple

from blake3 import blake3

from archive import field, leb128, parse_json
from repo_format import CHUNK_BYTES_MAX, Cursor, Damaged, require

SECRET = b"lifebuoy data: secret of the boundaries, version 1"
BEGINNING = b'{"data":1,'
LEVEL_MAX = 12
PATH_BYTES_MAX, PATH_NAMES_MAX, NAME_BYTES_MAX = 65_535, 4096, 255
LEAF_PATH_BYTES_MAX = 4 << 20
TEXT_BYTES_MAX = 1 << 20
SIZE_MAX = 1 << 63
PROBLEMS_MAX = 1000
DIRECTORY, FILE, SYMLINK, FIFO, SOCKET, CHARACTERS, BLOCKS, HARD_LINK = range(1, 9)
KINDS = {DIRECTORY: "directory", FILE: "file", SYMLINK: "symbolic link", FIFO: "FIFO", SOCKET: "socket",
         CHARACTERS: "character device", BLOCKS: "block device", HARD_LINK: "hard link"}
# Chunks are often those of the entry before: many small files are in one.
CHUNKS_IN_MEMORY = 4

# `modified` is a pair of seconds and nanoseconds. `attributes` are pairs of name and
# value, or the id of the chunk that holds them. `body` is a `File`, what a symbolic
# link says, the path of which a hard link is another name, or major and minor.
Entry = namedtuple("Entry", "path kind mode uid gid modified stamp attributes body")
Child = namedtuple("Child", "first entries node")
File = namedtuple("File", "size content")
# Content is one of these, a list of extents, or None for nothing but zeros.
Shared = namedtuple("Shared", "chunk offset hash")
Map = namedtuple("Map", "root")
Extent = namedtuple("Extent", "gap length chunk")


def hash_key(keys):
    """K₂, the key of the hashes of small files."""
    return blake3(b"lifebuoy data: content", key=keys.id_of(SECRET)).digest()


# Numbers, texts and paths

def signed(cursor):
    number = leb128(cursor)
    return -(number + 1) // 2 if number % 2 else number // 2


def u32(cursor):
    number = leb128(cursor)
    require(number < 2**32, "a node has an owner or device of more than 32 bits")
    return number


def read_text(cursor, limit=TEXT_BYTES_MAX):
    length = leb128(cursor)
    require(length <= limit, f"a node has a text of more than {limit} bytes")
    return cursor.take(length)


def check_path(path):
    if not path:
        return path
    require(len(path) <= PATH_BYTES_MAX, "a path is too long")
    names = path.split(b"/")
    require(len(names) <= PATH_NAMES_MAX, "a path has too many names")
    for name in names:
        good = 1 <= len(name) <= NAME_BYTES_MAX and name not in (b".", b"..") and b"\0" not in name
        require(good, f"a path has the name {name!r}")
    return path


def read_path(cursor):
    return check_path(read_text(cursor, PATH_BYTES_MAX))


def order(path):
    """Paths are ordered by their bytes, `/` below all others; none has a zero."""
    return path.replace(b"/", b"\0")


def above(path):
    """The directories that a path is in, the innermost first; the last is the empty path."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


# Nodes

def read_node(data):
    """The level of a node of the tree, and its entries or children."""
    cursor, level = _header(data)
    items = _children(cursor) if level else _leaf(cursor)
    require(not cursor.rest(), "a node has bytes after its last item")
    paths = [item.first if level else item.path for item in items]
    for before, after in zip(paths, paths[1:]):
        require(order(before) < order(after), "the paths of a node do not rise")
    return level, items


def read_map(data):
    """The level of a map, its items, and the position where the last one ends."""
    cursor, level = _header(data)
    count, items, end = leb128(cursor), [], 0
    require(count >= 1, "a map has no item")
    for _ in range(count):
        gap, length, chunk = leb128(cursor), leb128(cursor), cursor.take(32)
        end = _end(end, gap, length)
        require(level or length <= CHUNK_BYTES_MAX, "a map has a chunk that is longer than chunks are")
        items.append(Extent(gap, length, chunk))
    require(not cursor.rest(), "a map has bytes after its last item")
    return level, items, end


def _header(data):
    cursor = Cursor(data)
    version, level = cursor.u8(), cursor.u8()
    require(version == 1, f"a node has version {version}")
    require(level <= LEVEL_MAX, f"a node has level {level}")
    return cursor, level


def _end(before, gap, length):
    require(length >= 1, "an extent is empty")
    require(before + gap + length < SIZE_MAX, "an extent ends at 2⁶³ or later")
    return before + gap + length


def _children(cursor):
    count = leb128(cursor)
    require(count >= 1, "a node has no item")
    return [Child(read_path(cursor), leb128(cursor), cursor.take(32)) for _ in range(count)]


def _leaf(cursor):
    maps, chunks = _ids(cursor), _ids(cursor)
    count, entries, before, total = leb128(cursor), [], b"", 0
    require(count >= 1, "a node has no item")
    for _ in range(count):
        shared = leb128(cursor)
        require(shared <= len(before), "a path shares more than the one before it has")
        before = check_path(before[:shared] + read_text(cursor, PATH_BYTES_MAX))
        total += len(before)
        require(total <= LEAF_PATH_BYTES_MAX, "the paths of a leaf are too long together")
        entries.append(_entry(cursor, before, maps, chunks))
    return entries


def _ids(cursor):
    return [cursor.take(32) for _ in range(leb128(cursor))]


def _entry(cursor, path, maps, chunks):
    kind, mode = cursor.u8(), leb128(cursor)
    require(kind in KINDS, f"an entry is of an unknown kind {kind}")
    require(mode <= 0o7777, "an entry has a mode of more than 12 bits")
    uid, gid, seconds, nanoseconds = u32(cursor), u32(cursor), signed(cursor), leb128(cursor)
    require(nanoseconds < 10**9, "an entry has more nanoseconds than a second")
    stamp = cursor.take(8)
    form = cursor.u8()
    require(form <= 2, f"an entry has attributes in an unknown form {form}")
    attributes = [] if form == 0 else _attributes(cursor) if form == 1 else _numbered(cursor, chunks)
    body = _body(cursor, kind, maps, chunks)
    return Entry(path, kind, mode, uid, gid, (seconds, nanoseconds), stamp, attributes, body)


def _attributes(cursor):
    pairs = []
    for _ in range(leb128(cursor)):
        name, value = read_text(cursor), read_text(cursor)
        require(name and b"\0" not in name, f"an attribute has the name {name!r}")
        require(not pairs or name > pairs[-1][0], "the attributes of an entry are not in order")
        pairs.append((name, value))
    return pairs


def _body(cursor, kind, maps, chunks):
    if kind == FILE:
        size = leb128(cursor)
        require(size < SIZE_MAX, "a file has a size of 2⁶³ or more")
        return File(size, _content(cursor, size, maps, chunks))
    if kind == SYMLINK:
        target = read_text(cursor)
        require(target and b"\0" not in target, f"a symbolic link says {target!r}")
        return target
    if kind in (CHARACTERS, BLOCKS):
        return u32(cursor), u32(cursor)
    return read_path(cursor) if kind == HARD_LINK else None


def _content(cursor, size, maps, chunks):
    form = cursor.u8()
    require(form <= 3, f"a file has content in an unknown form {form}")
    if form == 0:
        return None
    if form == 1:
        return Shared(_numbered(cursor, chunks), leb128(cursor), cursor.take(16))
    if form == 3:
        return Map(_numbered(cursor, maps))
    extents, end = [], 0
    for _ in range(leb128(cursor)):
        gap, length = leb128(cursor), leb128(cursor)
        end = _end(end, gap, length)
        extents.append(Extent(gap, length, _numbered(cursor, chunks)))
    require(end <= size, "a file has extents that end behind it")
    return extents


def _numbered(cursor, ids):
    number = leb128(cursor)
    require(number < len(ids), "an entry names a chunk that is not in its leaf")
    return ids[number]


# Snapshots

def is_one(root):
    """Whether a root chunk, or a summary, is of files or a device, in whatever version."""
    return root.startswith(b'{"data":')


class Snapshot:
    """One snapshot of files or a device. `chunk(id)` gives bytes or raises `Damaged`;
    problems go to `report`.
    """

    def __init__(self, chunk, root, key, report):
        self._fetch, self._key, self.report = chunk, key, report
        self._memory = OrderedDict()
        plain = chunk(root)
        require(plain.startswith(BEGINNING), "the manifest is of another version")
        self.manifest = parse_json(plain, "the manifest")
        self.summary = field(self.manifest, "summary", dict)
        require(field(self.summary, "data", int) == 1, "the summary is of another version")
        kind = field(self.summary, "kind", str)
        require(kind in ("Files", "Device"), f"the summary names an unknown kind {kind}")
        self.is_device = kind == "Device"
        self.entry_count, self.bytes = (field(self.summary, name, int) for name in ("entries", "bytes"))
        for name in ("host", "path", "takenAt"):
            field(self.summary, name, str)
        tree = field(self.manifest, "tree", str, "")
        require(re.fullmatch("([0-9a-f]{64})?", tree), "the manifest has a tree that is no chunk id")
        self.tree = bytes.fromhex(tree) or None
        self.block_bytes = field(self.manifest, "blockBytes", int) if "blockBytes" in self.manifest else None
        require(self.is_device == bool(self.block_bytes), "a device is cut into blocks, and nothing else is")
        require(self.is_device or self.tree, "the manifest has no tree")
        self._check_problems()

    def _check_problems(self):
        listed, stated = field(self.manifest, "problems", list, []), field(self.summary, "problems", int)
        for problem in listed:
            require(isinstance(problem, dict), "the manifest has a problem that is no JSON object")
            field(problem, "path", str), field(problem, "what", str)
        require(len(listed) == min(stated, PROBLEMS_MAX), f"the manifest lists {len(listed)} problems of {stated}")

    def _chunk(self, chunk_id):
        if chunk_id not in self._memory:
            self._memory[chunk_id] = self._fetch(chunk_id)
            if len(self._memory) > CHUNKS_IN_MEMORY:
                self._memory.popitem(last=False)
        return self._memory[chunk_id]

    # The tree

    def entries(self):
        """Every entry that can be read and is where it may be, in order."""
        kinds, count, size = {}, 0, 0
        for entry in self._walk(self.tree, LEVEL_MAX + 1, b"", None):
            count += 1
            if entry.kind == FILE:
                size += entry.body.size
            directory = next(above(entry.path), None)
            try:
                _check_place(entry, kinds)
                if directory not in kinds and directory is not None:
                    self.report(f"{label(entry.path)}: is in no directory that came before it")
                yield entry
            except Damaged as damage:
                self.report(f"{label(entry.path)}: {damage}")
            kinds[entry.path] = entry.kind
        if (count, size) != (self.entry_count, self.bytes):
            self.report(f"{count} entries with {size} bytes instead of {self.entry_count} with {self.bytes}")

    def _walk(self, node_id, level_above, low, high):
        """All entries below a node whose paths are from `low` (exactly) to below `high`."""
        try:
            level, items = read_node(self._chunk(node_id))
            paths = [item.first if level else item.path for item in items]
            require(level < level_above, "a node is not below its parent")
            require(paths[0] == low, "a node does not begin with the path that it should")
            require(high is None or order(paths[-1]) < order(high), "a node reaches into the next one")
        except Damaged as damage:
            self.report(f"a node of the tree, from {label(low)} on, cannot be read: {damage}")
            return
        if level == 0:
            yield from items
            return
        for at, child in enumerate(items):
            end = items[at + 1].first if at + 1 < len(items) else high
            below = 0
            for entry in self._walk(child.node, level, child.first, end):
                below += 1
                yield entry
            if below != child.entries:
                self.report(f"{below} entries from {label(child.first)} on instead of {child.entries}")

    def attributes(self, entry):
        """Pairs of name and value; none, and a report, if they cannot be read."""
        if isinstance(entry.attributes, list):
            return entry.attributes
        try:
            cursor = Cursor(self._chunk(entry.attributes))
            pairs = _attributes(cursor)
            require(not cursor.rest(), "it has bytes after the last attribute")
            return pairs
        except Damaged as damage:
            self.report(f"{label(entry.path)}: its attributes cannot be read: {damage}")
            return []

    # Contents

    def pieces(self, entry):
        """Positions and bytes of a file, in order; between and after them are zeros."""
        where, (size, content) = label(entry.path), entry.body
        if isinstance(content, Shared):
            yield from self._shared(where, size, content)
        elif isinstance(content, Map):
            yield from self._map(where, content.root, LEVEL_MAX + 1, 0, size)
        else:
            yield from self._extents(where, 0, content or ())

    def blocks(self):
        """Positions and bytes of a device, in order; between and after them are zeros."""
        if self.tree:
            yield from self._map("the device", self.tree, LEVEL_MAX + 1, 0, self.bytes)

    def _shared(self, where, size, content):
        try:
            segment = self._chunk(content.chunk)
            plain = segment[content.offset:content.offset + size]
            require(len(plain) == size, "it reaches beyond its segment")
            yield 0, plain
            if blake3(plain, key=self._key).digest()[:16] != content.hash:
                self.report(f"{where}: is not what its hash says")
        except Damaged as damage:
            self.report(f"{where}: cannot be read: {damage}")

    def _extents(self, where, at, extents):
        for gap, length, chunk_id in extents:
            at += gap
            try:
                plain = self._chunk(chunk_id)
                require(len(plain) == length, f"its chunk has {len(plain)} bytes instead of {length}")
                yield at, plain
            except Damaged as damage:
                self.report(f"{where}: {length} bytes at {at} cannot be read: {damage}")
            at += length

    def _map(self, where, map_id, level_above, at, length):
        """What a map gives that begins at a position and may be so long."""
        try:
            level, items, end = read_map(self._chunk(map_id))
            require(level < level_above, "a map is not below its parent")
            require(end <= length, f"a map has {end} bytes instead of {length}")
        except Damaged as damage:
            self.report(f"{where}: {length} bytes at {at} cannot be read: {damage}")
            return
        if level == 0:
            yield from self._extents(where, at, items)
            return
        for gap, below, chunk_id in items:
            at += gap
            yield from self._map(where, chunk_id, level, at, below)
            at += below


def _check_place(entry, kinds):
    """Where an entry is, given the kinds of those before it. What a directory holds that
    could not be read is where it may be.
    """
    for path in above(entry.path):
        require(kinds.get(path, DIRECTORY) == DIRECTORY, f"is in {label(path)}, which is no directory")
    if entry.kind == HARD_LINK:
        first = kinds.get(entry.body, DIRECTORY)
        require(first not in (DIRECTORY, HARD_LINK), f"is another name of {label(entry.body)}, which has no other names")


def label(path):
    """A path in words: as UTF-8, with `%` and bytes that are none as %XX."""
    decoded = path.replace(b"%", b"%25").decode(errors="surrogateescape")
    escaped = (f"%{ord(c) & 0xFF:02X}" if "\udc80" <= c <= "\udcff" else c for c in decoded)
    return "".join(escaped) or "."
