"""Writes snapshots of files and devices to disk, and tells what they hold.

Nothing is written over, and nothing through a link: what is written to is new, and the
tree has nothing below what is no directory.
"""

import hashlib
import os
import stat

import files

SPECIAL = {files.FIFO: stat.S_IFIFO, files.SOCKET: stat.S_IFSOCK,
           files.CHARACTERS: stat.S_IFCHR, files.BLOCKS: stat.S_IFBLK}


def extract(snapshot, place):
    """Writes all that can be read to a place that is new. Returns how many entries."""
    place = os.fsencode(place)
    if snapshot.is_device:
        write(place, snapshot.blocks(), snapshot.bytes)
        return 1
    written, directories = 0, []
    for entry in snapshot.entries():
        target = os.path.join(place, entry.path) if entry.path else place
        try:
            make(snapshot, place, entry, target)
            if entry.kind == files.DIRECTORY:
                directories.append((entry, target))
            elif entry.kind != files.HARD_LINK:
                finish(snapshot, entry, target)
            written += 1
        except OSError as error:
            snapshot.report(f"{files.label(entry.path)}: {error}")
    # When everything is in them: their times stay, and so does who may write to them.
    for entry, target in reversed(directories):
        try:
            finish(snapshot, entry, target)
        except OSError as error:
            snapshot.report(f"{files.label(entry.path)}: {error}")
    return written


def make(snapshot, place, entry, target):
    if entry.path:
        # It is there unless the directory's own entry could not be read.
        os.makedirs(os.path.dirname(target), exist_ok=True)
    if entry.kind == files.DIRECTORY:
        os.makedirs(target, 0o700, exist_ok=True)
    elif entry.kind == files.FILE:
        write(target, snapshot.pieces(entry), entry.body.size)
    elif entry.kind == files.SYMLINK:
        os.symlink(entry.body, target)
    elif entry.kind == files.HARD_LINK:
        os.link(os.path.join(place, entry.body), target, follow_symlinks=False)
    else:
        os.mknod(target, SPECIAL[entry.kind] | 0o600, os.makedev(*entry.body) if entry.body else 0)


def write(target, pieces, size):
    with open(target, "xb") as file:
        for begin, plain in pieces:
            file.seek(begin)
            file.write(plain)
        file.truncate(size)


def finish(snapshot, entry, target):
    """Everything that an entry has besides its contents, the time last."""
    if os.geteuid() == 0:
        os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in snapshot.attributes(entry):
        os.setxattr(target, name, value, follow_symlinks=False)
    if entry.kind != files.SYMLINK:
        os.chmod(target, entry.mode)
    seconds, nanoseconds = entry.modified
    modified = seconds * 10**9 + nanoseconds
    os.utime(target, ns=(modified, modified), follow_symlinks=False)


# What is in a snapshot, as JSON

def described(snapshot):
    if snapshot.is_device:
        return {"device": {"bytes": snapshot.bytes, "blockBytes": snapshot.block_bytes,
                           "sha256": digest(snapshot.blocks(), snapshot.bytes)}}
    return {"entries": {files.label(entry.path): described_entry(snapshot, entry) for entry in snapshot.entries()}}


def described_entry(snapshot, entry):
    """A hard link has nothing of its own but its name."""
    told = {"kind": files.KINDS[entry.kind]}
    if entry.kind == files.HARD_LINK:
        return {**told, "target": files.label(entry.body)}
    told["mode"] = f"{entry.mode:04o}"
    told["owner"] = f"{entry.uid}:{entry.gid}"
    told["modified"] = f"{entry.modified[0]}+{entry.modified[1]}"
    attributes = {files.label(name): value.hex() for name, value in snapshot.attributes(entry)}
    if attributes:
        told["attributes"] = attributes
    if entry.kind == files.FILE:
        told["size"] = entry.body.size
        told["sha256"] = digest(snapshot.pieces(entry), entry.body.size)
    elif entry.kind == files.SYMLINK:
        told["target"] = files.label(entry.body)
    elif entry.body:
        told["device"] = "{}:{}".format(*entry.body)
    return told


def digest(pieces, size):
    hasher, end = hashlib.sha256(), 0
    for begin, plain in pieces:
        zeros(hasher, begin - end)
        hasher.update(plain)
        end = begin + len(plain)
    zeros(hasher, size - end)
    return hasher.hexdigest()


def zeros(hasher, count):
    block = bytes(1 << 20)
    while count > 0:
        hasher.update(block[:count])
        count -= len(block)
