"""Reads everything in a repository and names what is wrong, each with a key.

Every object by itself, each session's objects against one another, and the tree of
every snapshot down to each Kubernetes object. Never repairs and never writes.
"""

import repo_format as f
from archive import Archive, field, label, merged, parse_json, secret_key
from repo_format import Damaged, require
from repository import CannotOpen, Repository, fetch


class Report:
    """What is wrong, and what was read. A finding has the key of the object to look at."""

    def __init__(self):
        self.findings, self.notes = [], []
        self.counts = {"objects": 0, "chunks": 0, "snapshots": 0, "kubernetesObjects": 0}

    def damaged(self, key, problem):
        if (key, problem) not in self.findings:
            self.findings.append((key, problem))

    def note(self, key, remark):
        self.notes.append((key, remark))


def verify(store, passphrase):
    report = Report()
    try:
        repository = Repository(store, passphrase, report.damaged)
    except CannotOpen as error:
        if not report.findings:
            raise
        report.note("format/", f"nothing else was read: {error}")
        return report
    _check_objects(repository, report)
    for session in sorted(repository.sessions.values(), key=lambda session: session.id):
        _check_session(repository, session, report)
    _check_sequences(repository, report)
    for session in repository.snapshots():
        # What is forgotten may be collected.
        if not (session.forget and repository.collected):
            _check_snapshot(repository, session, report)
    for key in repository.ignored:
        report.note(key, "is not a key of the format, and ignored")
    return report


# Every object by itself

def _check_objects(repository, report):
    for key in repository.objects:
        report.counts["objects"] += 1
        check = CHECKS.get(key.kind.name)
        if check is None:
            continue
        try:
            check(repository, key, fetch(repository.store, key.text), report)
        except Damaged as damage:
            report.damaged(key.text, str(damage))


def _check_format(repository, key, data, report):
    require(f.parse_format(data, key.n).repository == repository.keys.repository,
            "has the id of another repository")


def _check_slot(repository, key, data, report):
    if f.parse_slot(data, key.text).repository != repository.keys.repository:
        report.note(key.text, "is left over from an initialisation that lost a race")


def _check_pack(repository, key, data, report):
    """All bytes of a pack. One damaged chunk does not end it: the others are read too."""
    pack = f.Pack(repository.keys, key, data)
    try:
        pack.check_hash()
    except Damaged as damage:
        report.damaged(key.text, str(damage))
    for position, (offset, entry) in enumerate(pack.entries()):
        try:
            pack.chunk(position, offset, entry)
            report.counts["chunks"] += 1
        except Damaged as damage:
            report.damaged(key.text, f"{damage} ({entry.id.hex()})")


def _check_probe(repository, key, data, report):
    require(len(data) == 32, f"has {len(data)} bytes instead of 32")


# Records were read when the repository was opened. A later version adds its types here.
def _check_record(repository, key, data, report):
    f.open_record(repository.keys, key, data)


CHECKS = {
    **dict.fromkeys(("plan", "run", "final", "part", "keeper", "mend"), _check_record),
    "format": _check_format,
    "slot": _check_slot,
    "data": _check_pack,
    "meta": _check_pack,
    "probe": _check_probe,
}


# One session's objects against one another

def _check_session(repository, session, report):
    _check_births(repository, session, report)
    _check_index(repository, session, report)
    for key, beat in session.beats.items():
        if beat.n != key.n:
            report.damaged(key.text, f"says that it is heartbeat {beat.n}")
    if session.forget and session.state in ("open", "fenced"):
        name = f"forget/{session.id.hex()}"
        report.note(name, f"asks to forget a session that is {session.state}")


def _check_births(repository, session, report):
    for records in (session.opens, session.ends):
        for key in list(records)[1:]:
            report.damaged(key.text, "is a second one of its session")
    for key, begun in session.opens.items():
        if begun.generation != key.n:
            report.damaged(key.text, f"says that its birth generation is {begun.generation}")
        for at, end in session.ends.items():
            if at.cluster != key.cluster:
                report.damaged(at.text, f"is of another cluster than {key.text}")
            elif end.outcome == f.COMMITTED and end.generation != begun.generation:
                report.damaged(at.text, f"has another birth generation than {key.text}")
    # A collector tidies up what is over, in its own order (section 9, step 11).
    if "open" in session.keys or repository.run and not repository.counts(session):
        return
    # A fence works without an open object, and nothing else does. Version 1 deletes nothing.
    for key in (key for keys in session.keys.values() for key in keys):
        if key not in session.ends or session.ends[key].outcome != f.FENCED:
            report.damaged(key.text, "is of a session without an open object")


def _check_index(repository, session, report):
    """The index delta against what the end record, the open object and the packs say."""
    name = f"index/{session.id.hex()}"
    there = "index" in session.keys
    committed = session.committed
    covered = committed and committed[1].generation < repository.run
    if committed and committed[1].packs and not there and not covered:
        report.damaged(name, f"is missing, and the session is committed with {committed[1].packs} packs")
    if session.index and committed and committed[1].packs != len(session.index.packs):
        report.damaged(name, f"lists {len(session.index.packs)} packs instead of {committed[1].packs}")
    listed = {pack.n: pack for pack in session.index.packs} if session.index else {}
    randoms = {begun.random for begun in session.opens.values()}
    if session.index and randoms and session.index.random not in randoms:
        report.damaged(name, "has another session random than the open object")
    for n, pack in listed.items():
        key = f.pack_key(session.id, n, pack.number)
        if key not in [at.text for at in session.packs.get(n, ())] and not repository.collected:
            report.damaged(key, f"is missing, and {name} lists it")
    for n, keys in sorted(session.packs.items()):
        for key in keys:
            if len(keys) > 1:
                report.damaged(key.text, f"is one of {len(keys)} packs with the number {n}")
            if session.index and n not in listed:
                report.damaged(key.text, f"is not listed in {name}")
            _compare_pack(repository, session, key, listed.get(n), randoms, report)


def _compare_pack(repository, session, key, listed, randoms, report):
    try:
        pack = f.Pack(repository.keys, key, fetch(repository.store, key.text))
        require(not randoms or pack.random in randoms, "has another session random than the open object")
        if listed is None:
            return
        where = f"index/{session.id.hex()}"
        require(pack.random == session.index.random, f"has another session random than {where}")
        require(key.kind.number == listed.number, f"has another type than in {where}")
        require(len(pack.data) == listed.length, f"has {len(pack.data)} bytes instead of {listed.length}")
        require(pack.commitment == listed.commitment, f"has another key commitment than in {where}")
        require([entry for _, entry in pack.entries()] == listed.entries, f"holds other chunks than {where} says")
    except Damaged as damage:
        report.damaged(key.text, str(damage))


def _check_sequences(repository, report):
    """A sequence is one more than one that was seen, so a gap is a snapshot that is gone."""
    if repository.collected:
        return
    clusters = {}
    for session in repository.snapshots():
        key, end = session.committed
        clusters.setdefault(key.cluster, set()).add(end.sequence)
    for cluster, found in clusters.items():
        for missing in sorted(set(range(min(found), max(found))) - found)[:20]:
            report.damaged(f"end/{cluster.hex()}/", f"has no snapshot with the sequence {missing}")


# Snapshots

def _check_snapshot(repository, session, report):
    key, end = session.committed[0].text, session.committed[1]
    report.counts["snapshots"] += 1
    try:
        summary = parse_json(end.summary, "the summary")
        archive = Archive(repository.chunk, end.root, secret_key(repository.keys, b"object"),
                          lambda problem: report.damaged(key, problem))
        types = archive.types()
        require(archive.manifest.get("summary") == summary, "the manifest has another summary")
        objects = field(summary, "objects", int)
        uid = field(field(summary, "cluster", dict), "uid", str)
        require(repository.keys.cluster_key(uid) == session.committed[0].cluster,
                "the summary names a cluster with another cluster key")
    except Damaged as damage:
        report.damaged(key, f"the snapshot cannot be read: {damage}")
        return
    total = 0
    for kind in types:
        for item in archive.objects(kind):
            total += 1
            _check_item(kind, item, key, report)
    if total != objects:
        report.damaged(key, f"the snapshot has {total} objects instead of {objects}")
    report.counts["kubernetesObjects"] += total


def _check_item(kind, item, key, report):
    name = f"{kind.name}: {label((item.namespace, item.name))}"
    try:
        whole = merged(item)
    except Damaged as damage:
        report.damaged(key, f"{name}: {damage}")
        return
    if (whole.get("apiVersion"), whole.get("kind")) != (kind.api_version, kind.kind):
        report.damaged(key, f"{name}: is {whole.get('apiVersion')} {whole.get('kind')}")
    if bool(item.namespace) != kind.namespaced:
        report.damaged(key, f"{name}: its namespace is not as its type says")
