//! The process's own metrics, and the text form of all.

use prometheus_client::{encoding::text, metrics::gauge::Gauge, registry::Registry};

/// What `/proc/self/statm` counts in, on the machines that we ship for.
const PAGE_BYTES: i64 = 4096;

/// Metrics of the process.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Resident memory of the process.
    resident_bytes: Gauge,
    /// File descriptors that the process has open: files and sockets.
    open_files: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tidings_process_resident_bytes",
            "Resident memory of the process",
            metrics.resident_bytes.clone(),
        );
        registry.register(
            "tidings_process_open_files",
            "File descriptors that the process has open: files and sockets",
            metrics.open_files.clone(),
        );
        metrics
    }

    /// Reads the figures anew; called before the metrics are shown.
    pub fn refresh(&self) {
        // Not on Linux: the gauges stay at zero.
        let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return };
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
        self.resident_bytes.set(pages.unwrap_or(0).saturating_mul(PAGE_BYTES));
        let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
        // One of them is the directory that is being read.
        let count = open.count().saturating_sub(1);
        self.open_files.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// All metrics in Prometheus' text form.
pub fn encode(registry: &Registry) -> String {
    let mut out = String::new();
    if text::encode(&mut out, registry).is_err() {
        debug_assert!(false, "writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_shows_memory_and_files_of_this_process() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        assert!(encode(&registry).contains("tidings_process_resident_bytes 0"));
        metrics.refresh();
        assert!(metrics.resident_bytes.get() > 100_000);
        let before = metrics.open_files.get();
        assert!(before > 2);
        let _file = std::fs::File::open("/proc/self/statm").unwrap();
        metrics.refresh();
        assert!(metrics.open_files.get() > before);
        assert!(encode(&registry).ends_with("# EOF\n"));
    }
}
