//! Identity of this machine: on the same machine, two processes see the same file under a path.

use sha2::{Digest, Sha256};

/// Hash of the identity of this machine since it booted. The machine id itself must stay private
/// (`man 5 machine-id`). `None` if there is no machine id, as in most containers.
pub(crate) fn machine() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).ok();
    // Copies of a machine image share its machine id, but no two boots share a boot id.
    let (id, start) = (read("/etc/machine-id")?, read("/proc/sys/kernel/random/boot_id")?);
    let hash = Sha256::digest(format!("task-server {} {}", id.trim(), start.trim()));
    (!id.trim().is_empty()).then(|| format!("{hash:x}"))
}
