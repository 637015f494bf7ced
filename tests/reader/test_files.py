"""Files and devices: the rules of docs/format-data.md, each kept and each broken."""

import hashlib
import json
import os
import stat
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

import files  # noqa: E402
import repo_format as f  # noqa: E402
from blake3 import blake3  # noqa: E402
from extract import described, extract  # noqa: E402
from golden_tree import leb128  # noqa: E402

KEY = bytes(32)
OWNER = os.geteuid(), os.getegid()
SUMMARY = {"data": 1, "kind": "Files", "host": "h", "path": "/p", "takenAt": "2026-01-01T00:00:00Z",
           "entries": 0, "bytes": 0, "problems": 0}


# What a writer writes

def text(data):
    return leb128(len(data)) + data


def entry(path, kind, body=b"", mode=0o644, modified=(5, 7), attributes=b"\0", shared=0):
    seconds = 2 * modified[0] if modified[0] >= 0 else -2 * modified[0] - 1
    return (leb128(shared) + text(path) + bytes([kind]) + leb128(mode) + leb128(OWNER[0]) + leb128(OWNER[1])
            + leb128(seconds) + leb128(modified[1]) + bytes(8) + attributes + body)


def directory(path, **more):
    return entry(path, files.DIRECTORY, mode=0o755, **more)


def leaf(*entries, maps=(), chunks=()):
    listed = b"".join(leb128(len(ids)) + b"".join(ids) for ids in (maps, chunks))
    return b"\1\0" + listed + leb128(len(entries)) + b"".join(entries)


def inner(level, *children):
    return bytes([1, level]) + leb128(len(children)) + b"".join(
        text(first) + leb128(entries) + node for first, entries, node in children)


def mapped(level, *items):
    return bytes([1, level]) + leb128(len(items)) + b"".join(
        leb128(gap) + leb128(length) + chunk for gap, length, chunk in items)


def file(size, content):
    return leb128(size) + content


def shared(chunk, offset, plain):
    return b"\1" + leb128(chunk) + leb128(offset) + blake3(plain, key=KEY).digest()[:16]


def extents(*found):
    return b"\2" + leb128(len(found)) + b"".join(map(leb128, (n for one in found for n in one)))


class Chunks:
    """What a snapshot is read from."""

    def __init__(self):
        self.plain, self.problems = {}, []

    def put(self, plain):
        chunk = hashlib.sha256(plain).digest()
        self.plain[chunk] = plain
        return chunk

    def get(self, chunk):
        f.require(chunk in self.plain, "it is not there")
        return self.plain[chunk]

    def snapshot(self, tree=None, manifest=None, **summary):
        manifest = {"data": 1, "summary": {**SUMMARY, **summary}, **(manifest or {})}
        if tree:
            manifest["tree"] = tree.hex()
        root = self.put(json.dumps(manifest, separators=(",", ":")).encode())
        return files.Snapshot(self.get, root, KEY, self.problems.append)

    def read(self, snapshot):
        """The paths that can be read, and all problems."""
        paths = []
        for found in snapshot.entries() if not snapshot.is_device else ():
            snapshot.attributes(found)
            list(snapshot.pieces(found)) if found.kind == files.FILE else None
            paths.append(found.path)
        list(snapshot.blocks()) if snapshot.is_device else None
        return paths, self.problems


class Refusing(unittest.TestCase):
    def refuse(self, data, why, parse=files.read_node):
        with self.assertRaisesRegex(f.Damaged, why):
            parse(data)


class Nodes(Refusing):
    one = b"\1" * 32
    every = leaf(
        directory(b"", modified=(-5, 999_999_999)),
        entry(b"a", files.FILE, file(9, shared(0, 3, b"")), attributes=b"\1\1" + text(b"user.a") + text(b"\0\xff")),
        entry(b"b", files.FILE, file(9, extents((1, 2, 1), (3, 3, 0)))),
        entry(b"c", files.FILE, file(9, b"\3\0"), attributes=b"\2\1"),
        entry(b"d", files.FILE, file(9, b"\0")),
        entry(b"e", files.SYMLINK, text(b"../x")),
        entry(b"f", files.FIFO),
        entry(b"g", files.SOCKET),
        entry(b"h", files.CHARACTERS, b"\1\2"),
        entry(b"i", files.BLOCKS, b"\3\4"),
        entry(b"/x", files.HARD_LINK, text(b"a"), shared=1),
        maps=[b"\3" * 32], chunks=[b"\1" * 32, b"\2" * 32])

    def test_every_kind_is_read(self):
        level, entries = files.read_node(self.every)
        self.assertEqual((level, len(entries)), (0, 11))
        self.assertEqual(entries[0].modified, (-5, 999_999_999))
        self.assertEqual(entries[1].attributes, [(b"user.a", b"\0\xff")])
        self.assertEqual(entries[1].body.content[:2], (self.one, 3))
        self.assertEqual(entries[2].body.content, [(1, 2, b"\2" * 32), (3, 3, self.one)])
        self.assertEqual(entries[3].body.content, files.Map(b"\3" * 32))
        self.assertEqual((entries[3].attributes, entries[4].body), (b"\2" * 32, (9, None)))
        self.assertEqual([one.body for one in entries[5:]], [b"../x", None, None, (1, 2), (3, 4), b"a"])
        self.assertEqual(entries[10].path, b"i/x")

    def test_what_ends_early_or_late_is_refused(self):
        for length in range(len(self.every)):
            self.refuse(self.every[:length], "ends too early")
        self.refuse(self.every + b"\0", "after its last item")
        for length in range(len(inner(1, (b"", 1, self.one)))):
            self.refuse(inner(1, (b"", 1, self.one))[:length], "ends too early")
            self.refuse(mapped(0, (0, 1, self.one))[:min(length, 36)], "ends too early", files.read_map)

    def test_headers(self):
        self.refuse(b"\2" + self.every[1:], "version 2")
        self.refuse(b"\1\x0d" + self.every[2:], "level 13")
        self.refuse(leaf(), "no item")
        self.refuse(inner(1), "no item")
        self.refuse(mapped(0), "no item", files.read_map)
        self.refuse(b"\1\0\x80\0", "shortest form")
        self.refuse(b"\1\0" + b"\xff" * 9 + b"\2", "more than 64 bits")

    def test_paths(self):
        for name in (b".", b"..", b"a/../b", b"/a", b"a/", b"a//b", b"a\0b", b"n" * 256, b"a/."):
            self.refuse(leaf(entry(name, files.FIFO)), "a path has the name")
            self.refuse(inner(1, (name, 1, self.one)), "a path has the name")
            self.refuse(leaf(entry(b"a", files.HARD_LINK, text(name))), "a path has the name")
        self.refuse(leaf(entry(b"/".join([b"a"] * 4097), files.FIFO)), "too many names")
        self.refuse(leaf(entry(b"/".join([b"a" * 255] * 257), files.FIFO)), "more than 65535 bytes")
        long = b"/".join([b"n" * 255] * 255)
        more = [entry(b"/%02d" % n, files.FIFO, shared=len(long)) for n in range(10, 80)]
        self.refuse(leaf(entry(long, files.FIFO), *more), "too long together")
        self.refuse(leaf(entry(b"a", files.FIFO), entry(b"b", files.FIFO, shared=2)), "shares more")
        self.refuse(leaf(entry(b"a", files.FIFO, shared=1)), "shares more")

    def test_their_order(self):
        paths = [b"", b"a", b"a/b", b"a/b/z", b"a/c", b"a-", b"a.b", b"b"]
        self.assertEqual(sorted(paths[::-1], key=files.order), paths)
        self.refuse(leaf(entry(b"b", files.FIFO), entry(b"a", files.FIFO)), "do not rise")
        self.refuse(leaf(entry(b"a-", files.FIFO), entry(b"a/b", files.FIFO)), "do not rise")
        self.refuse(inner(1, (b"a", 1, self.one), (b"a", 1, self.one)), "do not rise")

    def test_entries(self):
        def one(*arguments, **more):
            return leaf(entry(b"a", *arguments, **more), chunks=[self.one], maps=[self.one])

        self.refuse(one(0), "unknown kind 0")
        self.refuse(one(9), "unknown kind 9")
        self.refuse(one(files.FIFO, mode=0o10000), "more than 12 bits")
        self.refuse(one(files.FIFO, modified=(0, 10**9)), "more nanoseconds")
        self.refuse(one(files.FIFO, attributes=b"\3"), "attributes in an unknown form")
        self.refuse(one(files.FIFO, attributes=b"\2\1"), "not in its leaf")
        pair = text(b"b") + text(b"")
        self.refuse(one(files.FIFO, attributes=b"\1\2" + pair + pair), "not in order")
        self.refuse(one(files.FIFO, attributes=b"\1\1" + text(b"a\0") + text(b"")), "an attribute has the name")
        self.refuse(one(files.FIFO, attributes=b"\1\1" + text(b"") + text(b"")), "an attribute has the name")
        self.refuse(one(files.FIFO, attributes=b"\1\1" + text(b"a") + text(bytes((1 << 20) + 1))), "more than 1048576")
        self.refuse(one(files.SYMLINK, text(b"")), "a symbolic link says")
        self.refuse(one(files.SYMLINK, text(b"a\0b")), "a symbolic link says")
        self.refuse(one(files.CHARACTERS, leb128(2**32) + b"\0"), "more than 32 bits")

    def test_contents(self):
        def one(size, content):
            return leaf(entry(b"a", files.FILE, file(size, content)), chunks=[self.one], maps=[self.one])

        self.refuse(one(1 << 63, b"\0"), "size of 2⁶³")
        self.refuse(one(1, b"\4"), "content in an unknown form 4")
        self.refuse(one(1, b"\3\1"), "not in its leaf")
        self.refuse(one(1, shared(1, 0, b"")), "not in its leaf")
        self.refuse(one(1, extents((0, 1, 1))), "not in its leaf")
        self.refuse(one(1, extents((0, 0, 0))), "an extent is empty")
        self.refuse(one(4, extents((1, 2, 0), (0, 2, 0))), "end behind it")
        self.refuse(one(4, extents((1 << 63, 2, 0))), "ends at 2⁶³")

    def test_maps(self):
        def refuse(why, *items, level=0):
            self.refuse(mapped(level, *((gap, length, self.one) for gap, length in items)), why, files.read_map)

        refuse("an extent is empty", (0, 0))
        refuse("longer than chunks are", (0, (4 << 20) + 1))
        refuse("ends at 2⁶³", (1, (1 << 63) - 1), level=1)
        refuse("ends at 2⁶³", (0, 1 << 62), (0, 1 << 62), level=1)
        self.refuse(mapped(0, (0, 1, self.one)) + b"\0", "after its last item", files.read_map)
        self.assertEqual(files.read_map(mapped(3, (2, 5, self.one), (4, 1, self.one)))[2], 12)


class Snapshots(unittest.TestCase):
    def setUp(self):
        self.chunks = Chunks()

    def put(self, *arguments, **more):
        return self.chunks.put(leaf(*arguments, **more))

    def problems(self, tree, entries, size=0):
        found, problems = self.chunks.read(self.chunks.snapshot(tree, entries=entries, bytes=size))
        self.assertTrue(problems)
        return found, "; ".join(problems)

    def test_a_tree_of_several_nodes_is_read_whole(self):
        low = self.put(directory(b""), entry(b"a", files.FIFO))
        high = self.put(directory(b"b"), entry(b"b/c", files.FIFO))
        last = self.put(entry(b"d", files.HARD_LINK, text(b"b/c")))
        tree = inner(5, (b"", 4, self.chunks.put(inner(1, (b"", 2, low), (b"b", 2, high)))), (b"d", 1, last))
        found, problems = self.chunks.read(self.chunks.snapshot(self.chunks.put(tree), entries=5))
        self.assertEqual((found, problems), ([b"", b"a", b"b", b"b/c", b"d"], []))

    def test_nodes_must_be_what_is_said_above_them(self):
        low, high = self.put(directory(b""), entry(b"a", files.FIFO)), self.put(entry(b"c", files.FIFO))

        def problems(level, *children):
            return self.problems(self.chunks.put(inner(level, *children)), 3)

        self.assertEqual(self.chunks.read(self.chunks.snapshot(
            self.chunks.put(inner(1, (b"", 2, low), (b"c", 1, high))), entries=3))[1], [])
        self.assertIn("1 entries from c on instead of 2", problems(1, (b"", 2, low), (b"c", 2, high))[1])
        found, said = problems(1, (b"", 2, low), (b"b", 1, high))
        self.assertIn("begin with the path", said)
        self.assertEqual(found, [b"", b"a"])
        self.assertIn("reaches into the next", problems(1, (b"", 2, low), (b"a", 1, high))[1])
        self.assertIn("begin with the path", problems(1, (b"c", 1, high))[1])
        same = self.chunks.put(inner(1, (b"", 2, low)))
        self.assertIn("not below its parent", problems(1, (b"", 2, same))[1])
        self.assertIn("instead of 3", self.problems(low, 3)[1])
        self.assertIn("with 0 bytes instead of 2 with 1", self.problems(low, 2, 1)[1])

    def test_a_lost_node_hides_nothing_else(self):
        tree = self.chunks.put(inner(1, (b"", 1, self.put(directory(b""))), (b"b", 1, bytes(32)),
                                     (b"b/c", 1, self.put(entry(b"b/c", files.FIFO)))))
        found, said = self.problems(tree, 3)
        self.assertEqual(found, [b"", b"b/c"])
        self.assertRegex(said, "from b on, cannot be read: it is not there.*b/c: is in no directory")

    def test_entries_must_be_where_they_may(self):
        tree = self.put(directory(b""), entry(b"l", files.SYMLINK, text(b"/")), directory(b"l/d"),
                        entry(b"l/d/x", files.FIFO), entry(b"m", files.HARD_LINK, text(b"z")),
                        entry(b"n", files.HARD_LINK, text(b"")), entry(b"o", files.HARD_LINK, text(b"l")),
                        entry(b"p", files.HARD_LINK, text(b"o")), entry(b"z", files.FIFO))
        found, said = self.problems(tree, 9)
        self.assertEqual(found, [b"", b"l", b"o", b"z"])
        for problem in ("l/d: is in l, which", "l/d/x: is in l, which", "m: is another name of z",
                        "n: is another name of .", "p: is another name of o"):
            self.assertIn(problem, said)
        self.assertIn("a: is in ., which", self.problems(
            self.put(entry(b"", files.FIFO), entry(b"a", files.FIFO)), 2)[1])

    def test_contents_must_be_what_is_said(self):
        plain = self.chunks.put(b"0123456789")
        too_long = self.chunks.put(mapped(0, (0, 10, plain)))
        deep = self.chunks.put(mapped(3, (0, 10, too_long)))
        looped = self.chunks.put(mapped(3, (0, 10, deep)))
        names = iter(b"abcdefghij")

        def one(size, content):
            return entry(bytes([next(names)]), files.FILE, file(size, content))

        tree = self.put(directory(b""), one(4, shared(0, 2, b"2345")), one(4, shared(0, 2, b"else")),
                        one(4, shared(0, 7, b"789")), one(9, extents((0, 9, 0))), one(9, b"\3\0"), one(10, b"\3\1"),
                        one(10, b"\3\2"), one(1, extents((0, 1, 1))), chunks=[plain, bytes(32)],
                        maps=[too_long, deep, looped])
        found, said = self.problems(tree, 9, 51)
        self.assertEqual(len(found), 9)
        for problem in ("b: is not what its hash", "c: cannot be read: it reaches beyond", "d: 9 bytes at 0 cannot",
                        "e: 9 bytes at 0 cannot be read: a map has 10", "g: 10 bytes at 0 cannot be read: a map is not",
                        "h: 1 bytes at 0 cannot be read: it is not there"):
            self.assertIn(problem, said)
        self.assertEqual("".join(problem[0] for problem in self.chunks.problems), "bcdegh")

    def test_attributes_in_a_chunk(self):
        good, bad = b"\1" + text(b"user.a") + text(b"x"), b"\0\0"
        tree = self.put(directory(b"", attributes=b"\2\0"), entry(b"a", files.FIFO, attributes=b"\2\1"),
                        chunks=[self.chunks.put(good), self.chunks.put(bad)])
        snapshot = self.chunks.snapshot(tree, entries=2)
        self.assertEqual([snapshot.attributes(one) for one in snapshot.entries()], [[(b"user.a", b"x")], []])
        self.assertEqual(self.chunks.problems, ["a: its attributes cannot be read: it has bytes after the last attribute"])

    def test_manifests(self):
        tree = self.put(directory(b""))

        def refuse(why, manifest=None, tree=tree, **summary):
            with self.assertRaisesRegex(f.Damaged, why):
                self.chunks.snapshot(tree, manifest, **summary)

        refuse("another version", {"data": 2})
        refuse("another version", data=2)
        refuse("unknown kind", kind="Tape")
        refuse("no tree", tree=None)
        refuse("no chunk id", {"tree": "12"}, tree=None)
        refuse("cut into blocks", {"blockBytes": 65536})
        refuse("cut into blocks", kind="Device")
        refuse("cut into blocks", {"blockBytes": 0}, kind="Device")
        refuse("wrong entries", entries="1")
        refuse("wrong host", host=1)
        refuse("lists 0 problems of 1", problems=1)
        refuse("no JSON object", {"problems": ["x"]}, problems=1)
        self.chunks.snapshot(tree, {"problems": [{"path": "a", "what": "b"}] * 1000, "later": {}}, problems=1001)

    def test_a_device_is_its_blocks_and_zeros(self):
        low, high = self.chunks.put(b"a" * 65536), self.chunks.put(b"b" * 10)
        first, second = self.chunks.put(mapped(0, (65536, 65536, low))), self.chunks.put(mapped(0, (0, 10, high)))
        root = self.chunks.put(mapped(1, (0, 131072, first), (1 << 24, 10, second)))
        size = 131072 + (1 << 24) + 10
        snapshot = self.chunks.snapshot(root, {"blockBytes": 65536}, kind="Device", entries=1, bytes=size)
        image = bytes(65536) + b"a" * 65536 + bytes(1 << 24) + b"b" * 10
        self.assertEqual(described(snapshot)["device"]["sha256"], hashlib.sha256(image).hexdigest())
        with tempfile.TemporaryDirectory() as place:
            extract(snapshot, os.path.join(place, "image"))
            with open(os.path.join(place, "image"), "rb") as found:
                self.assertEqual(found.read(), image)
        self.assertEqual(self.chunks.problems, [])
        short = self.chunks.snapshot(root, {"blockBytes": 65536}, kind="Device", entries=1, bytes=size - 1)
        self.assertIn("the device", self.chunks.read(short)[1][0])
        empty = self.chunks.snapshot(None, {"blockBytes": 65536}, kind="Device", entries=1, bytes=9)
        self.assertEqual(described(empty)["device"]["sha256"], hashlib.sha256(bytes(9)).hexdigest())


class Extracts(unittest.TestCase):
    def setUp(self):
        self.chunks = Chunks()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = os.path.join(os.fsencode(folder.name), b"target")

    def extract(self, *entries, size=0, **ids):
        tree = self.chunks.put(leaf(*entries, **ids))
        return extract(self.chunks.snapshot(tree, entries=len(entries), bytes=size), self.place)

    def at(self, path):
        return os.path.join(self.place, path)

    def test_everything_comes_back(self):
        part, segment = self.chunks.put(b"x" * 10), self.chunks.put(b"..small..")
        written = self.extract(
            entry(b"", files.DIRECTORY, mode=0o1755, modified=(-5, 7)),
            entry(b"A\xff\n", files.FILE, file(5, shared(1, 2, b"small")), mode=0o4640, modified=(-9, 1)),
            entry(b"a", files.FILE, file(1 << 20, extents((500_000, 10, 0)))),
            entry(b"d", files.DIRECTORY, mode=0o555, modified=(7, 8)),
            entry(b"d/again", files.HARD_LINK, text(b"A\xff\n")),
            entry(b"d/pipe", files.FIFO, mode=0o600),
            entry(b"l", files.SYMLINK, text(b"/nowhere"), modified=(1, 2)),
            entry(b"s", files.SOCKET), size=(1 << 20) + 5, chunks=[part, segment])
        self.assertEqual((written, self.chunks.problems), (8, []))
        small, sparse = os.stat(self.at(b"A\xff\n")), os.stat(self.at(b"a"))
        self.assertEqual((stat.S_IMODE(small.st_mode), small.st_mtime_ns, small.st_nlink), (0o4640, 1 - 9 * 10**9, 2))
        self.assertEqual((sparse.st_size, sparse.st_blocks * 512 < 1 << 18), (1 << 20, True))
        for path, data in ((b"d/again", b"small"), (b"a", bytes(500_000) + b"x" * 10 + bytes((1 << 20) - 500_010))):
            with open(self.at(path), "rb") as found:
                self.assertEqual(found.read(), data)
        self.assertEqual(os.readlink(self.at(b"l")), b"/nowhere")
        self.assertEqual(os.lstat(self.at(b"l")).st_mtime_ns, 10**9 + 2)
        self.assertEqual((os.stat(self.at(b"d")).st_mode, os.stat(self.at(b"d")).st_mtime_ns),
                         (stat.S_IFDIR | 0o555, 7 * 10**9 + 8))
        self.assertEqual(os.stat(self.place).st_mtime_ns, 7 - 5 * 10**9)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.at(b"d/pipe")).st_mode))
        self.assertTrue(stat.S_ISSOCK(os.stat(self.at(b"s")).st_mode))

    def test_nothing_is_written_through_a_link(self):
        outside = os.path.join(os.path.dirname(self.place), b"outside")
        os.mkdir(outside)
        written = self.extract(directory(b""), entry(b"way", files.SYMLINK, text(b"../outside")),
                               entry(b"way/x", files.FILE, file(0, b"\0")), directory(b"way/y"),
                               entry(b"way/y/z", files.FILE, file(0, b"\0")))
        self.assertEqual((written, os.listdir(outside), len(self.chunks.problems)), (2, [], 3))

    def test_a_file_alone(self):
        self.assertEqual(self.extract(entry(b"", files.FILE, file(3, b"\0")), size=3), 1)
        self.assertEqual(os.stat(self.place).st_size, 3)

    def test_names_in_words(self):
        self.assertEqual(files.label(b"a/\xff%\xc3\xa4\xc3"), "a/%FF%25ä%C3")
        self.assertEqual(files.label(b""), ".")


if __name__ == "__main__":
    unittest.main()
