//! What the boot modules' command lines say about a guest.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use shadow_mmu::Policy;

use super::kernel::Switch;
use crate::dev::ConsoleKind;

/// The memory of a guest that does not say how much it wants, in bytes.
pub(super) const DEFAULT_MEMORY: u64 = 32 << 20;

/// Which clock a guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMode {
    /// The host's time: the guest sees the pauses that the hypervisor makes.
    Real,
    /// Time stands still for the guest while the hypervisor works for it.
    Virtual,
}

/// Whose tables the CPU walks for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmuMode {
    /// Shadow tables.
    Shadow,
    /// The guest's own and second-level ones (EPT, NPT).
    Nested,
}

/// How a guest's image is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// By the protocol that the image shows.
    Auto,
    /// A Linux bzImage.
    Linux,
    /// A multiboot1 kernel, as ELF32 or with the addresses in its header.
    Multiboot,
    /// A multiboot2 kernel, likewise.
    Multiboot2,
    /// An ELF32 kernel with a PVH note.
    Pvh,
    /// Plain bytes, copied to `address` (guest-physical) and entered at their start.
    Flat {
        /// Where the first byte goes.
        address: u32,
    },
}

/// A boot module that is handed on to a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestModule {
    /// Its index among the boot modules.
    pub index: usize,
    /// The command line the guest sees for it.
    pub arguments: String,
}

/// A boot module that is the image of one of a guest's IDE disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestDisk {
    /// Its index among the boot modules.
    pub index: usize,
    /// 0 and 1: master and slave of the primary channel; 2 and 3: of the secondary.
    pub place: usize,
    /// Whether what the guest wrote is sent to the host at the end. Otherwise it is forgotten.
    pub save: Switch,
}

/// One guest, as its boot modules describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// What the guest is called in log lines.
    pub name: String,
    /// Size of the guest-physical memory in bytes, the hole below 1 MiB included; a multiple of 4 KiB.
    pub memory: u64,
    /// Which clock it sees.
    pub time: TimeMode,
    /// Whether it has a local APIC and an I/O APIC, and is told of them.
    pub apic: Switch,
    /// Whether its CPU offers SMAP, where the host's has it (`smap=`, default off: a kernel that uses it executes STAC and CLAC all the
    /// time, and each exits).
    pub smap: Switch,
    /// How its page tables are shadowed.
    pub shadow: Policy,
    /// Whose tables the CPU walks; `None`: the best that the back end has.
    pub mmu: Option<MmuMode>,
    /// What its console is.
    pub console: ConsoleKind,
    /// How its image is loaded.
    pub format: ImageFormat,
    /// Whether its kernel runs on shadow code. Without, sensitive instructions that do not trap show the real state.
    pub shadow_code: Switch,
    /// Whether sites of its kernel that trap again and again run without exits (`patches=`, default on).
    pub patches: Switch,
    /// The command line its kernel sees.
    pub arguments: String,
    /// The index of its image among the boot modules.
    pub image: usize,
    /// The modules that belong to it, in the order in which they were given.
    pub modules: Vec<GuestModule>,
    /// Its disks.
    pub disks: Vec<GuestDisk>,
}

impl GuestConfig {
    /// A guest called `name` with the default memory and no arguments; its image is boot module 0.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory: DEFAULT_MEMORY,
            time: TimeMode::Real,
            apic: Switch::On,
            smap: Switch::Off,
            shadow: Policy::RECOMMENDED,
            mmu: None,
            console: ConsoleKind::Auto,
            format: ImageFormat::Auto,
            shadow_code: Switch::On,
            patches: Switch::On,
            arguments: String::new(),
            image: 0,
            modules: Vec::new(),
            disks: Vec::new(),
        }
    }
}

impl GuestConfig {
    /// The places of the disks whose changes are kept.
    pub fn saved_disks(&self) -> impl Iterator<Item = usize> {
        self.disks.iter().filter(|disk| disk.save.is_on()).map(|disk| disk.place)
    }
}
