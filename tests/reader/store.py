"""A directory as the object store: section 11 of docs/format.md.

Objects are created and read, and never changed or removed.
"""

import os
import re
import secrets

# Unfinished uploads; not objects.
_UNFINISHED = re.compile(r"#[0-9]+$")


class Directory:
    def __init__(self, root):
        self.root = os.path.abspath(root)

    def list(self, prefix=""):
        """The keys that begin with the prefix, in order."""
        keys = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, self.root).replace(os.sep, "/")
                if key.startswith(prefix) and not _UNFINISHED.search(name) and os.path.isfile(path):
                    keys.append(key)
        return sorted(keys)

    def read(self, key):
        """The bytes of an object, or None where there is none."""
        try:
            with open(os.path.join(self.root, key), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, key, data):
        """Creates an object. False if it exists, which is then as it was."""
        path = os.path.join(self.root, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = f"{path}#{secrets.randbelow(2**63)}"
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(unfinished)
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True
