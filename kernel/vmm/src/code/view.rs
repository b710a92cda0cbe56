//! One page of shadow code: what was discovered of a guest page, and which bytes the CPU sees of it.
//!
//! Each byte has a mark: 0, or the length of the instruction that was discovered to begin there, with [`TRAP`] if it must not run
//! as it is. From the marks follows each byte that the CPU sees:
//!
//! ```text
//!   guest     55  89 e5  9c  58     cd 20  90 90          push %ebp; mov; pushf; pop; int; (never reached)
//!   marks      1   2  .  1T   1      2  .   .  .
//!   shadow    55  89 e5  cc  58     cd 20  cc cc
//! ```
//!
//! An instruction whose bytes hold the trap of another one that begins inside it (the guest jumps into its own instructions) would not
//! be itself; it becomes a trap too, and is stepped over with its own bytes.
//!
//! An instruction whose bytes look as if a sensitive one could begin inside is *shy*: a trap for the first times it is reached. If
//! nobody has jumped into it by then, it is shown for good.

use alloc::boxed::Box;
use alloc::vec::Vec;
use shadow_mmu::{CodePage, Pfn};

use super::patch::{Known, Patch};
use super::patch_room::Room;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
/// What stands where nothing was discovered.
const FILLER: u8 = 0xcc;
/// The instruction that begins here traps.
pub(super) const TRAP: u8 = 0x80;
const LENGTH: u8 = 0x0f;
/// How many times a shy instruction still hides.
const SHY: u8 = 0x70;
const SHY_ONE: u8 = 0x10;
const SHY_FIRST: u8 = 0x20;
/// Longest instruction, less one: how far before a byte an instruction that covers it can begin.
pub(super) const REACH: usize = 14;

/// An instruction that was discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins in its page.
    pub offset: usize,
    /// Its length.
    pub length: u8,
    /// It must not run as it is.
    pub trap: bool,
    /// A sensitive instruction may begin inside of it.
    pub shy: bool,
}

/// Bytes `first..end` of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: usize,
    pub end: usize,
}

impl Span {
    pub(super) const EMPTY: Self = Self { first: PAGE, end: 0 };

    pub(super) fn new(first: usize, end: usize) -> Self {
        Self { first, end: end.min(PAGE) }
    }

    /// The smallest span that holds both.
    pub(super) fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), end: self.end.max(other.end) }
    }

    pub(super) fn is_empty(self) -> bool {
        self.first >= self.end
    }
}

/// A page of shadow code. It is the shadow of a frame that has one frame behind it, at whatever linear addresses.
pub(super) struct View {
    /// Frame, and the frame that follows.
    pub code: CodePage,
    /// The host frame that the CPU fetches from.
    pub pfn: Pfn,
    /// It was used since it was last considered for being given up.
    pub used: bool,
    /// So many bytes at the start belong to an instruction that begins in the page before.
    pub head: usize,
    marks: Box<[u8; PAGE]>,
    /// Instructions that run elsewhere.
    pub patches: Vec<Patch>,
    /// The page where they run.
    pub patch_page: Option<PatchPage>,
}

/// A page of patches.
pub(super) struct PatchPage {
    /// The host frame.
    pub pfn: Pfn,
    /// What of it is used.
    pub room: Room,
}

impl View {
    pub(super) fn new(code: CodePage, pfn: Pfn) -> Self {
        let marks = Box::new([0; PAGE]);
        Self { code, pfn, used: true, head: 0, marks, patches: Vec::new(), patch_page: None }
    }

    /// Makes it a page of other code; nothing is discovered of it.
    pub(super) fn reuse(&mut self, code: CodePage) {
        (self.code, self.used, self.head) = (code, true, 0);
        self.marks.fill(0);
        self.patches.clear();
        if let Some(page) = &mut self.patch_page {
            page.room = Room::new();
        }
    }

    /// The mark of a byte.
    pub(super) fn mark(&self, offset: usize) -> u8 {
        self.marks.get(offset).copied().unwrap_or(0)
    }

    fn set(&mut self, offset: usize, mark: u8) {
        if let Some(place) = self.marks.get_mut(offset) {
            *place = mark;
        }
    }

    /// Length of the instruction that begins at `offset` and runs as it is; 0 if there is none.
    fn native(&self, offset: usize) -> usize {
        let mark = self.mark(offset);
        if mark & TRAP == 0 { usize::from(mark) } else { 0 }
    }

    /// Enters an instruction.
    pub(super) fn enter(&mut self, found: Found) {
        let hides = match (found.trap, found.shy) {
            (true, _) => TRAP,
            (false, true) => TRAP | SHY_FIRST,
            (false, false) => 0,
        };
        self.set(found.offset, found.length & LENGTH | hides);
    }

    /// Makes an instruction that was discovered trap for good; says whether it did not.
    pub(super) fn hide(&mut self, offset: usize) -> bool {
        let mark = self.mark(offset);
        let hidden = mark & LENGTH | TRAP;
        let changes = mark != 0 && mark != hidden;
        if changes {
            self.set(offset, hidden);
        }
        changes
    }

    /// A shy instruction was reached. Says whether it is to be shown from now on.
    pub(super) fn reach(&mut self, offset: usize) -> bool {
        let mark = self.mark(offset);
        if mark & SHY == 0 {
            return false;
        }
        let mark = mark.wrapping_sub(SHY_ONE);
        let shown = mark & SHY == 0;
        self.set(offset, if shown { mark & LENGTH } else { mark });
        shown
    }

    /// Turns instructions in and before `span` that have a trap inside into traps. Gives the span that may look different now.
    pub(super) fn settle(&mut self, span: Span) -> Span {
        let mut changed = span;
        let mut end = span.end.saturating_add(REACH).min(PAGE);
        while let Some(trap) = self.last_trap(changed.first, end) {
            changed = changed.join(self.hide_around(trap));
            end = trap;
        }
        changed
    }

    fn last_trap(&self, first: usize, end: usize) -> Option<usize> {
        let at = self.marks.get(first..end)?.iter().rposition(|mark| mark & TRAP != 0)?;
        Some(first.saturating_add(at))
    }

    /// Makes instructions trap that have the trap at `offset` inside.
    fn hide_around(&mut self, offset: usize) -> Span {
        let mut changed = Span::EMPTY;
        for start in offset.saturating_sub(REACH)..offset {
            let mark = self.mark(start);
            let end = start.saturating_add(usize::from(mark & LENGTH));
            if end > offset && (mark & TRAP == 0 || mark & SHY != 0) {
                self.set(start, mark & LENGTH | TRAP);
                changed = changed.join(Span::new(start, end));
            }
        }
        changed
    }

    /// How many bytes of the next page belong to instructions that begin here and run as they are.
    pub(super) fn tail(&self) -> usize {
        (PAGE.saturating_sub(REACH)..PAGE)
            .map(|offset| offset.saturating_add(self.native(offset)).saturating_sub(PAGE))
            .max()
            .unwrap_or(0)
    }

    /// Instructions that reach into the bytes from `offset` of the next page become traps, or are forgotten.
    pub(super) fn cut_tail(&mut self, offset: usize, forget: bool) -> Span {
        let mut changed = Span::EMPTY;
        for start in PAGE.saturating_sub(REACH)..PAGE {
            let length = usize::from(self.mark(start) & LENGTH);
            let concerned = if forget { length } else { self.native(start) };
            if start.saturating_add(concerned) > PAGE.saturating_add(offset) {
                self.set(start, if forget { 0 } else { self.mark(start) | TRAP });
                changed = changed.join(Span::new(start, PAGE));
            }
        }
        if changed.is_empty() { changed } else { self.settle(changed) }
    }

    /// The first trap below `end`, if any.
    pub(super) fn first_trap(&self, end: usize) -> Option<usize> {
        (0..end.min(PAGE)).find(|&offset| self.mark(offset) & TRAP != 0)
    }

    /// Forgets the instructions that have a byte in `span`.
    pub(super) fn forget(&mut self, span: Span) -> Span {
        let mut changed = Span::EMPTY;
        for start in span.first.saturating_sub(REACH)..span.end {
            let length = usize::from(self.mark(start) & LENGTH);
            if length != 0 && start.saturating_add(length) > span.first {
                self.set(start, 0);
                changed = changed.join(Span::new(start, start.saturating_add(length)));
            }
        }
        changed
    }

    /// Makes of the guest's bytes of a span, in place, what the CPU is to see of it.
    pub(super) fn render(&self, span: Span, bytes: &mut [u8]) {
        let before = span.first.saturating_sub(REACH)..span.first;
        let reach = |covered: usize, offset: usize| covered.max(offset.saturating_add(self.native(offset)));
        let mut covered = before.fold(self.head, reach);
        let marks = self.marks.get(span.first..span.end).unwrap_or(&[]);
        covered = covered.saturating_sub(span.first);
        for (at, byte) in bytes.iter_mut().enumerate() {
            let mark = marks.get(at).copied().unwrap_or(TRAP);
            if mark & TRAP != 0 {
                *byte = FILLER;
                continue;
            }
            covered = covered.max(if mark == 0 { 0 } else { at.saturating_add(mark.into()) });
            if at >= covered {
                *byte = FILLER;
            }
        }
        for patch in &self.patches {
            for (at, byte) in (patch.span.first..).zip(patch.jump) {
                if let Some(place) = at.checked_sub(span.first).and_then(|at| bytes.get_mut(at)) {
                    *place = byte;
                }
            }
        }
    }

    /// What a patch may do with the instruction at `offset`.
    pub(super) fn known(&self, offset: usize) -> Known {
        match self.mark(offset) {
            0 if offset >= self.head => Known::Nothing,
            mark if mark & SHY == 0 && mark != 0 => Known::Usable,
            _ => Known::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View::new(CodePage { gfn: Gfn::new(1), following: Some(Gfn::new(2)) }, Pfn::new(3))
    }

    fn found(offset: usize, length: u8, trap: bool) -> Found {
        Found { offset, length, trap, shy: false }
    }

    fn shown(view: &View, span: Span) -> Vec<u8> {
        let mut bytes: Vec<u8> = (span.first..span.end).map(|n| n as u8 & 0x3f).collect();
        view.render(span, &mut bytes);
        bytes
    }

    extern crate std;
    use shadow_mmu::Gfn;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn only_what_was_discovered_is_shown() {
        let mut view = view();
        assert_eq!(shown(&view, Span::new(0, 4)), vec![0xcc; 4]);
        view.enter(found(1, 2, false));
        view.enter(found(3, 1, true));
        view.enter(found(4, 1, false));
        assert_eq!(shown(&view, Span::new(0, 6)), [0xcc, 1, 2, 0xcc, 4, 0xcc]);
        assert_eq!(shown(&view, Span::new(2, 5)), [2, 0xcc, 4], "a span may begin inside an instruction");
    }

    #[test]
    fn a_trap_inside_an_instruction_makes_it_a_trap() {
        let mut view = view();
        view.enter(found(10, 5, false));
        view.enter(found(8, 3, false));
        view.enter(found(12, 1, true));
        let changed = view.settle(Span::new(12, 13));
        assert_eq!(view.mark(10), 5 | TRAP);
        assert_eq!(view.mark(8), 3 | TRAP, "it has the new trap inside");
        assert!(changed.first <= 8 && changed.end >= 15);
        assert_eq!(shown(&view, Span::new(8, 16)), vec![0xcc; 8]);
    }

    #[test]
    fn a_shy_instruction_hides_twice() {
        let mut view = view();
        view.enter(Found { offset: 10, length: 5, trap: false, shy: true });
        assert_eq!(shown(&view, Span::new(10, 15)), vec![0xcc; 5]);
        assert!(!view.reach(10));
        assert!(view.reach(10));
        assert_eq!(shown(&view, Span::new(10, 15)), [10, 11, 12, 13, 14]);
        view.enter(Found { offset: 10, length: 5, trap: false, shy: true });
        view.enter(found(11, 1, true));
        view.settle(Span::new(11, 12));
        assert!(!view.reach(10) && !view.reach(10) && !view.reach(10), "somebody jumped into it");
    }

    #[test]
    fn overlapping_instructions_share_their_bytes() {
        let mut view = view();
        view.enter(found(10, 5, false));
        view.enter(found(11, 6, false));
        assert_eq!(view.settle(Span::new(10, 17)), Span::new(10, 17));
        assert_eq!(shown(&view, Span::new(9, 18)), [0xcc, 10, 11, 12, 13, 14, 15, 16, 0xcc]);
        view.forget(Span::new(15, 16));
        assert_eq!(shown(&view, Span::new(9, 18)), [0xcc, 10, 11, 12, 13, 14, 0xcc, 0xcc, 0xcc]);
    }

    #[test]
    fn a_write_forgets_what_it_touches_and_nothing_else() {
        let mut view = view();
        view.enter(found(0, 4, false));
        view.enter(found(4, 4, false));
        assert_eq!(view.forget(Span::new(4, 5)), Span::new(4, 8));
        assert_eq!((view.mark(0), view.mark(4)), (4, 0));
        assert!(view.forget(Span::new(100, 200)).is_empty());
    }

    #[test]
    fn an_instruction_may_end_in_the_next_page() {
        let mut view = view();
        view.enter(found(4093, 7, false));
        assert_eq!(view.tail(), 4);
        assert!(view.cut_tail(4, false).is_empty(), "it does not reach so far");
        assert_eq!(view.cut_tail(2, false), Span::new(4093, PAGE));
        assert_eq!((view.mark(4093), view.tail()), (7 | TRAP, 0));
        view.cut_tail(0, true);
        assert_eq!(view.mark(4093), 0);
    }

    #[test]
    fn the_head_of_a_page_belongs_to_the_page_before() {
        let mut view = view();
        view.head = 3;
        assert_eq!(shown(&view, Span::new(0, 5)), [0, 1, 2, 0xcc, 0xcc]);
        view.enter(found(2, 1, true));
        assert_eq!(view.first_trap(view.head), Some(2));
    }
}
