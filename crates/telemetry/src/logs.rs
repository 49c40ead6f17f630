//! Logs on stderr: JSON unless a person looks at a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Sets logging up for the process; a second call changes nothing.
///
/// `level` is one of `error`, `warn`, `info`, `debug`, `trace`.
pub fn init_logs(level: &str) {
    // Libraries speak only when something is wrong.
    let filter = EnvFilter::new(format!("warn,tidings={level}"));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let set = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().try_init()
    };
    if let Err(error) = set {
        tracing::debug!(%error, "logging was set up already");
    }
}
