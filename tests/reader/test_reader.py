"""What the golden repositories cannot show: test vectors, hostile nodes, and the
steps of the golden writer. Run with `python3 -m unittest`.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

import archive  # noqa: E402
import repo_format as f  # noqa: E402
from corruption import names, sessions  # noqa: E402
from golden_tree import ChunkSink, key_bytes, leb128  # noqa: E402
from golden_writer import index_entry  # noqa: E402
from lifebuoy_reader import file_name  # noqa: E402
from store import Directory  # noqa: E402
from verify import verify  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


class KeptSnapshots(unittest.TestCase):
    """The version of a manifest tells whether data is outside of the repository."""

    @staticmethod
    def opened(version, *saved):
        volumes = [{"claim": {"namespace": "shop", "name": "data"}, "saved": one} for one in saved]
        manifest = json.dumps({"version": version, "volumesSaved": volumes}).encode()
        return archive.Archive(lambda root: manifest, b"", b"", None)

    def test_a_volume_whose_data_is_elsewhere(self):
        kept = {"way": "Snapshot", "driver": "d", "handle": "h", "snapshotClass": "c", "restoreBytes": 1}
        moved = {"way": "Move", "root": "0" * 64}
        self.assertEqual(len(self.opened(3, kept, moved).volumes), 1)
        self.assertEqual(len(self.opened(3, kept).volumes), 0)
        self.assertEqual(len(self.opened(2, moved).volumes), 1)
        for version, saved in ((2, [kept]), (1, [moved]), (3, [moved]), (2, []), (4, [kept])):
            with self.assertRaises(f.Damaged):
                self.opened(version, *saved)
        with self.assertRaises(f.Damaged):
            self.opened(3, {"way": "Snapshot", "driver": "d", "handle": ""})


class Vectors(unittest.TestCase):
    """Section 12 of docs/format.md."""

    keys = f.Keys(b"\1" * 32, b"\2" * 16)

    def test_keys(self):
        keys = self.keys
        self.assertEqual(keys.chunk_id.hex(), "85fec9bb274d3eef01b7d4e37e5bc1bdc8d3fe652bb728807523d02061629971")
        self.assertEqual(keys.id_of(b"lifebuoy").hex(),
                         "736bf8e6b8887aa6f28351b591f1c9e278f8cd2283f8fdbd6d9017e07d5db7e8")
        self.assertEqual(keys.cluster_key("prod").hex(), "563263bd247cc5d6df60332c6a416e04")
        self.assertEqual(f.keyed(keys.format, b"format/1abc").hex(),
                         "90c2c13c6e7c1acd79dacf3b8e8eb775e86db451c3914a48268779beedfe2f6f")

    def test_triples(self):
        record = self.keys.record_triple(4, b"\4" * 32)
        self.assertEqual(record.commitment.hex(), "fe3be60d6150a4c265b75175756d6d2959d492c80e56c48f4c444e7ad120e120")
        pack = self.keys.pack_triple(b"\3" * 32, 7, 16)
        self.assertEqual(pack.commitment.hex(), "2547f6d6ca559dce37f20c50eeb2fa1d19a5eaa1ca1d6eb9a1bc60679086857a")
        self.assertEqual(pack.nonce.hex(), "46103f227be715660e4f7e921606cffc85deea71553491a288cf495cf92b05fd")

    def test_pack(self):
        with tempfile.TemporaryDirectory() as folder:
            store = Directory(folder)
            sink = ChunkSink(self.keys, b"\5" * 16, b"\3" * 32, set(), store)
            sink.packs = [None] * 7
            sink.put(16, b"lifebuoy")
            sink.finish()
            key = f.parse_key("packs/0c/05050505050505050505050505050505-7.data")
            data = store.read(key.text)
        pack = f.Pack(self.keys, key, data)
        (offset, entry), = pack.entries()
        self.assertEqual(f.pack_aad(self.keys.repository, key, 0, entry).hex(),
                         "0100020202020202020202020202020202021005050505050505050505050505050505070000000"
                         "0000000736bf8e6b8887aa6f28351b591f1c9e278f8cd2283f8fdbd6d9017e07d5db7e80008000000")
        self.assertEqual(pack.chunk(0, offset, entry), b"lifebuoy")
        self.assertEqual(data[48:72].hex(), "c658177bd8d69e82b8503a9a2ca7b8a9decec59c8cdcafb8")
        self.assertEqual(data[-32:].hex(), "8243eea9d79675cde3b6a104e7afbdff5f96651f2257a212251a03273e4cc660")


class Keys(unittest.TestCase):
    def test_what_is_no_key(self):
        session = "05" * 16
        for text in ("format/01", "format/1/", "format/", "format/65536", "keys/" + "A" * 32, f"index/{session}x",
                     f"packs/0d/{session}-7.data", f"packs/0c/{session}-07.data", f"packs/04/{session}-4294967295.raw",
                     f"packs/05/{session}-4294967296.data", f"beat/{session}/-1", f"beat/{session}/18446744073709551616",
                     f"open/{session}/{session}", "probe/1", f"end/{session}/{session}\n", f"Index/{session}"):
            self.assertIsNone(f.parse_key(text), text)
        for text in ("format/65535", f"packs/0c/{session}-7.meta", f"packs/04/{session}-4294967295.data",
                     f"beat/{session}/18446744073709551615", f"open/{session}/0-{session}"):
            self.assertEqual(f.parse_key(text).text, text)


class Format2(unittest.TestCase):
    """The records that format 2 adds."""

    keys = Vectors.keys
    one, two = f.PackName(b"\1" * 16, 7, 16), f.PackName(b"\1" * 16, 7, 17)

    def sealed(self, text, body, version=None):
        key = f.parse_key(text)
        return key, f.seal_record(self.keys, key, b"\4" * 32, body, version)

    def read(self, text, body, version=None, newest=2):
        key, data = self.sealed(text, body, version)
        return f.open_record(self.keys, key, data, newest)

    def refuse(self, text, body, why, version=None, newest=2):
        with self.assertRaisesRegex(f.Damaged, why):
            self.read(text, body, version, newest)

    def test_plans_and_finals(self):
        plan = self.read("gc/1.plan", sessions([b"\1" * 16, b"\2" * 16]) + names([self.one, self.two]))
        self.assertEqual(plan, ([b"\1" * 16, b"\2" * 16], [self.one, self.two]))
        self.assertEqual(self.read("gc/1.final", names([])), [])
        self.refuse("gc/1.plan", sessions([b"\2" * 16, b"\1" * 16]) + names([]), "sessions in rising order")
        self.refuse("gc/1.plan", sessions([]) + names([self.two, self.one]), "packs in rising order")
        self.refuse("gc/1.final", names([self.one, self.one]), "packs in rising order")
        self.refuse("gc/1.final", names([self.one._replace(number=15)]), "unknown type")
        self.refuse("gc/1.final", f.little(2, 4), "unknown type")
        self.refuse("gc/1.final", names([]) + b"\1", "bytes after its body")

    def test_runs_and_their_parts(self):
        run = self.read("index/runs/3", sessions([b"\1" * 16]) + f.little(1, 4) + b"\2" + f.little(2, 8) + b"\5" * 16)
        self.assertEqual(run, ({b"\1" * 16}, [(f.RELIED, f"index/parts/2-{'05' * 16}")]))
        self.refuse("index/runs/3", sessions([]) + f.little(1, 4) + bytes(25), "unknown kind")
        part = f"index/parts/2-{'05' * 16}"
        body = f.little(1, 4) + b"\1" * 16 + names([self.one])
        self.assertEqual(f.read_part(f.RELIED, self.read(part, body)), [(b"\1" * 16, [self.one])])
        index = bytes(32) + f.little(1, 4) + index_entry(f.IndexedPack(7, 16, 4096, bytes(32), [self.entry]))
        self.assertEqual(f.read_part(f.PACKS, self.read(part, f.little(1, 4) + b"\1" * 16 + index))[0][1].packs[0].n, 7)
        with self.assertRaisesRegex(f.Damaged, "after its body"):
            f.read_part(f.PACKS, self.read(part, f.little(0, 4) + b"\1"))

    entry = f.Entry(b"\6" * 32, 0, 8, 24)

    def test_an_index_names_what_it_relies_on(self):
        text = f"index/{'05' * 16}"
        body = bytes(32) + f.little(0, 4)
        self.assertEqual(self.read(text, body + names([self.one]), 2).relied, [self.one])
        self.refuse(text, body + names([]), "index of nothing", 2)
        self.refuse(text, body, "index of nothing", 1)
        self.refuse(text, body + names([self.one]), "index of nothing|after its body", 1)
        self.refuse(text, body + names([self.one]), "version 2, which is not known", 2, newest=1)

    def test_ends_of_parts_and_copies(self):
        text = f"end/{'06' * 16}/{'05' * 16}"
        part = bytes([f.PART]) + f.little(4, 8) + b"\7" * 16 + b"\x08" * 32 + f.little(2, 4)
        end = self.read(text, part)
        self.assertEqual((end.generation, end.parent, end.root, end.packs), (4, b"\7" * 16, b"\x08" * 32, 2))
        self.assertEqual(self.read(text, bytes([f.COPIES]) + f.little(4, 8) + f.little(9, 4)).packs, 9)
        self.refuse(text, bytes([5]) + bytes(64), "unknown outcome")
        self.refuse(text, part, "outcome that is not known", newest=1)

    def test_pins_and_keepers(self):
        self.assertEqual(self.read(f"pin/{'05' * 16}/1", f.little(3, 2) + b"why").reason, "why")
        self.refuse(f"pin/{'05' * 16}/1", f.little(1025, 2) + b"a" * 1025, "more than 1,024")
        self.assertEqual(self.read("keeper/9", b"\6" * 16 + bytes(16)).cluster, b"\6" * 16)

    def test_mends(self):
        pack = f"mend/packs/0c/{'05' * 16}-7.data"
        for text in (f"mend/index/{'05' * 16}", f"mend/index/parts/2-{'05' * 16}", pack):
            self.assertEqual(f.parse_key(text).kind.number, 14, text)
        for text in ("mend/", f"mend/mend/index/{'05' * 16}", f"mend/end/{'06' * 16}/{'05' * 16}", "mend/gc/1.plan",
                     f"mend/packs/0d/{'05' * 16}-7.data", f"mend/index/{'05' * 16}x"):
            self.assertIsNone(f.parse_key(text), text)
        self.assertEqual(self.read(pack, f.little(7, 2) + b"damaged").reason, "damaged")
        self.assertEqual(self.read(f"mend/index/{'05' * 16}", bytes(32) + f.little(0, 4)).packs, [])

    def test_a_record_has_the_version_of_its_type(self):
        self.refuse("keeper/9", bytes(32), "version 1, which is not known", version=1)
        self.refuse(f"forget/{'05' * 16}", f.little(0, 2), "version 2, which is not known", version=2)


class Nodes(unittest.TestCase):
    leaf = bytes([1, 0, 1]) + bytes(64) + b"\1" + key_bytes(("n", "a")) + b"\2\2" + bytes(16)
    inner = bytes([1, 1, 1]) + key_bytes(("n", "a")) + b"\5" + bytes(32)

    def refuse(self, data, why):
        with self.assertRaisesRegex(f.Damaged, why):
            archive.read_node(data)

    def test_good_ones(self):
        self.assertEqual(archive.read_node(self.leaf)[0], 0)
        self.assertEqual(archive.read_node(self.inner)[1][0].objects, 5)

    def test_hostile_ones(self):
        for length in range(len(self.leaf)):
            self.refuse(self.leaf[:length], "ends too early")
        self.refuse(self.leaf + b"\0", "after its last item")
        self.refuse(b"\2" + self.leaf[1:], "version 2")
        self.refuse(b"\1\x0d" + self.inner[2:], "level 13")
        self.refuse(bytes([1, 0, 0]), "no item")
        self.refuse(bytes([1, 0]) + b"\xff" * 9 + b"\1" + self.leaf[3:], "ends too early")
        self.refuse(bytes([1, 1]) + b"\x81\0" + self.inner[3:], "shortest form")
        self.refuse(bytes([1, 1]) + b"\xff" * 9 + b"\2" + self.inner[3:], "more than 64 bits")
        self.refuse(bytes([1, 1, 1]) + leb128(4097) + bytes(5000), "more than 4,096 bytes")
        self.refuse(bytes([1, 1, 1]) + b"\1\xff\1a\1" + bytes(32), "UTF-8")
        self.refuse(bytes([1, 1, 2]) + self.inner[3:] * 2, "do not rise")

    def test_the_order_of_keys(self):
        # `-` is below `/`: a namespace's end sorts as the separator.
        self.assertLess(archive.order(("a-b", "x")), archive.order(("a", "x")))

    def test_numbers_and_text_stay_as_they_are(self):
        data = '{"z":1.50,"a":[1e400,-0,true,null,"é\\u0001\\ud83d\\ude00"]}'.encode()
        self.assertEqual(archive.canonical(archive.parse_json(data, "it")),
                         '{"a":[1e400,-0,true,null,"é\\u0001😀"],"z":1.50}')
        for bad in (b"[1]", b"{", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":"\\ud83d"}', b'{"a":' + b"[" * 10**5):
            with self.assertRaises(f.Damaged):
                archive.parse_json(bad, "it")


class FileNames(unittest.TestCase):
    def test_names_stay_in_their_folder(self):
        self.assertEqual(file_name("system:node", ".json"), "system:node.json")
        self.assertEqual(file_name("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd")
        self.assertEqual(file_name("a\0b\n%"), "a%00b%0A%25")
        long = file_name("a" * 253, ".json")
        self.assertTrue(len(long) <= 255 and long != file_name("a" * 252 + "b", ".json"), long)


class Writer(unittest.TestCase):
    """The golden writer takes the steps of section 9."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.join(folder.name, "repository")
        self.objects = os.path.join(folder.name, "objects.json")
        self.save_objects(range(300))
        self.assertEqual(self.run_writer("init")[0], 0)

    def save_objects(self, numbers):
        objects = [{"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": str(n)}, "status": {"seen": n},
                    "metadata": {"name": f"c{n}", "namespace": f"n{n % 2}", "resourceVersion": str(n)}}
                   for n in numbers]
        kind = {"group": "", "version": "v1", "kind": "ConfigMap", "resource": "configmaps", "namespaced": True}
        with open(self.objects, "w", encoding="utf-8") as file:
            json.dump({"types": [{**kind, "objects": objects}]}, file)

    def start(self, *arguments):
        command = [sys.executable, os.path.join(HERE, "golden_writer.py"), "--repository", self.folder, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env={**os.environ, "LIFEBUOY_PASSPHRASE": "secret"})

    def run_writer(self, *arguments):
        process = self.start(*arguments)
        out, error = process.communicate()
        return process.returncode, out, error

    def write(self, session, *arguments, cluster="one"):
        return self.write_arguments(session, cluster, self.run_writer, *arguments)

    def write_arguments(self, session, cluster, run, *arguments):
        return run("write", "--cluster", cluster, "--session", f"{session:032x}", "--objects", self.objects, *arguments)

    def put(self, key, data=b"x"):
        self.assertTrue(Directory(self.folder).create(key, data))

    def findings(self):
        return verify(Directory(self.folder), b"secret").findings

    def test_backups_share_their_chunks(self):
        code, out, error = self.write(1, "--beats", "2")
        self.assertEqual((code, json.loads(out)["sequence"]), (0, 1), error)
        self.save_objects(range(301))
        second = json.loads(self.write(2)[1])
        self.assertEqual(second["sequence"], 2)
        self.assertLess(second["chunks"], json.loads(out)["chunks"])
        other = json.loads(self.write(3, cluster="two")[1])
        self.assertEqual((other["sequence"], other["packs"], other["chunks"]), (1, 1, 1))
        self.assertEqual(self.findings(), [])

    def test_chunks_of_unfinished_sessions_are_not_used(self):
        code, out, error = self.write(1, "--pause-before", "commit")
        self.assertEqual((code, out), (6, "paused before commit\n"), error)
        second = json.loads(self.write(2)[1])
        self.assertEqual(second["packs"], 2)
        self.assertEqual(self.findings(), [])

    def test_a_session_is_used_once(self):
        self.assertEqual(self.write(1, "--pause-before", "packs")[0], 6)
        self.assertEqual(self.write(1)[0], 3)
        self.assertEqual(self.run_writer("fence", "--cluster", "one", "--session", f"{9:032x}")[0], 0)
        self.assertEqual(self.write(9)[0], 3)

    def test_a_fence_wins_or_the_commit_does(self):
        process = self.write_arguments(1, "one", self.start, "--pause-before", "commit")
        self.assertEqual(process.stdout.readline(), "paused before commit\n")
        fence = ("fence", "--cluster", "one", "--session", f"{1:032x}")
        self.assertEqual(self.run_writer(*fence)[0], 0)
        process.communicate("\n")
        self.assertEqual(process.returncode, 4)
        self.assertEqual(self.write(2)[0], 0)
        self.assertEqual(self.run_writer("fence", "--cluster", "one", "--session", f"{2:032x}")[0], 3)
        self.assertEqual(self.findings(), [])

    def test_it_gives_way_to_a_version_that_collects(self):
        process = self.write_arguments(1, "one", self.start, "--pause-before", "acknowledge")
        self.assertEqual(process.stdout.readline(), "paused before acknowledge\n")
        self.put("index/runs/1")
        process.communicate("\n")
        self.assertEqual(process.returncode, 5)
        self.assertEqual(self.write(2)[0], 3)
        os.unlink(os.path.join(self.folder, "index/runs/1"))
        self.put("gc/1.plan")
        self.assertEqual(self.write(3)[0], 3)
        os.unlink(os.path.join(self.folder, "gc/1.plan"))
        self.put("format/2")
        self.assertEqual(self.write(4)[0], 2)

    def test_what_is_open_goes_on_after_an_upgrade(self):
        process = self.start("serve")
        self.assertEqual(process.stdout.readline(), "open\n")
        self.put("format/2")
        # Neither is a key that version 1 knows.
        self.put("keeper/1")
        self.put(f"pin/{5:032x}/1")
        write = self.write_arguments(1, "one", lambda *words: " ".join(words))
        out, error = process.communicate(f"{write}\nforget --session {1:032x}\n")
        self.assertEqual(out.splitlines()[1:], ["exit 0", "exit 0"], error)
        self.assertEqual(json.loads(out.splitlines()[0])["sequence"], 1)


if __name__ == "__main__":
    unittest.main()
