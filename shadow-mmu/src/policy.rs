//! Switches: values chosen per VM. A switch never changes what the guest sees, only what it costs.

use core::fmt;
use core::str::FromStr;

use crate::view::MAX_VIEWS;

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
    pub(crate) fn unsync_limit(self) -> u16 {
        match self {
            Self::WriteProtect | Self::VirtualTlb => 0,
            Self::Unsync { tables } => tables.clamp(1, Self::MAX_UNSYNC),
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
    /// Under [`Unsync`](SyncPolicy::Unsync): how many writes to a leaf table since the last flush of the whole TLB are followed, before
    /// one lets it go. One write is cheaper followed than found by comparing a table.
    pub patience: u8,
    /// A fault fills the entries above its own as well, as long as their guest entries have A set, within an aligned block of this
    /// many entries; a power of two up to [`MAX_PREFETCH`](Self::MAX_PREFETCH), 1 for the one entry only.
    pub prefetch: u16,
    /// How many of the guest's roots are kept beside the current one, the last used; 0 drops each root when another is loaded. A root
    /// goes with its upper tables; leaf tables stay for who links them next. [`ALL_ROOTS`](Self::ALL_ROOTS) keeps what fits into the
    /// pool. The bound is exact: there are never more roots in the pool than this and the current one, each for as many views as the
    /// guest has now.
    pub root_cache: u16,
    /// This many writes to a table above the leaves, without a new link below it in between, give up its shadow: the guest fills or
    /// clears it as a whole, or the frame has another use by now. 0 for never.
    pub flood: u8,
    /// This many writes in a row that each take a right out of the shadow give up a leaf table's shadow: the guest tears the
    /// address space down, or write-protects it for a fork. 0 for never. Tables out of sync see no such writes.
    pub teardown: u8,
    /// Under [`VirtualTlb`](SyncPolicy::VirtualTlb): what the guest maps by global pages (CR4.PGE) outlives loads of CR3, as in the
    /// CPU's own TLB. The other policies keep all that is right anyway.
    pub keep_global: bool,
    /// Shadow entries say where the guest's entry is not present, so that the true fault is known without a walk
    /// ([`ShadowMmu::known_absent`](crate::ShadowMmu::known_absent)). Only for a real CPU with fewer than 52 physical address bits.
    pub mark_absent: bool,
    /// A fault in a large page of the guest, or in a guest that does not page, fills 2 MiB by one shadow entry, where they lie in the
    /// host as in the guest and no frame of them needs an entry of its own. See `huge`.
    pub huge: bool,
    /// Where the handler of a page fault returns to what faulted, the shadow entry is made at once
    /// ([`ShadowMmu::fill_ahead`](crate::ShadowMmu::fill_ahead)), not by the fault of the second try. Only where writes to leaf tables may go
    /// unseen: elsewhere [`eager_fill`](Self::eager_fill) has made it.
    pub fill_ahead: bool,
}

impl Policy {
    /// The reference, with no heuristic that is not for correctness' sake alone: what the words of a policy start from.
    pub const DEFAULT: Self = Self {
        sync: SyncPolicy::WriteProtect,
        eager_fill: EagerFill::IfAccessed,
        reuse_detection: true,
        patience: 1,
        prefetch: 1,
        root_cache: Self::ALL_ROOTS,
        flood: 8,
        teardown: 0,
        keep_global: true,
        mark_absent: false,
        huge: false,
        fill_ahead: true,
    };

    /// What serves general-purpose kernels best: `unsync,prefetch=16,flood=3`. Linux' processes come and go in frames that were page
    /// directories and page tables a moment ago, so what tells a table from what follows it counts most.
    pub const RECOMMENDED: Self = Self { sync: SyncPolicy::UNSYNC, prefetch: 16, flood: 3, ..Self::DEFAULT };

    /// As many roots as fit into the pool.
    pub const ALL_ROOTS: u16 = u16::MAX;

    /// The largest bounded root cache.
    pub const MAX_ROOTS: u16 = 1024;
    /// The largest block: all entries of a table.
    pub const MAX_PREFETCH: u16 = 512;
}

impl Policy {
    /// Most roots that there may be while the guest has `views` views: the current ones and the cached ones.
    pub(crate) fn most_roots(&self, views: usize) -> usize {
        if self.root_cache == Self::ALL_ROOTS {
            return usize::MAX;
        }
        usize::from(self.root_cache).saturating_add(1).saturating_mul(views)
    }

    /// Can the guest make a leaf present without the shadow's noticing?
    pub(crate) const fn fills_ahead(&self) -> bool {
        self.fill_ahead && !matches!(self.sync, SyncPolicy::WriteProtect)
    }

    /// Does anything outlive a CR3 load for being global?
    pub(crate) const fn keeps_global(&self) -> bool {
        self.keep_global && self.sync.is_vtlb()
    }

    /// Places for bounded roots: those of a guest with all views, and as many more while new ones are made.
    pub(crate) fn root_places(&self) -> usize {
        if self.root_cache == Self::ALL_ROOTS { 0 } else { self.most_roots(MAX_VIEWS).saturating_add(MAX_VIEWS) }
    }
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
    pub const WORDS: &'static str = "write-protect, unsync, unsync:N or vtlb, and switches with commas between: eager=on|off, reuse=on|off, patience=N, prefetch=N, roots=N|all, flood=N, teardown=N, global=on|off, absent=on|off, huge=on|off, ahead=on|off";

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
            "prefetch" => {
                self.prefetch = number(value, 1, Self::MAX_PREFETCH).filter(|n| n.is_power_of_two())?;
            }
            "patience" => self.patience = number(value, 0, u8::MAX.into())? as u8,
            "roots" if value == "all" => self.root_cache = Self::ALL_ROOTS,
            "roots" => self.root_cache = number(value, 0, Self::MAX_ROOTS)?,
            "flood" => self.flood = number(value, 0, u8::MAX.into())? as u8,
            "absent" => self.mark_absent = on_off(value)?,
            "huge" => self.huge = on_off(value)?,
            "ahead" => self.fill_ahead = on_off(value)?,
            "global" => self.keep_global = on_off(value)?,
            "teardown" => self.teardown = number(value, 0, u8::MAX.into())? as u8,
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
        assert_eq!(read("unsync,prefetch=16,flood=3"), Ok(Policy::RECOMMENDED));
        assert_eq!(read("huge=on"), Ok(Policy { huge: true, ..Policy::DEFAULT }));
        assert_eq!(read("unsync:7").map(|policy| policy.sync), Ok(SyncPolicy::Unsync { tables: 7 }));
        assert_eq!(
            read("reuse=off,vtlb"),
            Ok(Policy { sync: SyncPolicy::VirtualTlb, reuse_detection: false, ..Policy::DEFAULT })
        );
        for wrong in [
            "",
            "unsync:0",
            "unsync:9999",
            "vtlb:3",
            "eager",
            "eager=1",
            "vtlb,",
            "Unsync",
            "vtlb reuse=on",
            "prefetch=3",
            "prefetch=1024",
            "roots=",
            "roots=2000",
            "flood=256",
            "huge",
            "huge=yes",
        ] {
            assert_eq!(read(wrong), Err(PolicyError), "{wrong}");
        }
    }
}
