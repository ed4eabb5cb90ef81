"""Which file systems are a network's: there neither SQLite's locks nor a kernel's flock hold everybody back."""

import os
from pathlib import Path

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"}


def is_network(folder: Path) -> bool:
    """Return whether the longest mount point above ``folder`` is a network's; unknown counts as local."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    place = os.path.realpath(folder)
    for line in mounts.splitlines():
        point, fstype = line.split()[1:3]
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind in _NETWORK or kind.startswith("fuse.sshfs")
