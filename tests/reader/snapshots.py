"""What a snapshot points to: Kubernetes objects, files, or a device."""

import files
from archive import Archive, secret_key


def open_snapshot(repository, session, report):
    """An `Archive` or a `files.Snapshot`. Raises `Damaged` if there is no telling."""
    root = session.committed[1].root
    if files.is_one(repository.chunk(root)):
        return files.Snapshot(repository.chunk, root, files.hash_key(repository.keys), report)
    return Archive(repository.chunk, root, secret_key(repository.keys, b"object"), report)


def open_volume(repository, volume, report):
    """The data of a volume of an `Archive`: a `files.Snapshot`."""
    return files.Snapshot(repository.chunk, volume.root, files.hash_key(repository.keys), report)
