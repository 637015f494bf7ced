"""Reads everything in a repository and names what is wrong, each with a key.

Every object by itself, each session's objects against one another, and the tree of
every snapshot down to each Kubernetes object and each byte of a file. Never repairs and never writes.
"""

import repo_format as f
from archive import Archive, field, label, merged, parse_json
from files import FILE
from repo_format import Damaged, require
from repository import CannotOpen, Repository, fetch, unlock
from snapshots import open_snapshot, open_volume


class Report:
    """What is wrong, and what was read. A finding has the key of the object to look at."""

    def __init__(self):
        self.findings, self.notes = [], []
        self.mends = {}
        self.counts = {"objects": 0, "chunks": 0, "snapshots": 0, "kubernetesObjects": 0, "entries": 0, "devices": 0}

    def damaged(self, key, problem):
        if f.MEND + key in self.mends:
            self.note(key, f"{problem}, and {f.MEND}{key} stands in for it")
        elif (key, problem) not in self.findings:
            self.findings.append((key, problem))

    def note(self, key, remark):
        if (key, remark) not in self.notes:
            self.notes.append((key, remark))


def verify(store, passphrase):
    report = Report()
    try:
        repository = Repository(store, unlock(store, passphrase, report.damaged), report.damaged)
    except CannotOpen as error:
        if not report.findings:
            raise
        report.note("format/", f"nothing else was read: {error}")
        return report
    report.mends = repository.mends
    for key, problem in repository.healed:
        report.damaged(key, problem)
    _check_objects(repository, report)
    _check_collections(repository, report)
    for session in sorted(repository.sessions.values(), key=lambda session: session.id):
        _check_session(repository, session, report)
    _check_sequences(repository, report)
    for session in repository.snapshots():
        if session.id not in _going(repository):
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


# The other records were read when the repository was opened.
def _check_record(repository, key, data, report):
    f.open_record(repository.keys, key, data)


CHECKS = {
    **dict.fromkeys(("run", "part"), _check_record),
    "format": _check_format,
    "slot": _check_slot,
    "data": _check_pack,
    "meta": _check_pack,
    "probe": _check_probe,
}


# Collections, section 9

def _check_collections(repository, report):
    """Plans, finals and the newest run against one another and against what is there."""
    there = {key.text for key in repository.objects}
    numbers = {kind: {key.n for key in repository.objects if key.kind.name == kind} for kind in ("plan", "final", "run")}
    newest = max(numbers["plan"] | numbers["final"], default=0)
    for n, last in repository.finals.items():
        if n in repository.plans and not set(last) <= set(repository.plans[n].packs):
            report.damaged(f"gc/{n}.final", f"names packs that gc/{n}.plan does not")
    # F3 and F7: one after another, and each to its end.
    for n in numbers["plan"]:
        if n > 1 and max(numbers["run"], default=0) < n - 1:
            report.damaged(f"index/runs/{n - 1}", f"is missing, and there is gc/{n}.plan")
        if n < newest and n not in numbers["final"]:
            report.damaged(f"gc/{n}.final", f"is missing, and there is a collection {newest}")
    if repository.run > newest:
        report.damaged(f"gc/{repository.run}.final", f"is missing, and there is index/runs/{repository.run}")
    _check_run(repository, there, report)


def _check_run(repository, there, report):
    name = f"index/runs/{repository.run}"
    for session in sorted(repository.live):
        known = repository.sessions.get(session)
        ends = known.ends if known else {}
        if not known or "end" not in known.keys:
            report.damaged(f"end/…/{session.hex()}", f"is missing, and {name} lists the session as live")
        for key, end in ends.items():
            if end.outcome not in (f.COMMITTED, f.PART) or end.generation >= repository.run:
                report.damaged(key.text, f"is not what {name} lists as live")
    for session, index in repository.of_run(f.PACKS):
        for pack in index.packs:
            key = f.parse_key(f.pack_key(session, pack.n, pack.number))
            if key.text in there:
                _compare_pack(repository, key, pack, index.random, {index.random}, name, report)
            elif key.text not in _deleted(repository):
                report.damaged(key.text, f"is missing, and {name} lists it")


def _going(repository):
    """Snapshots that a collection may be deleting."""
    begun = [plan for n, plan in repository.plans.items() if n > repository.run and n in repository.finals]
    return {session for plan in begun for session in plan.forgets}


def _deleted(repository):
    """The keys of the packs that finals name."""
    return {f.pack_key(*pack) for last in repository.finals.values() for pack in last}


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
            elif end.outcome != f.FENCED and end.generation != begun.generation:
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
    committed = [end for end in session.ends.values() if end.outcome != f.FENCED and end.packs]
    # What is older is in the run, and tidied up.
    closed = repository.run and all(birth < repository.run for birth in session.births)
    for end in committed:
        if "index" not in session.keys and not closed:
            report.damaged(name, f"is missing, and the session is committed with {end.packs} packs")
        # What stands in for an index may list fewer.
        if session.index and f.MEND + name not in repository.mends and end.packs != len(session.index.packs):
            report.damaged(name, f"lists {len(session.index.packs)} packs instead of {end.packs}")
    listed = {pack.n: pack for pack in session.index.packs} if session.index else {}
    randoms = {begun.random for begun in session.opens.values()}
    if session.index and randoms and session.index.random not in randoms:
        report.damaged(name, "has another session random than the open object")
    for n, pack in listed.items():
        key = f.pack_key(session.id, n, pack.number)
        there = [at.text for at in session.packs.get(n, ())]
        if key not in there and not closed and key not in _deleted(repository):
            report.damaged(key, f"is missing, and {name} lists it")
    for n, keys in sorted(session.packs.items()):
        for key in keys:
            if len(keys) > 1:
                report.damaged(key.text, f"is one of {len(keys)} packs with the number {n}")
            if session.index and n not in listed:
                report.damaged(key.text, f"is not listed in {name}")
            random = session.index.random if session.index else None
            _compare_pack(repository, key, listed.get(n), random, randoms, name, report)


def _compare_pack(repository, key, listed, random, randoms, where, report):
    """A pack against what the index at `where` and the open object say."""
    try:
        pack = f.Pack(repository.keys, key, fetch(repository.store, key.text))
        require(not randoms or pack.random in randoms, "has another session random than the open object")
        if listed is None:
            return
        require(pack.random == random, f"has another session random than {where}")
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
        found = open_snapshot(repository, session, lambda problem: report.damaged(key, problem))
        require(found.manifest.get("summary") == summary, "the manifest has another summary")
        if isinstance(found, Archive):
            _check_archive(repository, session, found, summary, report)
        else:
            _check_files(found, report)
    except Damaged as damage:
        report.damaged(key, f"the snapshot cannot be read: {damage}")


def _check_files(snapshot, report):
    """Every entry, and all bytes: what is wrong with them, reading them reports."""
    if snapshot.is_device:
        report.counts["devices"] += 1
        for _ in snapshot.blocks():
            pass
        return
    for entry in snapshot.entries():
        report.counts["entries"] += 1
        snapshot.attributes(entry)
        if entry.kind == FILE:
            for _ in snapshot.pieces(entry):
                pass


def _check_archive(repository, session, archive, summary, report):
    key, types = session.committed[0].text, archive.types()
    objects = field(summary, "objects", int)
    uid = field(field(summary, "cluster", dict), "uid", str)
    require(repository.keys.cluster_key(uid) == session.committed[0].cluster,
            "the summary names a cluster with another cluster key")
    total = 0
    for kind in types:
        for item in archive.objects(kind):
            total += 1
            _check_item(kind, item, key, report)
    if total != objects:
        report.damaged(key, f"the snapshot has {total} objects instead of {objects}")
    report.counts["kubernetesObjects"] += total
    for volume in archive.volumes:
        where = f"volume {volume.name}"
        try:
            _check_files(open_volume(repository, volume, lambda text: report.damaged(key, f"{where}: {text}")), report)
        except Damaged as damage:
            report.damaged(key, f"{where}: cannot be read: {damage}")


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
