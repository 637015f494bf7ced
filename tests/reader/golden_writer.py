#!/usr/bin/env python3
"""Writes backups in format version 1, as docs/format.md has it: the previous release's
writer for tests of upgrades. It creates objects and never changes or removes one.

    golden_writer.py init
    golden_writer.py write --cluster UID --session HEX --objects FILE.json
    golden_writer.py fence --cluster UID --session HEX
    golden_writer.py forget --session HEX --reason TEXT

FILE.json: {"types": [{"group": "", "version": "v1", "kind": "ConfigMap", "resource":
"configmaps", "namespaced": true, "objects": [{…}, …]}, …]}

    golden_writer.py serve

`serve` opens the repository once, runs each line of stdin as a command, such as
`write --cluster …`, and says `exit` and its exit code: a program that has been running
since before an upgrade.

Exit codes: 0 done and acknowledged; 2 cannot open the repository or read the input;
3 refused to begin; 4 fenced; 5 committed but not acknowledged; 6 stopped at a pause.
"""

import argparse
import json
import os
import secrets
import shlex
import sys
from functools import cached_property

sys.dont_write_bytecode = True

import repo_format as f  # noqa: E402
from golden_tree import ChunkSink, save_type  # noqa: E402
from lifebuoy_reader import passphrase  # noqa: E402
from repository import CannotOpen, Repository, unlock  # noqa: E402
from store import Directory  # noqa: E402

NEWEST = 1
PAUSES = ("packs", "index", "commit", "acknowledge")


class Stop(Exception):
    """The writer ends here, with this exit code."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code = code


def main():
    arguments = parse_arguments()
    try:
        place = Place(Directory(arguments.repository), passphrase(arguments))
    except CannotOpen as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(arguments, place)


class Place:
    """A repository in a directory. Its keys are read once: what is open stays open,
    whatever version somebody upgrades it to.
    """

    def __init__(self, store, secret):
        self.store, self.secret = store, secret

    @cached_property
    def keys(self):
        return unlock(self.store, self.secret, give_up, NEWEST)


def run(arguments, place):
    """Runs a command, and gives its exit code."""
    try:
        arguments.run(arguments, place)
    except Stop as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return stop.code
    except (CannotOpen, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(line=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", metavar="DIR", default=os.environ.get("LIFEBUOY_REPOSITORY", "."))
    parser.add_argument("--passphrase-file", metavar="FILE")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    commands.add_parser("init", help="make a repository").set_defaults(run=run_init)

    command = commands.add_parser("write", help="save objects as one snapshot")
    command.add_argument("--cluster", required=True, help="the uid of the cluster")
    command.add_argument("--cluster-name", default="golden")
    command.add_argument("--session", required=True, type=session_id, help="32 hex digits")
    command.add_argument("--objects", required=True, metavar="FILE")
    command.add_argument("--backup", default="golden", help="the name of the Backup")
    command.add_argument("--schedule", default="", help="the name of its Schedule")
    command.add_argument("--taken-at", default="2026-01-01T00:00:00Z", metavar="TIME")
    command.add_argument("--beats", type=int, default=0, help="write so many heartbeats before the packs")
    command.add_argument("--pause-before", action="append", default=[], choices=PAUSES,
                         help="say `paused before …` and go on after a line on stdin; stop at its end")
    command.set_defaults(run=run_write)

    command = commands.add_parser("fence", help="end a session from outside")
    command.add_argument("--cluster", required=True)
    command.add_argument("--session", required=True, type=session_id)
    command.set_defaults(run=run_fence)

    command = commands.add_parser("forget", help="ask to forget a snapshot")
    command.add_argument("--session", required=True, type=session_id)
    command.add_argument("--reason", default="")
    command.set_defaults(run=run_forget)

    commands.add_parser("serve", help="run the commands on stdin").set_defaults(run=run_serve)
    return parser.parse_args(line)


def session_id(text):
    if len(text) != 32 or text != text.lower():
        raise ValueError("32 lower-case hex digits")
    return bytes.fromhex(text)


def key_of(text):
    key = f.parse_key(text)
    if key is None:
        raise ValueError(f"{text} is not a key of the format")
    return key


def record(keys, text, body):
    return f.seal_record(keys, key_of(text), secrets.token_bytes(32), body)


# Section 5: initialising

def run_init(arguments, place):
    store, secret = place.store, place.secret
    os.makedirs(store.root, exist_ok=True)
    if [key for key in store.list() if not key.startswith(("probe/", "keys/"))]:
        raise Stop(3, "there is something in the directory")
    master, repository, salt = (secrets.token_bytes(n) for n in (32, 16, 32))
    slot = f"keys/{secrets.token_hex(16)}"
    memory, passes, lanes = 8192, 1, 1
    head = (f.header(2) + repository + bytes([1, 0, 0, 0]) + f.little(memory, 4) + f.little(passes, 4)
            + f.little(lanes, 4) + salt)
    wrap = f.slot_secret(secret, salt, memory, passes, lanes)
    clear = head + wrap[32:64]
    sealed = f.AESGCM(wrap[:32]).encrypt(wrap[64:], master, clear + slot.encode())
    store.create(slot, clear + sealed + f.blake3(clear + sealed).digest())

    body = f.header(1) + repository + bytes(24) + bytes([0, 1]) + bytes(6)
    mac = f.keyed(f.Keys(master, repository).format, b"format/1" + body)
    if not store.create("format/1", body + mac + f.blake3(body + mac).digest()):
        raise Stop(3, "another one made the repository")


# Section 9: sessions

def run_write(arguments, place):
    store, keys = place.store, place.keys
    with open(arguments.objects, encoding="utf-8") as file:
        types = json.load(file)["types"]
    cluster, session = keys.cluster_key(arguments.cluster), arguments.session
    end_key = f"end/{cluster.hex()}/{session.hex()}"

    # 1. Version 1 knows no garbage collection, so the generation is 0 or not for it.
    refuse_collection(store)
    if store.read(end_key) is not None:
        raise Stop(3, "the session has ended already")
    # 2.
    random = secrets.token_bytes(32)
    body = bytes([1]) + f.little(0, 8) + random + bytes(16) + f.little(0, 2)
    open_key = f"open/{cluster.hex()}/0-{session.hex()}"
    if not store.create(open_key, record(keys, open_key, body)):
        raise Stop(3, "the session was begun already")
    # 3.
    refuse_collection(store)
    # 4. Only now; the index holds the chunks of committed sessions alone. What a later
    # version wrote and this one cannot read is not built on.
    before = Repository(store, keys, lambda *_: None, NEWEST)
    seen = [s.committed[1].sequence for s in before.snapshots() if s.committed[0].cluster == cluster]
    # 5.
    for n in range(1, arguments.beats + 1):
        beat_key = f"beat/{session.hex()}/{n}"
        store.create(beat_key, record(keys, beat_key, f.little(n, 8)))
    pause(arguments, "packs")
    sink = ChunkSink(keys, session, random, set(before.places), store)
    root, summary = save(arguments, types, sink)
    packs = sink.finish()
    pause(arguments, "index")
    if packs:
        index_key = f"index/{session.hex()}"
        body = random + f.little(len(packs), 4) + b"".join(map(index_entry, packs))
        if not store.create(index_key, record(keys, index_key, body)):
            raise Stop(3, "there is an index of this session already")
    # 6.
    pause(arguments, "commit")
    sequence = max(seen, default=0) + 1
    body = (bytes([f.COMMITTED]) + f.little(0, 8) + f.little(sequence, 8) + root
            + f.little(len(packs), 4) + f.little(len(summary), 4) + summary)
    if not store.create(end_key, record(keys, end_key, body)):
        raise Stop(4, "the session is fenced")
    # 7.
    pause(arguments, "acknowledge")
    if store.list("index/runs/"):
        raise Stop(5, "there is a run that version 1 cannot read: the commit is not acknowledged")
    print(json.dumps({"session": session.hex(), "sequence": sequence, "packs": len(packs),
                      "chunks": sum(len(pack.entries) for pack in packs)}))


def refuse_collection(store):
    for prefix in ("gc/", "index/runs/"):
        found = store.list(prefix)
        if found:
            raise Stop(3, f"{found[0]} is of a version that collects garbage")


def give_up(key, problem):
    raise CannotOpen(f"{key} {problem}")


def pause(arguments, at):
    if at not in arguments.pause_before:
        return
    print(f"paused before {at}", flush=True)
    if not sys.stdin.readline():
        raise Stop(6, f"nothing more on stdin before {at}")


def index_entry(pack):
    return (f.little(pack.n, 4) + f.little(pack.number, 1) + f.little(pack.length, 4) + pack.commitment
            + f.little(len(pack.entries), 4) + b"".join(map(f.write_entry, pack.entries)))


def save(arguments, types, sink):
    """Stores the archive. Gives the root chunk's id and the summary."""
    secret = sink.boundaries()
    types = sorted(types, key=lambda kind: (kind.get("group", ""), kind["resource"]))
    saved = [save_type(sink, secret, kind) for kind in types]
    summary = {
        "version": 1,
        "cluster": {"name": arguments.cluster_name, "uid": arguments.cluster},
        "schedule": arguments.schedule,
        "backup": arguments.backup,
        "backupUid": f"00000000-0000-4000-8000-{arguments.session.hex()[:12]}",
        "takenAt": arguments.taken_at,
        "completeness": "Complete",
        "consistency": "Exact",
        "objects": sum(kind["objects"] for kind in saved),
        "kubernetesVersion": "v1.36.3",
    }
    manifest = {"version": 1, "summary": summary, "revision": "1", "selection": {}, "volumes": "Save",
                "ownNamespace": "lifebuoy", "types": saved}
    return sink.put(17, to_json(manifest)), to_json(summary)


def to_json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# Fences and forgetting

def run_fence(arguments, place):
    store, keys = place.store, place.keys
    end_key = f"end/{keys.cluster_key(arguments.cluster).hex()}/{arguments.session.hex()}"
    if not store.create(end_key, record(keys, end_key, bytes([f.FENCED]) + f.little(0, 8))):
        raise Stop(3, "the session has ended already")


def run_forget(arguments, place):
    store, keys = place.store, place.keys
    reason = arguments.reason.encode()
    key = f"forget/{arguments.session.hex()}"
    store.create(key, record(keys, key, f.little(len(reason), 2) + reason))


# Many commands

def run_serve(arguments, place):
    place.keys  # opened before anybody may upgrade
    print("open", flush=True)
    for line in iter(sys.stdin.readline, ""):
        print(f"exit {run(parse_arguments(shlex.split(line)), place)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
