#!/usr/bin/env python3
"""Reads a lifebuoy repository without lifebuoy.

Written from docs/format.md and docs/format-archive.md alone, as the proof that a
repository can be read when the program is gone. It lists, verifies and extracts;
it never writes into a repository.
"""

import argparse
import hashlib
import os
import sys

sys.dont_write_bytecode = True

import repo_format as f  # noqa: E402
from archive import Archive, canonical, label, merged, parse_json, rendered, secret_key  # noqa: E402
from repo_format import Damaged  # noqa: E402
from repository import CannotOpen, Repository, unlock  # noqa: E402
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
    command = commands.add_parser("extract", help="write every Kubernetes object of a snapshot to a file")
    command.add_argument("snapshot", help="its session id, or the unambiguous beginning of one")
    command.add_argument("directory", help="must be empty or not exist")
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
        cluster = summary.get("cluster") or {}
        print(snapshot["session"], snapshot["cluster"], snapshot["sequence"],
              "forgotten" if snapshot["forgotten"] else "kept", summary.get("takenAt"),
              cluster.get("name"), summary.get("backup"), summary.get("completeness"),
              summary.get("consistency"), f"{summary.get('objects')} objects")
    return min(problems.count, 1)


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
              f"with {counts['kubernetesObjects']} Kubernetes objects: {len(report.findings)} findings")
    return 1 if report.findings else 0


# extract

def run_extract(arguments, store, secret):
    problems = Problems()
    repository = open_repository(arguments, store, secret, problems)
    chosen = [s for s in repository.snapshots() if s.id.hex().startswith(arguments.snapshot)]
    if len(chosen) != 1:
        raise CannotOpen(f"{len(chosen)} snapshots begin with {arguments.snapshot!r}")
    os.makedirs(arguments.directory, exist_ok=True)
    if os.listdir(arguments.directory):
        raise CannotOpen(f"{arguments.directory} is not empty")
    written = 0
    for kind, item, whole in objects(repository, chosen[0], problems):
        path = os.path.join(arguments.directory, *file_path(kind, item))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(rendered(whole) + "\n")
        written += 1
    if arguments.json:
        show({"objects": written, "problems": problems.count})
    else:
        print(f"wrote {written} objects")
    return min(problems.count, 1)


def objects(repository, session, problems):
    """Every object of a snapshot that can be read: its type, its columns, and both merged."""
    key, end = session.committed
    try:
        archive = Archive(repository.chunk, end.root, secret_key(repository.keys, b"object"),
                          lambda problem: problems(key.text, problem))
        types = archive.types()
    except Damaged as damage:
        problems(key.text, f"the snapshot cannot be read: {damage}")
        return
    for kind in types:
        for item in archive.objects(kind):
            try:
                yield kind, item, merged(item)
            except Damaged as damage:
                problems(key.text, f"{kind.name}: {label((item.namespace, item.name))}: {damage}")


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
        digests = {}
        for kind, item, whole in objects(repository, session, problems):
            digest = hashlib.sha256(canonical(whole).encode()).hexdigest()
            digests.setdefault(kind.name, {})[label((item.namespace, item.name))] = digest
        pinned = {"pinned": True} if session.pinned else {}
        snapshots.append({**snapshot, **pinned, "objects": digests})
    show({"repository": repository.keys.repository.hex(), **collected, "sessions": sessions, "snapshots": snapshots})
    return min(problems.count, 1)


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
