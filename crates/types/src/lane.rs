//! The two lanes of a webhook.

/// Which of a webhook's two queues a notification takes. Urgent ones never wait
/// behind standard ones (design §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    #[default]
    Standard,
    Urgent,
}

impl Lane {
    /// The partition of a webhook's delivery topic: 0 standard, 1 urgent.
    pub const fn partition(self) -> u32 {
        match self {
            Self::Standard => 0,
            Self::Urgent => 1,
        }
    }

    pub const fn from_partition(partition: u32) -> Self {
        if partition == 1 { Self::Urgent } else { Self::Standard }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Urgent => "urgent",
        }
    }
}
