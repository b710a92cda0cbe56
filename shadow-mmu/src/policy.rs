//! Switches: values chosen per VM. A switch never changes what the guest sees, only what it costs.

use core::fmt;
use core::str::FromStr;

/// What happens when the guest writes an entry of a tracked leaf table whose shadow entry is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EagerFill {
    /// Nothing; the next access fills by a hidden fault.
    Never,
    /// The shadow entry is made at once if the new guest entry has A set already: the guest says that it will be used, and
    /// nothing would be learnt from the fault. (lguest does the same for every entry.)
    IfAccessed,
}

/// How guest page tables are kept in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Every guest write to a page table traps. The reference.
    WriteProtect,
    /// The first write to a leaf table makes it writable; it is brought in step when the guest flushes. See `sync`.
    Unsync {
        /// Most tables that are out of sync at once, 1 to [`MAX_UNSYNC`](Self::MAX_UNSYNC); with one more the oldest is brought
        /// in step.
        tables: u16,
    },
    /// No table is tracked. The shadow is filled on a miss, and forgets what the guest flushes. See `vtlb`.
    VirtualTlb,
}

impl SyncPolicy {
    /// Most tables that can be out of sync at once.
    pub const MAX_UNSYNC: u16 = 1024;

    /// `unsync` with its usual bound.
    pub const UNSYNC: Self = Self::Unsync { tables: 32 };

    #[inline]
    pub(crate) const fn is_vtlb(self) -> bool {
        matches!(self, Self::VirtualTlb)
    }

    /// The bound on tables out of sync.
    pub(crate) fn unsync_limit(self) -> usize {
        match self {
            Self::WriteProtect | Self::VirtualTlb => 0,
            Self::Unsync { tables } => usize::from(tables.clamp(1, Self::MAX_UNSYNC)),
        }
    }
}

/// All switches of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How tables are kept in step.
    pub sync: SyncPolicy,
    /// What a write to a leaf entry does beyond dropping what is stale.
    pub eager_fill: EagerFill,
    /// Give up the shadow of a table that is written by user code, or by less than a whole entry, or that nothing links any
    /// more: it is probably data by now.
    pub reuse_detection: bool,
}

impl Policy {
    /// What a VM has that says nothing.
    pub const DEFAULT: Self =
        Self { sync: SyncPolicy::WriteProtect, eager_fill: EagerFill::IfAccessed, reuse_detection: true };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why text is no [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyError;

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", Policy::WORDS)
    }
}

impl Policy {
    /// What a policy is written as: words with commas between them.
    pub const WORDS: &'static str =
        "write-protect, unsync, unsync:N or vtlb, and switches with commas between: eager=on|off, reuse=on|off";

    /// Reads one word into the policy.
    fn read(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            Some((key, value)) => self.read_switch(key, value),
            None => self.read_sync(word),
        }
    }

    fn read_sync(&mut self, word: &str) -> Option<()> {
        self.sync = match word.split_once(':') {
            Some(("unsync", tables)) => SyncPolicy::Unsync { tables: number(tables, 1, SyncPolicy::MAX_UNSYNC)? },
            None if word == "write-protect" => SyncPolicy::WriteProtect,
            None if word == "unsync" => SyncPolicy::UNSYNC,
            None if word == "vtlb" => SyncPolicy::VirtualTlb,
            _ => return None,
        };
        Some(())
    }

    fn read_switch(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "eager" => self.eager_fill = if on_off(value)? { EagerFill::IfAccessed } else { EagerFill::Never },
            "reuse" => self.reuse_detection = on_off(value)?,
            _ => return None,
        }
        Some(())
    }
}

/// `unsync,reuse=off` and the like; what is not said is as in [`Policy::DEFAULT`].
impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::DEFAULT;
        for word in text.split(',') {
            policy.read(word).ok_or(PolicyError)?;
        }
        Ok(policy)
    }
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn number(text: &str, least: u16, most: u16) -> Option<u16> {
    text.parse().ok().filter(|n| (least..=most).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_from_words() {
        let read = |text: &str| text.parse::<Policy>();
        assert_eq!(
            read("write-protect,eager=on,reuse=on"),
            Ok(Policy { sync: SyncPolicy::WriteProtect, ..Policy::DEFAULT })
        );
        assert_eq!(read("unsync:7").map(|policy| policy.sync), Ok(SyncPolicy::Unsync { tables: 7 }));
        assert_eq!(
            read("reuse=off,vtlb"),
            Ok(Policy { sync: SyncPolicy::VirtualTlb, reuse_detection: false, ..Policy::DEFAULT })
        );
        for wrong in ["", "unsync:0", "unsync:9999", "vtlb:3", "eager", "eager=1", "vtlb,", "Unsync", "vtlb reuse=on"] {
            assert_eq!(read(wrong), Err(PolicyError), "{wrong}");
        }
    }
}
