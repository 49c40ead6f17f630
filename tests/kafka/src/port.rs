//! Ports for servers that are started, killed and started again on the same one.

use std::{
    io,
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below what systems give to connections of their own: a port of theirs may be
/// somebody's at the moment when the server is started again.
const FIRST: u32 = 12_000;
const PORTS: u32 = 20_000;

/// Ports that were asked for in this process.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// A port of loopback that is free now and that nobody else gets by chance. Processes
/// that ask at the same time begin far from each other.
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    let begin = process::id().wrapping_mul(977);
    for _ in 0..PORTS {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + begin.wrapping_add(asked) % PORTS;
        let port = u16::try_from(port).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
