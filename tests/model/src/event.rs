//! What a guest, its devices and its host do, made from bytes: the property tests and the fuzz target share one language.
//!
//! An event is 12 bytes, so that leaving out events is leaving out pieces of equal size.

use crate::ram::{BLOCK, LOW};
use crate::reference::{CD, LA57, LME, Mode, NXE, PAE, PG, PGE, PKE, PSE, SMAP, SMEP, WP, What, Who};

/// Bytes of an event.
pub const SIZE: usize = 12;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An access. The bytes are stored if it is a write; their number is its width.
    Access(u64, What, Who, Vec<u8>),
    /// The guest is about to make an access.
    Ahead(u64, What, Who),
    /// The emulator walks the guest's tables as for an access.
    Translate(u64, What, Who),
    /// The virtual CPU is reset.
    Reset,
    /// A device writes to memory at this address.
    Device(u64, Vec<u8>),
    /// INVLPG.
    Invlpg(u64),
    /// MOV to CR3: one of the guest's two address spaces.
    Space(u64),
    /// MOV to CR3, some value.
    Cr3(u64),
    /// MOV to CR0 with this bit flipped.
    FlipCr0(u64),
    /// MOV to CR4 with this bit flipped.
    FlipCr4(u64),
    /// WRMSR of EFER with this bit flipped.
    FlipEfer(u64),
    /// WRPKRU.
    Pkru(u32),
    /// Paging off, tables built anew by the guest in this mode, paging on.
    Rebuild(Mode, u32),
    /// The hypervisor begins or ends to watch a frame.
    Watch(u64, bool),
    /// The code window moves.
    Window(u8),
    /// The patches move.
    Patches(u8),
    /// The host takes a frame to disk.
    PageOut(u64),
    /// The host brings a frame back before anybody asks.
    PageIn(u64),
    /// The host moves a frame.
    Move(u64),
    /// The host asks for the use of a frame.
    Look(u64),
    /// The host begins a dirty log over these frames.
    LogStart(u64, u64),
    /// It collects it.
    LogCollect(u64, u64),
    /// It ends it.
    LogStop(u64, u64),
}

/// Bytes one after the other; zeros at the end.
struct Bytes<'a>(core::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

/// Indices in a table that the guests use: of 1024 entries, or of 512.
pub(crate) const NARROW: [u64; 9] = [0, 1, 2, 3, 5, 0x200, 0x201, 0x3fe, 0x3ff];
/// Of 512.
pub(crate) const WIDE: [u64; 7] = [0, 1, 2, 3, 5, 0x1fe, 0x1ff];

/// The pages that a guest uses in a mode.
#[must_use]
pub fn pages(mode: Mode) -> Vec<u64> {
    match mode {
        Mode::Off | Mode::Legacy | Mode::Pae => {
            let pdes = [0u64, 1, 0x200, 0x201, 0x3ff];
            pdes.iter().flat_map(|pde| NARROW.iter().map(move |pte| pde << 22 | pte << 12)).collect()
        }
        Mode::Long4 | Mode::Long5 => {
            // Of 57-bit addresses the library has those of 48 bits.
            let upper = [[0u64, 0], [0, 1], [3, 0], [3, 3], [0x1ff, 0]];
            let mut pages = Vec::new();
            for ([top, third], second) in upper.iter().flat_map(|upper| [0u64, 1, 3].map(|second| (*upper, second))) {
                for first in [0u64, 1, 2, 5] {
                    let negative = if top == 0x1ff { u64::MAX << 48 } else { 0 };
                    pages.push(negative | top << 39 | third << 30 | second << 21 | first << 12);
                }
            }
            pages
        }
    }
}

/// All pages that an access can reach: those, and their neighbours, into which a write can reach across the border.
#[must_use]
pub fn reach(mode: Mode) -> Vec<u64> {
    let narrow = matches!(mode, Mode::Off | Mode::Legacy | Mode::Pae);
    let near = |page: u64| [page.wrapping_sub(0x1000), page, page.wrapping_add(0x1000)];
    let all = pages(mode).into_iter().flat_map(near).map(|page| if narrow { page & 0xffff_ffff } else { page });
    let all: std::collections::BTreeSet<u64> = all.collect();
    all.into_iter().collect()
}

/// The low half of an entry, mostly one that leads somewhere.
fn entry(bytes: &mut Bytes<'_>) -> u32 {
    let place = bytes.byte();
    let frame = match place {
        0..200 => 1 + u32::from(place) % 11,
        200..240 => u32::from(place) % LOW as u32,
        240.. => BLOCK.start as u32 + u32::from(place & 3),
    };
    let flags = u32::from(bytes.byte());
    let flags = match bytes.byte() % 16 {
        0..6 => flags & 0x7f | 1,
        6..8 => flags | (frame & 1) << 8,
        8..11 => 0x67,
        11..13 => 0x07,
        13 => 0x167,
        14 if place & 8 != 0 => return frame << 22 | 0x87 | flags & 0x67,
        // The block, but in 2-level paging, where the bit is reserved.
        14 => return u32::from(place & 1) << 21 | 0x87 | flags & 0x67,
        _ => return flags << 12 | 0x80 | flags & 0x67,
    };
    frame << 12 | flags
}

/// The high half.
fn high(bytes: &mut Bytes<'_>) -> u32 {
    match bytes.byte() % 16 {
        0..11 => 0,
        11..14 => 1 << 31,
        14 => u32::from(bytes.byte()) << 27,
        _ => 1 << (bytes.byte() & 31),
    }
}

fn who(bytes: &mut Bytes<'_>, user_of_16: u8) -> Who {
    match bytes.byte() % 16 {
        n if n < user_of_16 => Who::User,
        15 => Who::SupervisorAc,
        _ => Who::Supervisor,
    }
}

/// An address in one of the pages: mostly that of an entry.
fn address(bytes: &mut Bytes<'_>, mode: Mode) -> u64 {
    let page = bytes.pick(&pages(mode));
    let (index, size) = if mode == Mode::Legacy { (bytes.pick(&NARROW), 4) } else { (bytes.pick(&WIDE), 8) };
    page + index * size
}

fn access(bytes: &mut Bytes<'_>, mode: Mode) -> (u64, What, Who) {
    let gva = address(bytes, mode);
    let what = bytes.pick(&[What::Read, What::Write, What::Read, What::Write, What::Fetch]);
    (gva, what, who(bytes, 8))
}

/// A write of entries, by an access: mostly whole, aligned and by the supervisor.
fn write(bytes: &mut Bytes<'_>, mode: Mode) -> Event {
    let gva = address(bytes, mode);
    let who = who(bytes, 1);
    let shape = bytes.byte();
    let (low, high) = (entry(bytes), high(bytes));
    let wide = (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let (skew, data) = match (shape % 16, mode) {
        (0..12, Mode::Legacy) | (0..3, _) => (0, &wide[..4]),
        (0..12, _) => (0, &wide[..8]),
        (12, _) => (0, &wide[..]),
        (13, _) => (u64::from(shape >> 4) & 7, &wide[..1]),
        (14, _) => (u64::from(shape >> 4) & 7, &wide[..2]),
        _ => (u64::from(shape >> 4) & 7, &wide[4..]),
    };
    // Now and then across the border to the page before, or to the one behind.
    let gva = match shape >> 5 {
        6 => (gva & !0xfff).wrapping_sub(skew),
        7 => (gva & !0xfff).wrapping_add(0x1000 - skew),
        _ => gva + skew,
    };
    let narrow = matches!(mode, Mode::Off | Mode::Legacy | Mode::Pae);
    let gva = if narrow { gva & 0xffff_ffff } else { gva };
    Event::Access(gva, What::Write, who, data.to_vec())
}

/// Frames that are mostly tables, and the block's.
const fn watched(frame: u64) -> u64 {
    if frame < LOW { frame % 12 } else { frame }
}

/// The event that bytes stand for, in a guest that pages in `mode` now.
#[must_use]
pub fn decode(bytes: &[u8], mode: Mode) -> Event {
    let mut bytes = Bytes(bytes.iter());
    let frame = |bytes: &mut Bytes<'_>| match bytes.byte() {
        n @ 0..240 => u64::from(n) % LOW,
        n => BLOCK.start + [0, 1, 2, 0x1ff][usize::from(n & 3)],
    };
    match bytes.byte() {
        0..78 => {
            let (gva, what, who) = access(&mut bytes, mode);
            Event::Access(gva, what, who, vec![0x67, 0x10, 0, 0])
        }
        78..80 => {
            let (gva, what, who) = access(&mut bytes, mode);
            Event::Translate(gva, what, who)
        }
        80..84 => {
            let (gva, what, who) = access(&mut bytes, mode);
            Event::Ahead(gva, what, who)
        }
        84..170 => write(&mut bytes, mode),
        170..186 => Event::Invlpg(address(&mut bytes, mode)),
        186..198 => Event::Space(u64::from(bytes.byte()) & 3),
        198 => Event::Cr3(frame(&mut bytes) << 12 | u64::from(bytes.byte() & 3) << 5),
        199 => Event::Cr3(1 << (bytes.byte() & 63) | frame(&mut bytes) << 12),
        200..204 => Event::FlipCr0(WP),
        204 => Event::FlipCr0(bytes.pick(&[CD, CD, PG])),
        205..207 => Event::FlipCr4(bytes.pick(&[PSE, PSE, PSE, PAE])),
        207..209 => Event::FlipCr4(bytes.pick(&[PGE, PGE, PGE, LA57])),
        209 => Event::FlipCr4(SMEP),
        210 => Event::FlipCr4(bytes.pick(&[SMAP, SMAP, PKE])),
        211..213 => Event::FlipEfer(bytes.pick(&[NXE, NXE, NXE, LME])),
        213 => Event::Pkru(bytes.number() & bytes.number()),
        214..219 => match bytes.byte() {
            255 => Event::Reset,
            mode => Event::Rebuild(MODES[usize::from(mode) % MODES.len()], bytes.number()),
        },
        219..222 => Event::Watch(watched(frame(&mut bytes)), bytes.byte() & 1 != 0),
        222..230 => Event::PageOut(frame(&mut bytes)),
        230..232 => Event::PageIn(frame(&mut bytes)),
        232..235 => Event::Move(frame(&mut bytes)),
        235..243 => Event::Look(frame(&mut bytes)),
        243..245 => Event::LogStart(frame(&mut bytes), frame(&mut bytes)),
        245..248 => Event::LogCollect(frame(&mut bytes), frame(&mut bytes)),
        248 => Event::LogStop(frame(&mut bytes), frame(&mut bytes)),
        249 => Event::Window(bytes.byte()),
        250 => Event::Patches(bytes.byte()),
        _ => {
            let (at, low) = (frame(&mut bytes) << 12, entry(&mut bytes));
            let index = bytes.pick(&NARROW);
            let bytes = [low, high(&mut bytes), low, 0].map(u32::to_le_bytes).concat();
            Event::Device(at + index * 4, bytes[..if low & 8 != 0 { 16 } else { 4 }].to_vec())
        }
    }
}

/// The modes that a guest of the tests pages in.
pub const MODES: [Mode; 4] = [Mode::Legacy, Mode::Pae, Mode::Long4, Mode::Long5];
