//! The guest writes frames that code was discovered in: new code, patched code, or data that lies beside code.
//!
//! The frames are watched, so every write is emulated or stepped over, and reported here: what it touches is forgotten, and discovered
//! anew when it is reached. A frame that is written again and again is *opened*: its views leave the window and the guest writes freely.
//! The next fetch from it closes it, and the lines of 64 bytes that changed are forgotten. A frame that changes from one use to the
//! other all the time gets more patience each time, so that its writes stay emulated, which costs less.

use alloc::boxed::Box;
use alloc::vec::Vec;
use shadow_mmu::{Gfn, Gpa};

use super::view::{PAGE, Span};
use super::{Lines, Source, Undo};
use crate::vm::Vm;

/// Writes after which a frame is opened, at first and at most.
const PATIENCE: u32 = 8;
const MOST_PATIENCE: u32 = 4096;
const LINE: usize = 64;

/// Sums of the lines of a page (FNV-1a by words).
fn lines(bytes: &[u8; PAGE]) -> Lines {
    let mut sums = [0; PAGE / LINE];
    for (sum, line) in sums.iter_mut().zip(bytes.chunks_exact(LINE)) {
        let words = line.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
        });
        *sum = (hash ^ hash >> 32) as u32;
    }
    sums
}

impl Vm {
    /// Watches a frame of code; one that is open is closed.
    pub(super) fn watch_source(&mut self, gfn: Gfn) {
        let open = match self.code.sources.get_mut(&gfn.raw()) {
            Some(Source { open: None, .. }) => return,
            Some(source) => source.open.take(),
            None => {
                let source = Source { views: Vec::new(), writes: 0, patience: PATIENCE, open: None };
                self.code.sources.insert(gfn.raw(), source);
                None
            }
        };
        let plan = self.mmu.watch(gfn);
        self.flush(plan);
        if let Some(before) = open {
            self.forget_changed_lines(gfn, &before);
        }
    }

    fn forget_changed_lines(&mut self, gfn: Gfn, before: &Lines) {
        let now = lines(&self.read_code(gfn));
        for (number, _) in before.iter().zip(&now).enumerate().filter(|(_, (before, now))| before != now) {
            let first = number.saturating_mul(LINE);
            self.forget_code(gfn, Span::new(first, first.saturating_add(LINE)));
        }
    }

    /// Bytes of a watched frame were written.
    pub(crate) fn code_frame_written(&mut self, gpa: Gpa, length: usize) {
        let gfn = gpa.gfn();
        let Some(source) = self.code.sources.get_mut(&gfn.raw()) else { return };
        if source.open.is_some() {
            return;
        }
        source.writes = source.writes.saturating_add(1);
        let opens = source.writes >= source.patience;
        let first = (gpa.raw() % PAGE as u64) as usize;
        self.forget_code(gfn, Span::new(first, first.saturating_add(length)));
        if opens {
            self.open_source(gfn);
        }
    }

    /// Forgets the instructions of a frame that have bytes in `span`.
    fn forget_code(&mut self, gfn: Gfn, span: Span) {
        let Some(source) = self.code.sources.get(&gfn.raw()) else { return };
        let mut forgotten = false;
        for at in source.views.clone() {
            let at = usize::from(at);
            self.undo_patches(at, Undo::Written, |patch| patch.span.first < span.end && span.first < patch.span.end);
            let Some(view) = self.code.views.get_mut(at) else { continue };
            let mut changed = view.forget(span);
            if span.first < view.head {
                changed = changed.join(Span::new(0, view.head));
                view.head = 0;
            }
            forgotten |= !changed.is_empty();
            self.show(at, changed);
        }
        if forgotten {
            self.code.sites.clear();
        }
        if span.first < super::NEXT_BYTES {
            self.cut_into(gfn, span.first);
        }
    }

    /// Forgets the instructions that reach from the page before into bytes of this frame from `offset` on.
    fn cut_into(&mut self, gfn: Gfn, offset: usize) {
        for before in self.code.views_before(gfn) {
            let Some(view) = self.code.views.get_mut(before) else { continue };
            let span = view.cut_tail(offset, true);
            self.show(before, span);
        }
        // What reached less far still needs its bytes.
        let head = self.code.head_of(gfn);
        let Some(source) = self.code.sources.get(&gfn.raw()) else { return };
        for at in source.views.clone() {
            let at = usize::from(at);
            if let Some(view) = self.code.views.get_mut(at) {
                view.head = head;
                self.show(at, Span::new(0, super::NEXT_BYTES));
            }
        }
    }

    /// Lets the guest write a frame freely; its code leaves the window.
    fn open_source(&mut self, gfn: Gfn) {
        let sums = Box::new(lines(&self.read_code(gfn)));
        self.cut_into(gfn, 0);
        let plan = self.mmu.unmap_code(gfn);
        self.flush(plan);
        self.mmu.unwatch(gfn);
        if let Some(source) = self.code.sources.get_mut(&gfn.raw()) {
            source.open = Some(sums);
            source.writes = 0;
            source.patience = source.patience.saturating_mul(2).min(MOST_PATIENCE);
        }
    }
}
