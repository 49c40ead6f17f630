//! How many files the process may have open, sockets included.
//!
//! A process that runs out of them cannot accept, connect, or open a table of its log. So
//! it takes what the system allows, and no more connections than that has room for.

use anyhow::bail;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::settings::Listen;

/// Connections to endpoints: under way, kept, and those whose answers are being read.
const EGRESS: u64 = 2_000 + 2_000 + 256;
/// The log, the view, brokers and the rest.
const OWN: u64 = 512;

/// Raises the limit of open files as far as the system lets, and says where it is then.
pub(super) fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised");
            soft
        }
    }
}

/// How many connections are taken at once with so many files: half of them, unless the
/// settings say how many.
pub(super) fn connections(listen: &Listen, files: u64) -> usize {
    let half = usize::try_from(files / 2).unwrap_or(usize::MAX).max(1);
    listen.max_connections.unwrap_or_else(|| Listen::MAX_CONNECTIONS.min(half))
}

/// How many files the process needs at its limits.
fn needed(listen: &Listen) -> u64 {
    let connections = listen.max_connections.unwrap_or(Listen::MAX_CONNECTIONS);
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(EGRESS + OWN)
}

/// Says so when there are fewer than are needed.
pub(super) fn warn(listen: &Listen, files: u64) {
    let needed = needed(listen);
    if files < needed {
        tracing::warn!(
            files,
            needed,
            connections = connections(listen, files),
            "the process may open fewer files than its limits need; raise the limit of open \
             files (LimitNOFILE, ulimit -Hn) or lower listen.max_connections"
        );
    }
}

/// # Errors
/// When the system does not allow as many files as are needed.
pub(super) fn check(listen: &Listen) -> anyhow::Result<()> {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let needed = needed(listen);
    if hard < needed {
        bail!(
            "setting `listen.max_connections`: a process may open {hard} files here and needs \
             {needed} at its limits; raise the limit of open files (LimitNOFILE, ulimit -Hn), or \
             set fewer connections"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(max_connections: Option<usize>) -> Listen {
        Listen {
            address: ([127, 0, 0, 1], 1).into(),
            tls: None,
            plain: false,
            max_connections,
            connections_per_peer: None,
        }
    }

    #[test]
    fn connections_fit_the_files_that_there_are() {
        assert_eq!(connections(&listen(None), u64::MAX), 4096);
        assert_eq!(connections(&listen(None), 256), 128);
        assert_eq!(connections(&listen(Some(1000)), 256), 1000);
        assert_eq!(needed(&listen(Some(100))), 100 + EGRESS + OWN);
    }
}
