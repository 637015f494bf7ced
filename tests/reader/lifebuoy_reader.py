#!/usr/bin/env python3
"""Reads a lifebuoy repository without lifebuoy.

Written from docs/format.md, docs/format-archive.md and docs/format-data.md alone, as
the proof that a repository can be read when the program is gone. It lists, verifies and extracts;
it never writes into a repository.
"""

import argparse
import hashlib
import os
import sys

sys.dont_write_bytecode = True

import repo_format as f  # noqa: E402
from archive import Archive, canonical, label, merged, parse_json, rendered  # noqa: E402
from extract import described, extract  # noqa: E402
from repo_format import Damaged  # noqa: E402
from repository import CannotOpen, Repository, unlock  # noqa: E402
from snapshots import open_snapshot  # noqa: E402
from store import Directory  # noqa: E402
from verify import verify  # noqa: E402

FILE_NAME_BYTES_MAX = 255


def main():
    arguments = parse_arguments()
    try:
        store = Directory(arguments.repository)
        if not os.path.isdir(store.root):
            raise CannotOpen(f"{arguments.repository} is not a directory")
        return arguments.run(arguments, store, passphrase(arguments))
    except (CannotOpen, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repository", metavar="DIR", default=os.environ.get("LIFEBUOY_REPOSITORY", "."),
                        help="the directory that holds format/ and keys/ (default: LIFEBUOY_REPOSITORY or .)")
    parser.add_argument("--passphrase-file", metavar="FILE",
                        help="holds the passphrase; line ends after it do not count "
                             "(default: the variable LIFEBUOY_PASSPHRASE)")
    parser.add_argument("--without-index", action="store_true",
                        help="find chunks by the trailers of the packs, not by the index")
    parser.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="the snapshots")
    command.set_defaults(run=run_list)
    command = commands.add_parser("verify", help="read everything; exit 1 if anything is wrong")
    command.set_defaults(run=run_verify)
    command = commands.add_parser("extract", help="write what a snapshot holds to disk: each Kubernetes object "
                                                   "as a file, files as they were, a device as its image")
    command.add_argument("snapshot", help="its session id, or the unambiguous beginning of one")
    command.add_argument("place", help="must not exist, or be an empty directory")
    command.set_defaults(run=run_extract)
    command = commands.add_parser("describe", help="everything in the repository with a digest per object, as JSON")
    command.set_defaults(run=run_describe)
    return parser.parse_args()


def passphrase(arguments):
    """Section 3: UTF-8, without the line ends that files and pipes put after it."""
    found = os.environb.get(b"LIFEBUOY_PASSPHRASE", b"")
    if arguments.passphrase_file:
        try:
            with open(arguments.passphrase_file, "rb") as file:
                found = file.read()
        except OSError as error:
            raise CannotOpen(f"cannot read the passphrase: {error}") from None
    if not found.rstrip(b"\r\n"):
        raise CannotOpen("no passphrase: set LIFEBUOY_PASSPHRASE or give --passphrase-file")
    return found.rstrip(b"\r\n")


class Problems:
    """Prints what cannot be read, and goes on."""

    def __init__(self):
        self.count = 0

    def __call__(self, key, problem):
        self.count += 1
        print(f"{key}: {problem}", file=sys.stderr)


def open_repository(arguments, store, secret, problems):
    repository = Repository(store, unlock(store, secret, problems), problems)
    if arguments.without_index:
        repository.find_chunks_by_trailers()
    return repository


def show(value):
    print(rendered(value))


# list

def summaries(repository, problems):
    for session in repository.snapshots():
        key, end = session.committed
        try:
            summary = parse_json(end.summary, "the summary")
        except Damaged as damage:
            problems(key.text, str(damage))
            continue
        yield session, {
            "session": session.id.hex(),
            "cluster": key.cluster.hex(),
            "sequence": end.sequence,
            "forgotten": session.forget is not None,
            "summary": summary,
        }


def run_list(arguments, store, secret):
    problems = Problems()
    repository = open_repository(arguments, store, secret, problems)
    found = [snapshot for _, snapshot in summaries(repository, problems)]
    if arguments.json:
        show(found)
        return min(problems.count, 1)
    for snapshot in found:
        summary = snapshot["summary"]
        print(snapshot["session"], snapshot["cluster"], snapshot["sequence"],
              "forgotten" if snapshot["forgotten"] else "kept", summary.get("takenAt"), *in_words(summary))
    return min(problems.count, 1)


def in_words(summary):
    if "data" in summary:
        return (summary.get("kind"), summary.get("host"), summary.get("path"),
                f"{summary.get('entries')} entries", f"{summary.get('bytes')} bytes")
    cluster = summary.get("cluster") or {}
    return (cluster.get("name"), summary.get("backup"), summary.get("completeness"),
            summary.get("consistency"), f"{summary.get('objects')} objects")


# verify

def run_verify(arguments, store, secret):
    report = verify(store, secret)
    if arguments.json:
        show({
            "findings": [{"key": key, "problem": problem} for key, problem in report.findings],
            "notes": [{"key": key, "remark": remark} for key, remark in report.notes],
            "read": report.counts,
        })
    else:
        for key, problem in report.findings:
            print(f"{key}: {problem}")
        for key, remark in report.notes:
            print(f"note: {key}: {remark}")
        counts = report.counts
        print(f"read {counts['objects']} objects with {counts['chunks']} chunks, {counts['snapshots']} snapshots "
              f"with {counts['kubernetesObjects']} Kubernetes objects, {counts['entries']} files and "
              f"{counts['devices']} devices: {len(report.findings)} findings")
    return 1 if report.findings else 0


# extract

def run_extract(arguments, store, secret):
    problems = Problems()
    repository = open_repository(arguments, store, secret, problems)
    chosen = [s for s in repository.snapshots() if s.id.hex().startswith(arguments.snapshot)]
    if len(chosen) != 1:
        raise CannotOpen(f"{len(chosen)} snapshots begin with {arguments.snapshot!r}")
    if os.path.lexists(arguments.place) and not (os.path.isdir(arguments.place) and not os.listdir(arguments.place)):
        raise CannotOpen(f"{arguments.place} is there, and no empty directory")
    kind, written = "entries", 0
    found = opened(repository, chosen[0], problems)
    if isinstance(found, Archive):
        kind, written = "objects", extract_objects(found, arguments.place, problems, chosen[0])
    elif found:
        written = extract(found, arguments.place)
    if arguments.json:
        show({kind: written, "problems": problems.count})
    else:
        print(f"wrote {written} {kind}")
    return min(problems.count, 1)


def opened(repository, session, problems):
    """What a snapshot points to, or None."""
    key = session.committed[0].text
    try:
        return open_snapshot(repository, session, lambda problem: problems(key, problem))
    except Damaged as damage:
        problems(key, f"the snapshot cannot be read: {damage}")
        return None


def extract_objects(archive, directory, problems, session):
    os.makedirs(directory, exist_ok=True)
    written = 0
    for kind, item, whole in objects(archive, problems, session):
        path = os.path.join(directory, *file_path(kind, item))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(rendered(whole) + "\n")
        written += 1
    return written


def objects(archive, problems, session):
    """Every object of a snapshot that can be read: its type, its columns, and both merged."""
    key = session.committed[0].text
    try:
        types = archive.types()
    except Damaged as damage:
        problems(key, f"the snapshot cannot be read: {damage}")
        return
    for kind in types:
        for item in archive.objects(kind):
            try:
                yield kind, item, merged(item)
            except Damaged as damage:
                problems(key, f"{kind.name}: {label((item.namespace, item.name))}: {damage}")


def file_path(kind, item):
    """group.resource/namespace/name.json, or group.resource/name.json."""
    parts = [kind.name] + ([item.namespace] if item.namespace else [])
    return [file_name(part) for part in parts] + [file_name(item.name, ".json")]


def file_name(name, suffix=""):
    """A name that stays in its folder, whatever the repository says.

    Names of Kubernetes come out as they are, but for those too long for a file.
    """
    safe = "".join(f"%{ord(c):02X}" if c in "%/\\" or ord(c) < 32 or ord(c) == 127 else c for c in name)
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len((safe + suffix).encode()) > FILE_NAME_BYTES_MAX:
        safe = safe.encode()[:150].decode(errors="ignore") + "%" + hashlib.sha256(name.encode()).hexdigest()
    return safe + suffix


# describe

def run_describe(arguments, store, secret):
    problems = Problems()
    repository = open_repository(arguments, store, secret, problems)
    sessions = []
    collected = {"collections": collections(repository)} if repository.collected else {}
    for session in sorted(repository.sessions.values(), key=lambda session: session.id):
        births = session.keys.get("open", []) + session.keys.get("end", [])
        sessions.append({
            "session": session.id.hex(),
            "cluster": births[0].cluster.hex() if births else None,
            "state": session.state,
            "beats": len(session.beats),
            "packs": len(session.packs),
        })
    snapshots = []
    for session, snapshot in summaries(repository, problems):
        found = opened(repository, session, problems)
        pinned = {"pinned": True} if session.pinned else {}
        held = {}
        if isinstance(found, Archive):
            held = {"objects": digests(found, problems, session)}
        elif found:
            held = described(found)
        snapshots.append({**snapshot, **pinned, **held})
    show({"repository": repository.keys.repository.hex(), **collected, "sessions": sessions, "snapshots": snapshots})
    return min(problems.count, 1)


def digests(archive, problems, session):
    found = {}
    for kind, item, whole in objects(archive, problems, session):
        digest = hashlib.sha256(canonical(whole).encode()).hexdigest()
        found.setdefault(kind.name, {})[label((item.namespace, item.name))] = digest
    return found


def collections(repository):
    """What format 2 adds: collections, the newest run, the keeper, and what was mended."""
    def names(packs):
        return [f.pack_key(*pack) for pack in packs]

    keeper = max(repository.claims.items(), default=None)
    return {
        "plans": {str(n): {"forgets": [session.hex() for session in plan.forgets], "packs": names(plan.packs)}
                  for n, plan in repository.plans.items()},
        "finals": {str(n): names(last) for n, last in repository.finals.items()},
        "run": repository.run,
        "live": sorted(session.hex() for session in repository.live),
        "keeper": keeper and {"term": keeper[0], "cluster": keeper[1].cluster.hex()},
        "mended": sorted(text[len(f.MEND):] for text in repository.mends),
    }


if __name__ == "__main__":
    sys.exit(main())
