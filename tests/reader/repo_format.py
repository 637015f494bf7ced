"""Bytes and what they mean: sections 1 to 7 of docs/format.md.

Written from that page alone, and never from the program's source. Functions here
take bytes and give values. They know no store, no session and no snapshot, and
they never accept what the page does not allow: they raise `Damaged`.
"""

import hmac
import re
from collections import namedtuple
from functools import lru_cache

import argon2.low_level
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

VERSION = 1
CHUNK_BYTES_MAX = 4_194_304
PACK_BYTES_MAX = 16_777_216
PACK_CHUNKS_MAX = 65_536
RECORD_BYTES_MAX = 16_777_216 + 108
RECORD_PADDING = 256
PACK_PADDING = 4096
PACK_HEAD, PACK_FOOTER, TAG = 48, 68, 16
TRAILER = 0xFFFFFFFF
SLOTS_MAX = 16
ZERO_ID = bytes(32)


class Damaged(Exception):
    """Bytes that are not what the format says."""


class WrongPassphrase(Exception):
    """A key slot that another passphrase opens. Not damage."""


def require(condition, problem):
    if not condition:
        raise Damaged(problem)


class Cursor:
    """Reads integers and bytes one after another, and never beyond the end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        require(size <= len(self.data) - self.at, "ends too early")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def rest(self):
        return self.take(len(self.data) - self.at)


def little(value, size):
    return value.to_bytes(size, "little")


# Section 2: keys of objects

Kind = namedtuple("Kind", "name number pattern body")
Key = namedtuple("Key", "text kind cluster session n")

_HEX = "[0-9a-f]{32}"
_N = "0|[1-9][0-9]{0,19}"
_LIMITS = {"format": 2**16, "open": 2**64, "beat": 2**64, "data": 2**32, "meta": 2**32}


def parse_key(text):
    """What a key names, or None: a reader ignores keys that are not of the format."""
    if text.startswith(MEND):
        of = parse_key(text[len(MEND):])
        return of._replace(text=text, kind=MENDS[of.kind.name]) if of and of.kind.name in MENDS else None
    for kind in KINDS:
        match = kind.pattern.fullmatch(text)
        if not match:
            continue
        part = match.groupdict()
        n = int(part["n"]) if part.get("n") else None
        session = bytes.fromhex(part["session"]) if part.get("session") else None
        cluster = bytes.fromhex(part["cluster"]) if part.get("cluster") else None
        if n is not None and n >= _LIMITS.get(kind.name, 2**64):
            return None
        if kind.name in ("data", "meta") and text != pack_key(session, n, kind.number):
            return None
        return Key(text, kind, cluster, session, n)
    return None


def pack_key(session, n, number):
    suffix = "data" if number == 16 else "meta"
    return f"packs/{(session[0] + n) % 256:02x}/{session.hex()}-{n}.{suffix}"


# Section 3: key derivation

Triple = namedtuple("Triple", "aead commitment nonce")


def hkdf(secret, salt, info, size):
    return HKDF(SHA256(), size, salt, info).derive(secret)


def keyed(key, data):
    return blake3(data, key=key).digest()


class Keys:
    """The keys of one repository."""

    def __init__(self, master, repository):
        def sub(name):
            return hkdf(master, repository, b"lifebuoy/1/" + name, 32)

        self.repository = repository
        self.chunk_id, self.data, self.record = sub(b"chunk-id"), sub(b"data"), sub(b"record")
        self.cluster, self.format = sub(b"cluster"), sub(b"format")

    def id_of(self, plain):
        return keyed(self.chunk_id, plain)

    def cluster_key(self, identity):
        return keyed(self.cluster, identity.encode())[:16]

    def record_triple(self, number, salt):
        return _triple(self.record, b"lifebuoy/1/record" + little(number, 1) + salt)

    def pack_triple(self, random, n, number):
        return _triple(self.data, b"lifebuoy/1/pack" + random + little(n, 4) + little(number, 1))


@lru_cache(maxsize=4096)
def _triple(key, info):
    out = HKDFExpand(SHA256(), 96, info).derive(key)
    return Triple(AESGCM(out[:32]), out[32:64], out[64:])


def opened(aead, nonce, sealed, aad, what):
    require(len(sealed) >= TAG, f"{what} is shorter than a tag")
    try:
        return aead.decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Damaged(f"{what} does not decrypt: changed, or of another place") from None


def same(a, b):
    return hmac.compare_digest(a, b)


# Section 4: the common header

def header(number, version=VERSION):
    return b"LIFEBUOY" + little(version, 2) + little(number, 1) + bytes(5)


def check_header(data, number, version=VERSION):
    require(len(data) >= 16, "is shorter than a header")
    require(data[:8] == b"LIFEBUOY", "does not begin with LIFEBUOY")
    found = int.from_bytes(data[8:10], "little")
    require(found == version, f"has format version {found} instead of {version}")
    require(data[10] == number, f"is of type {data[10]} instead of {number}")
    require(data[11:16] == bytes(5), "has a header with bytes that must be zero")


# Section 5: format object and key slot

Format = namedtuple("Format", "repository ignorable read_only must_know mac_input mac")


def parse_format(data, n):
    check_header(data, 1, n)
    require(len(data) == 128, f"has {len(data)} bytes instead of 128")
    require(same(data[96:], blake3(data[:96]).digest()), "does not have the hash that it names")
    body = Cursor(data[16:64])
    repository = body.take(16)
    ignorable, read_only, must_know = body.u64(), body.u64(), body.u64()
    require(must_know == 0, f"needs features that this reader does not know: {must_know:#x}")
    require(body.u8() == 0, "names an unknown chunker")
    require(body.u8() == 1, "names an unknown key derivation")
    require(body.rest() == bytes(6), "has bytes that must be zero")
    mac_input = f"format/{n}".encode() + data[:64]
    return Format(repository, ignorable, read_only, must_know, mac_input, data[64:96])


Slot = namedtuple("Slot", "repository memory passes lanes salt commitment sealed aad")


def parse_slot(data, key):
    """A key slot's content. It is not opened: see `open_slot`."""
    check_header(data, 2)
    require(len(data) == 192, f"has {len(data)} bytes instead of 192")
    require(same(data[160:], blake3(data[:160]).digest()), "does not have the hash that it names")
    body = Cursor(data[16:160])
    repository = body.take(16)
    require(body.u8() == 1, "names an unknown key derivation")
    require(body.take(3) == bytes(3), "has bytes that must be zero")
    memory, passes, lanes = body.u32(), body.u32(), body.u32()
    # Checked before Argon2 runs: whoever may write a slot must not choose our memory.
    limits = 8 <= memory <= 65_536 and 1 <= passes <= 16 and 1 <= lanes <= 4
    require(limits and memory >= 8 * lanes, "has Argon2 parameters outside of the limits")
    salt, commitment, sealed = body.take(32), body.take(32), body.take(48)
    return Slot(repository, memory, passes, lanes, salt, commitment, sealed, data[:112] + key.encode())


@lru_cache(maxsize=64)
def slot_secret(passphrase, salt, memory, passes, lanes):
    kek = argon2.low_level.hash_secret_raw(
        passphrase, salt, passes, memory, lanes, 32, argon2.low_level.Type.ID, 0x13)
    return hkdf(kek, salt, b"lifebuoy/1/slot", 76)


def open_slot(slot, passphrase):
    """The master key."""
    secret = slot_secret(passphrase, slot.salt, slot.memory, slot.passes, slot.lanes)
    if not same(secret[32:64], slot.commitment):
        raise WrongPassphrase
    return opened(AESGCM(secret[:32]), secret[64:], slot.sealed, slot.aad, "the master key")


# Section 6: records

def open_record(keys, key, data, newest=2):
    """The body of a record, parsed by the type that its key says, for a reader that
    knows the formats up to `newest`.
    """
    # The version is that of the format that defined the layout.
    version = int.from_bytes(data[8:10], "little") if len(data) >= 10 else 0
    require(version in layouts(key.kind) and version <= newest, f"has format version {version}, which is not known")
    check_header(data, key.kind.number, version)
    require(len(data) <= RECORD_BYTES_MAX, "is longer than a record may be")
    clear = Cursor(data)
    aad = clear.take(16) + keys.repository + key.text.encode()
    salt, commitment, nonce = clear.take(32), clear.take(32), clear.take(12)
    triple = keys.record_triple(key.kind.number, salt)
    require(same(commitment, triple.commitment), "has a key commitment of another key")
    plain = opened(triple.aead, nonce, clear.rest(), aad, "the record")
    require(same(nonce, keyed(triple.nonce, plain)[:12]), "has a nonce that is not derived from it")
    require(len(plain) % RECORD_PADDING == 0, "is not padded to a multiple of 256 bytes")
    if key.kind.name == "index":
        return whole(plain, lambda body: _delta_body(body, version))
    body = whole(plain, key.kind.body)
    require(newest > 1 or key.kind.name != "end" or body.outcome <= FENCED, "has an outcome that is not known")
    return body


def whole(plain, parse):
    """What a body holds that fills its record."""
    cursor = Cursor(plain)
    body = parse(cursor)
    padding = cursor.rest()
    require(len(padding) < RECORD_PADDING and not any(padding), "has bytes after its body")
    return body


def seal_record(keys, key, salt, body, version=None):
    """The reverse of `open_record`, for a writer."""
    plain = body + bytes(-len(body) % RECORD_PADDING)
    head = header(key.kind.number, version or layouts(key.kind)[0])
    triple = keys.record_triple(key.kind.number, salt)
    nonce = keyed(triple.nonce, plain)[:12]
    sealed = triple.aead.encrypt(nonce, plain, head + keys.repository + key.text.encode())
    return head + salt + triple.commitment + nonce + sealed


def layouts(kind):
    """The versions in the headers of this type's objects, section 4."""
    return (1, 2) if kind.name == "index" else (2,) if kind.number in range(8, 15) else (1,)


def is_known(kind, newest):
    """Whether this type of object is one of the formats up to `newest`."""
    return kind.number is None or layouts(kind)[0] <= newest


Open = namedtuple("Open", "purpose generation random parent label")
End = namedtuple("End", "outcome generation sequence root packs summary parent", defaults=(None,) * 5)
Index = namedtuple("Index", "random packs relied", defaults=((),))
IndexedPack = namedtuple("IndexedPack", "n number length commitment entries")
Entry = namedtuple("Entry", "id codec raw stored")
Forget = namedtuple("Forget", "reason")
Beat = namedtuple("Beat", "n")
PackName = namedtuple("PackName", "session n number")
Plan = namedtuple("Plan", "forgets packs")
Run = namedtuple("Run", "live parts")
Claim = namedtuple("Claim", "cluster random")

PURPOSES = {1: "backup", 2: "part", 3: "repack", 4: "restore"}
COMMITTED, FENCED, PART, COPIES = 1, 2, 3, 4
PACKS, RELIED = 1, 2


def _open_body(body):
    purpose, generation, random, parent = body.u8(), body.u64(), body.take(32), body.take(16)
    require(purpose in PURPOSES, f"has an unknown purpose {purpose}")
    require(purpose == 2 or parent == bytes(16), "has a parent although it is no part")
    length = body.u16()
    require(length <= 4096, "has a label of more than 4,096 bytes")
    return Open(PURPOSES[purpose], generation, random, parent, body.take(length))


def _end_body(body):
    outcome, generation = body.u8(), body.u64()
    require(outcome in (COMMITTED, FENCED, PART, COPIES), f"has an unknown outcome {outcome}")
    if outcome == FENCED:
        return End(FENCED, generation)
    if outcome == PART:
        parent = body.take(16)
        return End(PART, generation, root=body.take(32), packs=body.u32(), parent=parent)
    if outcome == COPIES:
        return End(COPIES, generation, packs=body.u32())
    sequence, root, packs, length = body.u64(), body.take(32), body.u32(), body.u32()
    require(length <= 65_536, "has a summary of more than 65,536 bytes")
    return End(COMMITTED, generation, sequence, root, packs, body.take(length))


def _index_body(body):
    random, count = body.take(32), body.u32()
    packs = []
    for _ in range(count):
        n, number, length = body.u32(), body.u8(), body.u32()
        commitment, chunks = body.take(32), body.u32()
        require(number in (16, 17), f"names pack {n} with an unknown type {number}")
        require(not packs or n > packs[-1].n, "does not name its packs in rising order")
        require(1 <= chunks <= PACK_CHUNKS_MAX, f"names pack {n} with {chunks} chunks")
        require(length <= PACK_BYTES_MAX, f"names pack {n} with {length} bytes")
        packs.append(IndexedPack(n, number, length, commitment, read_entries(body, chunks)))
    return Index(random, packs)


def _delta_body(body, version):
    """An index delta, which in version 2 has a list of packs after it."""
    index = _index_body(body)
    if version == 2:
        index = index._replace(relied=_pack_names(body))
    require(index.packs or index.relied, "is an index of nothing")
    return index


def _pack_names(body):
    """A list of packs."""
    found = []
    for _ in range(body.u32()):
        name = PackName(body.take(16), body.u32(), body.u8())
        require(name.number in (16, 17), "names a pack of an unknown type")
        require(not found or name > found[-1], "does not name its packs in rising order")
        found.append(name)
    return found


def _sessions(body):
    """A list of sessions."""
    found = []
    for _ in range(body.u32()):
        session = body.take(16)
        require(not found or session > found[-1], "does not name its sessions in rising order")
        found.append(session)
    return found


def _plan_body(body):
    return Plan(_sessions(body), _pack_names(body))


def _run_body(body):
    live, parts = set(_sessions(body)), []
    for _ in range(body.u32()):
        kind, n, random = body.u8(), body.u64(), body.take(16)
        require(kind in (PACKS, RELIED), f"has a part of an unknown kind {kind}")
        parts.append((kind, f"index/parts/{n}-{random.hex()}"))
    return Run(live, parts)


def read_part(kind, plain):
    """Sessions and their index, or the packs that each relies on: only the run says
    of which kind a part is, so its record gives the plain bytes.
    """
    of_one = _index_body if kind == PACKS else _pack_names
    return whole(plain, lambda body: [(body.take(16), of_one(body)) for _ in range(body.u32())])


def _forget_body(body):
    length = body.u16()
    require(length <= 1024, "has a reason of more than 1,024 bytes")
    return Forget(text(body.take(length)))


def text(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Damaged("has a text that is not UTF-8") from None


def read_entries(body, count):
    return [read_entry(body) for _ in range(count)]


def read_entry(body):
    entry = Entry(body.take(32), body.u8(), body.u32(), body.u32())
    require(entry.codec in (0, 1), f"names chunk {entry.id.hex()} with an unknown codec")
    require(entry.raw <= CHUNK_BYTES_MAX, f"names chunk {entry.id.hex()} with {entry.raw} bytes")
    fits = entry.stored == entry.raw + TAG if entry.codec == 0 else entry.stored > TAG
    require(fits, f"names chunk {entry.id.hex()} with a stored length of {entry.stored} bytes")
    return entry


def write_entry(entry):
    return entry.id + little(entry.codec, 1) + little(entry.raw, 4) + little(entry.stored, 4)


# Every type of object. A later version of the format adds its types here.

def _kind(name, number, pattern, body=None):
    pattern = (pattern.replace("<session>", f"(?P<session>{_HEX})")
               .replace("<cluster>", f"(?P<cluster>{_HEX})").replace("<n>", f"(?P<n>{_N})"))
    return Kind(name, number, re.compile(pattern), body)


KINDS = (
    _kind("format", 1, "format/<n>"),
    _kind("slot", 2, f"keys/{_HEX}"),
    _kind("open", 3, "open/<cluster>/<n>-<session>", _open_body),
    _kind("end", 4, "end/<cluster>/<session>", _end_body),
    _kind("index", 5, "index/<session>", _index_body),
    _kind("forget", 6, "forget/<session>", _forget_body),
    _kind("beat", 7, "beat/<session>/<n>", lambda body: Beat(body.u64())),
    _kind("plan", 8, "gc/<n>[.]plan", _plan_body),
    _kind("run", 9, "index/runs/<n>", _run_body),
    _kind("final", 10, "gc/<n>[.]final", _pack_names),
    _kind("part", 11, f"index/parts/<n>-{_HEX}", Cursor.rest),
    _kind("pin", 12, "pin/<session>/<n>", _forget_body),
    _kind("keeper", 13, "keeper/<n>", lambda body: Claim(body.take(16), body.take(16))),
    _kind("data", 16, "packs/[0-9a-f]{2}/<session>-<n>[.]data"),
    _kind("meta", 17, "packs/[0-9a-f]{2}/<session>-<n>[.]meta"),
    _kind("probe", None, f"probe/{_HEX}"),
)

# What stands in for a damaged object has the body of one, or only sets a pack aside.
MEND = "mend/"
MENDS = {
    "index": Kind("mend-index", 14, None, _index_body),
    "part": Kind("mend-part", 14, None, Cursor.rest),
    "data": Kind("mend-pack", 14, None, _forget_body),
    "meta": Kind("mend-pack", 14, None, _forget_body),
}


# Section 7: packs

class Pack:
    """A pack whose bytes are there. Its chunks are opened one by one."""

    def __init__(self, keys, key, data):
        check_header(data, key.kind.number)
        require(len(data) <= PACK_BYTES_MAX, "is longer than a pack may be")
        require(len(data) >= PACK_HEAD + PACK_FOOTER, "is shorter than a pack can be")
        self.keys, self.key, self.data = keys, key, data
        self.random = data[16:48]
        self.triple = keys.pack_triple(self.random, key.n, key.kind.number)
        footer = Cursor(data[-PACK_FOOTER:])
        self.trailer_length, self.commitment, self.hash = footer.u32(), footer.take(32), footer.take(32)
        require(same(self.commitment, self.triple.commitment), "has a key commitment of another key")

    def check_hash(self):
        require(same(self.hash, blake3(self.data[:-32]).digest()), "does not have the hash that it names")

    def entries(self):
        """What the trailer lists, in order, with the offset of each chunk."""
        end = len(self.data) - PACK_FOOTER
        start = end - self.trailer_length
        require(start >= PACK_HEAD, "has a trailer that is longer than the pack")
        require(len(self.data) % PACK_PADDING == 0, "is not padded to a multiple of 4,096 bytes")
        length = self.trailer_length
        aad = self._aad(TRAILER, Entry(ZERO_ID, 0, length - TAG, length))
        nonce = pack_nonce(self.triple, TRAILER, ZERO_ID, length)
        body = Cursor(opened(self.triple.aead, nonce, self.data[start:end], aad, "the trailer"))
        count = body.u32()
        require(1 <= count <= PACK_CHUNKS_MAX, f"has {count} chunks")
        entries = read_entries(body, count)
        padding = body.rest()
        require(len(padding) < PACK_PADDING and not any(padding), "has bytes after its trailer")
        located, at = [], PACK_HEAD
        for entry in entries:
            located.append((at, entry))
            at += entry.stored
        require(at == start, "has chunks that do not fill it")
        return located

    def chunk(self, position, offset, entry):
        """The plain bytes of one chunk, checked against its id."""
        what = f"chunk {position}"
        sealed = self.data[offset:offset + entry.stored]
        nonce = pack_nonce(self.triple, position, entry.id, entry.stored)
        encoded = opened(self.triple.aead, nonce, sealed, self._aad(position, entry), what)
        plain = decode(entry, encoded, what)
        require(same(self.keys.id_of(plain), entry.id), f"{what} is not what its id says")
        return plain

    def _aad(self, position, entry):
        return pack_aad(self.keys.repository, self.key, position, entry)


def pack_aad(repository, key, position, entry):
    return (little(VERSION, 2) + repository + little(key.kind.number, 1) + key.session
            + little(key.n, 4) + little(position, 4) + entry.id + little(entry.codec, 1)
            + little(entry.raw, 4))


def pack_nonce(triple, position, chunk, stored):
    return keyed(triple.nonce, little(position, 4) + chunk + little(stored, 4))[:12]


def decode(entry, encoded, what):
    if entry.codec == 0:
        return encoded
    try:
        # One byte more than expected, and never more: a frame must not choose our memory.
        plain = zstandard.ZstdDecompressor().stream_reader(encoded).read(entry.raw + 1)
        require(len(plain) == entry.raw, f"{what} does not decompress to {entry.raw} bytes")
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(encoded)
    except zstandard.ZstdError as error:
        raise Damaged(f"{what} does not decompress: {error}") from None
    require(frame.eof and not frame.unused_data, f"{what} is not exactly one zstd frame")
    return plain
