//! The real randomness: ChaCha seeded by the operating system.

use parking_lot::Mutex;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use tidings_types::Rng;

/// Randomness for secrets and ids.
pub struct SystemRng(Mutex<StdRng>);

impl SystemRng {
    pub fn new() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SystemRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemRng")
    }
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sources_give_different_bytes_and_print_nothing() {
        let (one, other) = (SystemRng::new(), SystemRng::new());
        let (mut first, mut second) = ([0; 32], [0; 32]);
        one.fill(&mut first);
        other.fill(&mut second);
        assert_ne!(first, second);
        one.fill(&mut second);
        assert_ne!(first, second);
        assert_eq!(format!("{one:?}"), "SystemRng");
    }
}
