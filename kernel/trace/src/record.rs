//! The fixed-size trace record.

/// Version of the format, in the [`Kind::Header`] record's `arg`.
pub const VERSION: u32 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal,)*) => {
        /// What a [`Record`] tells. Fields that a kind does not name are 0.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant = $number,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in text and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// First record: `arg` = [`VERSION`], `a` = TSC frequency in Hz, `b` = [`Record::SIZE`].
    Header = 1 "header",
    /// A VM exists: `a` = memory in bytes, `b` = entry point (GVA), `c` = its name, up to 8 ASCII bytes.
    VmStart = 2 "vm-start",
    /// A VM ended: `code` = number of the stop reason (0: it asked for it), `arg` = guest's exit value, `a` = RIP.
    VmStop = 3 "vm-stop",
    /// Guest to hypervisor: `code` = hardware vector, `flags` = virtual CPL, `arg` = error code, `a` = RIP, `b` = CR2 if a page
    /// fault, `c` = RSP.
    Exit = 4 "exit",
    /// Hypervisor to guest: `code` = number of the [`Reason`](crate::Reason) that this exit had, `flags` = virtual CPL, `a` = RIP,
    /// `c` = RSP.
    Resume = 5 "resume",
    /// One step of a guest page walk: `code` = level, `flags` = 1 if this walk set A or D in it, `a` = GVA, `b` = GPA of the
    /// gpte, `c` = the gpte.
    Walk = 6 "walk",
    /// A shadow entry was written: `code` = level, `flags` = 1 if a leaf, `a` = GVA, `b` = HPA of the spte, `c` = the spte.
    Fill = 7 "fill",
    /// A shadow entry was cleared: `code` = level, `b` = HPA of the spte, `c` = the spte it was.
    Zap = 8 "zap",
    /// A guest frame became tracked (write-protected): `code` = why (a [`crate::Record`] `level`, or 0 for a descriptor table),
    /// `a` = GPA of the frame, `b` = number of sptes that lost their write right.
    Track = 9 "track",
    /// A guest frame is no longer tracked: `a` = GPA of the frame.
    Untrack = 10 "untrack",
    /// The guest wrote a tracked page table: `code` = level, `a` = GPA of the gpte, `b` = the gpte before, `c` = after.
    PtWrite = 11 "pt-write",
    /// An event went into the guest: `code` = vector, `flags` = virtual CPL before, `arg` = error code, `a` = the handler's
    /// address, `b` = CR2 if a page fault, `c` = the handler's RSP.
    Inject = 12 "inject",
    /// A CR3 load: `a` = CR3 before, `b` = after, `c` = HPA of the shadow root.
    SetCr3 = 13 "set-cr3",
    /// The virtual CPL changes: `code` = from, `flags` = to. Where it goes on is in the next [`Kind::Resume`].
    Ring = 14 "ring",
    /// An instruction was emulated: `code` = its length, `flags` = bytes of it in `b` that count, `a` = RIP, `b` = its first 8
    /// bytes, little-endian.
    Emulate = 15 "emulate",
    /// A device access: `code` = bytes, `flags` = 1 for a write, plus 2 if `arg` is a guest-physical address and not a port, `a` =
    /// the value.
    Io = 16 "io",
    /// Translations were dropped from the TLB: `code` = 1 one page, 2 all; `a` = GVA if one page.
    Flush = 17 "flush",
    /// Final counter: `code` = number of the [`Reason`](crate::Reason), `a` = count.
    Counter = 18 "counter",
    /// Final counter of the shadow MMU: `arg` = its number, `a` = count, `b` and `c` = its name, up to 16 ASCII bytes.
    MmuCounter = 19 "mmu-counter",
    /// A control register changed: `code` = 0, 4 or 8 (EFER), `a` = before, `b` = after.
    SetControl = 20 "set-control",
    /// A shadow table came or went: `code` = level, `flags` = 1 came, 0 went, `a` = GPA of the guest table, `b` = HPA of the
    /// shadow table.
    Table = 21 "table",
    /// Records were lost because the ring was full and nobody drained it: `a` = how many.
    Lost = 22 "lost",
    /// The ring was full, and the guest waited while it was sent: `a` = TSC ticks that this took, which no exit is to blame for.
    Drained = 23 "drained",
    /// A 4 KiB block of a disk that the guest changed: `code` = the disk's place, `a` = the block's number. Its bytes follow in
    /// [`Kind::DiskData`] records.
    DiskBlock = 24 "disk-block",
    /// Bytes of the last block named: `arg` = offset in it, `a`, `b`, `c` = 24 bytes, little-endian; those behind its end are 0.
    DiskData = 25 "disk-data",
    /// All changed blocks of a disk were sent: `code` = the disk's place, `a` = their number. Without it nothing counts.
    DiskEnd = 26 "disk-end",
}

/// One trace record, 40 bytes. What the fields mean depends on [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time stamp counter when it was written.
    pub tsc: u64,
    /// What it tells.
    pub kind: Kind,
    /// Number of the VM, 0 for the hypervisor itself; the first VM is 1.
    pub vm: u8,
    /// Small number, see [`Kind`].
    pub code: u8,
    /// Small number, see [`Kind`].
    pub flags: u8,
    /// See [`Kind`].
    pub arg: u32,
    /// See [`Kind`].
    pub a: u64,
    /// See [`Kind`].
    pub b: u64,
    /// See [`Kind`].
    pub c: u64,
}

impl Record {
    /// Bytes of an encoded record.
    pub const SIZE: usize = 40;

    /// A record of this kind, everything else 0.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { tsc: 0, kind, vm: 0, code: 0, flags: 0, arg: 0, a: 0, b: 0, c: 0 }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let head = u64::from(self.kind as u8)
            | u64::from(self.vm) << 8
            | u64::from(self.code) << 16
            | u64::from(self.flags) << 24
            | u64::from(self.arg) << 32;
        let mut bytes = [0; Self::SIZE];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip([self.tsc, head, self.a, self.b, self.c]) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that these bytes encode, or `None` if the kind is unknown.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut words = [0_u64; 5];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().ok()?);
        }
        let [tsc, head, a, b, c] = words;
        let [kind, vm, code, flags, ..] = head.to_le_bytes();
        Some(Self { tsc, kind: Kind::from_number(kind)?, vm, code, flags, arg: (head >> 32) as u32, a, b, c })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (i, &kind) in Kind::ALL.iter().enumerate() {
            let i = i as u64;
            let record = Record {
                tsc: i << 40,
                vm: 3,
                code: 7,
                flags: 9,
                arg: 0xdead_beef,
                a: i,
                b: !i,
                c: i << 60,
                ..Record::new(kind)
            };
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn unknown_kind_is_refused() {
        assert_eq!(Record::decode(&[0; Record::SIZE]), None);
        assert_eq!(Record::decode(&[0xff; Record::SIZE]), None);
    }
}
