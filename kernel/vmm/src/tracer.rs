//! The trace: a ring of records, drained over COM2 when tracing is on.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use gnomon_hw::{time, trace_port};
use gnomon_trace::{Kind, Record, Ring, VERSION};
use shadow_mmu::{Event, Observer};

const CAPACITY: usize = 2048;

/// Handle to the one trace of this run. A clone writes to the same ring under its own VM number.
#[derive(Clone)]
pub(crate) struct Tracer {
    shared: Rc<Shared>,
    on: bool,
    vm: u8,
}

struct Shared {
    /// The header record was made.
    begun: Cell<bool>,
    ring: RefCell<Ring>,
}

impl Tracer {
    /// The trace of this run; when `on`, its header record goes out first.
    #[must_use]
    pub(crate) fn new(on: bool) -> Self {
        let ring = RefCell::new(Ring::new(CAPACITY));
        let tracer = Self { shared: Rc::new(Shared { begun: Cell::new(false), ring }), on, vm: 0 };
        if on {
            tracer.begin();
        }
        tracer
    }

    fn begin(&self) {
        if !self.shared.begun.replace(true) {
            let header =
                Record { arg: VERSION, a: time::tsc_hz(), b: Record::SIZE as u64, ..Record::new(Kind::Header) };
            self.shared.ring.borrow_mut().push(Record { tsc: time::tsc(), ..header });
        }
    }

    /// Sends records that do not depend on the trace being on, at once and behind all others.
    pub(crate) fn send(&self, records: impl Iterator<Item = Record>) {
        self.begin();
        self.drain();
        for record in records {
            trace_port::write(&Record { tsc: time::tsc(), vm: self.vm, ..record }.encode());
        }
    }

    /// A handle that writes records of this VM.
    #[must_use]
    pub(crate) fn for_vm(&self, vm: u8) -> Self {
        Self { shared: Rc::clone(&self.shared), on: self.on, vm }
    }

    /// Whether anybody reads the records.
    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// Writes a record if tracing is on; the closure runs only then.
    #[inline]
    pub(crate) fn record(&self, make: impl FnOnce() -> Record) {
        if self.on {
            self.push(Record { tsc: time::tsc(), vm: self.vm, ..make() });
        }
    }

    #[cold]
    fn push(&self, record: Record) {
        let full = {
            let mut ring = self.shared.ring.borrow_mut();
            ring.push(record);
            ring.is_full()
        };
        if full {
            let start = time::tsc();
            self.drain();
            let spent = time::tsc().wrapping_sub(start);
            let drained = Record { tsc: start, vm: self.vm, a: spent, ..Record::new(Kind::Drained) };
            self.shared.ring.borrow_mut().push(drained);
        }
    }

    /// Sends what waits to COM2.
    pub(crate) fn drain(&self) {
        let mut ring = self.shared.ring.borrow_mut();
        while let Some(record) = ring.pop() {
            trace_port::write(&record.encode());
        }
    }
}

impl Observer for Tracer {
    #[inline]
    fn is_on(&self) -> bool {
        Self::is_on(self)
    }

    #[inline]
    fn event(&mut self, event: Event) {
        self.record(|| encode(event));
    }
}

/// The record of something that the shadow MMU did.
fn encode(event: Event) -> Record {
    match event {
        Event::Walk { level, marked, gva, entry, gpte } => Record {
            code: level as u8,
            flags: marked.into(),
            a: gva.raw(),
            b: entry.raw(),
            c: gpte,
            ..Record::new(Kind::Walk)
        },
        Event::Fill { level, leaf, gva, entry, spte } => Record {
            code: level as u8,
            flags: leaf.into(),
            a: gva.raw(),
            b: entry.raw(),
            c: spte.raw(),
            ..Record::new(Kind::Fill)
        },
        Event::Zap { level, entry, spte } => {
            Record { code: level as u8, b: entry.raw(), c: spte.raw(), ..Record::new(Kind::Zap) }
        }
        Event::Track { frame, level, revoked } => Record {
            code: level.map_or(0, |level| level as u8),
            a: frame.raw(),
            b: revoked,
            ..Record::new(Kind::Track)
        },
        Event::Untrack { frame } => Record { a: frame.raw(), ..Record::new(Kind::Untrack) },
        Event::PtWrite { level, entry, before, after } => Record {
            code: level as u8,
            flags: before.is_some().into(),
            a: entry.raw(),
            b: before.unwrap_or(0),
            c: after,
            ..Record::new(Kind::PtWrite)
        },
        Event::Flush { page } => Record {
            code: if page.is_some() { 1 } else { 2 },
            a: page.map_or(0, |gva| gva.raw()),
            ..Record::new(Kind::Flush)
        },
        Event::Table { level, came, guest, table } => {
            Record { code: level as u8, flags: came.into(), a: guest.raw(), b: table.raw(), ..Record::new(Kind::Table) }
        }
    }
}
