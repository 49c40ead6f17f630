//! Bytes that must not be seen.

use std::fmt;

use zeroize::Zeroizing;

/// A secret: prints as `***`, is wiped when dropped, and is compared in a time
/// that does not tell where two differ.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text, if it is UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether two byte strings are the same, in a time that does not tell where
/// they differ.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_and_compares_by_all_its_bytes() {
        let secret = Secret::from("hunter22");
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
        assert_eq!(secret, Secret::new(b"hunter22".to_vec()));
        assert_ne!(secret, Secret::from("hunter2"));
        assert_ne!(secret, Secret::from("hunter23"));
        assert_eq!(secret.expose_text(), Some("hunter22"));
        assert_eq!(Secret::new(vec![0xff]).expose_text(), None);
    }
}
