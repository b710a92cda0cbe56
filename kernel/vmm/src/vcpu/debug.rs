//! The debug registers as the guest believes them (SDM 3B 17.2), and what they catch.

/// Bits of DR6.
pub mod dr6 {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    /// B0 to B3: which breakpoints were hit.
    pub const HITS: u32 = 0xf;
    pub const BD: u32 = 1 << 13;
    pub const BS: u32 = 1 << 14;
    pub const BT: u32 = 1 << 15;
    /// Bits that read 1, and those that can be written.
    pub const FIXED: u32 = 0xffff_0ff0;
    pub const WRITABLE: u32 = HITS | BD | BS | BT;
}

/// Bits of DR7.
pub mod dr7 {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    /// L0 to L3 and LE: what a task switch clears.
    pub const LOCAL: u32 = 0x155;
    pub const GD: u32 = 1 << 13;
    pub const FIXED: u32 = 1 << 10;
    pub const WRITABLE: u32 = 0xffff_2bff;
}

/// What a breakpoint watches (DR7.R/W).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Instruction,
    Write,
    Port,
    Access,
}

/// DR0 to DR3, DR6 and DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegisters {
    address: [u32; 4],
    status: u32,
    control: u32,
}

impl DebugRegisters {
    /// Values at reset.
    #[must_use]
    pub const fn new() -> Self {
        Self { address: [0; 4], status: dr6::FIXED, control: dr7::FIXED }
    }

    /// DR0 to DR3.
    #[must_use]
    pub const fn addresses(&self) -> [u32; 4] {
        self.address
    }

    /// DR7.
    #[must_use]
    pub const fn control(&self) -> u32 {
        self.control
    }

    /// A register by its number; 4 and 5 are not registers.
    #[must_use]
    pub fn read(&self, number: usize) -> u32 {
        match number {
            6 => self.status,
            7 => self.control,
            _ => self.address.get(number).copied().unwrap_or(0),
        }
    }

    /// Writes a register.
    pub fn write(&mut self, number: usize, value: u32) {
        match number {
            6 => self.status = value & dr6::WRITABLE | dr6::FIXED,
            7 => self.control = value & dr7::WRITABLE | dr7::FIXED,
            _ => {
                if let Some(place) = self.address.get_mut(number) {
                    *place = value;
                }
            }
        }
    }

    /// Clears bits of DR7.
    pub const fn forget(&mut self, bits: u32) {
        self.control &= !bits;
    }

    /// Notes in DR6 why there is a debug exception. Which breakpoints were hit is told anew each time; the other bits stay until the
    /// guest clears them (SDM 3B 17.2.3).
    pub const fn note(&mut self, reasons: u32) {
        self.status = self.status & !dr6::HITS | reasons & dr6::WRITABLE;
    }

    /// Whether MOV of a debug register is caught.
    #[must_use]
    pub const fn guards_itself(&self) -> bool {
        self.control & dr7::GD != 0
    }

    /// Enabled breakpoints: number, address, length and kind.
    fn enabled(&self) -> impl Iterator<Item = (u32, u32, u32, Kind)> {
        let control = self.control;
        (0..4).zip(self.address).filter(move |&(number, _)| control >> (2 * number) & 3 != 0).map(
            move |(number, address)| {
                let kind = match control >> (16 + 4 * number) & 3 {
                    0 => Kind::Instruction,
                    1 => Kind::Write,
                    2 => Kind::Port,
                    _ => Kind::Access,
                };
                let length = match control >> (18 + 4 * number) & 3 {
                    0 => 1,
                    1 => 2,
                    2 => 8,
                    _ => 4,
                };
                (number, address & !(length - 1), length, kind)
            },
        )
    }

    fn hits(&self, first: u32, length: u32, wanted: impl Fn(Kind) -> bool) -> u32 {
        self.enabled()
            .filter(|&(_, address, watched, kind)| {
                wanted(kind) && (first.wrapping_sub(address) < watched || address.wrapping_sub(first) < length)
            })
            .fold(0, |hits, (number, ..)| hits | 1 << number)
    }

    /// B0 to B3 for an access to data.
    #[must_use]
    pub fn data_hits(&self, address: u32, length: u32, write: bool) -> u32 {
        self.hits(address, length, |kind| kind == Kind::Access || (write && kind == Kind::Write))
    }

    /// B0 to B3 for an access to ports.
    #[must_use]
    pub fn port_hits(&self, port: u16, length: u32) -> u32 {
        self.hits(port.into(), length, |kind| kind == Kind::Port)
    }

    /// B0 to B3 for an instruction at a linear address.
    #[must_use]
    pub fn code_hits(&self, address: u32) -> u32 {
        self.hits(address, 1, |kind| kind == Kind::Instruction)
    }

    /// Linear addresses of the instruction breakpoints.
    pub fn code_addresses(&self) -> impl Iterator<Item = u32> {
        self.enabled().filter(|&(.., kind)| kind == Kind::Instruction).map(|(_, address, ..)| address)
    }

    /// Whether any breakpoint is enabled.
    #[must_use]
    pub const fn armed(&self) -> bool {
        self.control & 0xff != 0
    }
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(control: u32) -> DebugRegisters {
        let mut debug = DebugRegisters::new();
        for (number, address) in [(0, 0x1000), (1, 0x2001), (2, 0x60), (3, 0xffff_fffc)] {
            debug.write(number, address);
        }
        debug.write(7, control);
        debug
    }

    #[test]
    fn fixed_bits_stay() {
        let mut debug = DebugRegisters::new();
        assert_eq!((debug.read(6), debug.read(7)), (0xffff_0ff0, 0x400));
        debug.write(6, 0);
        debug.write(7, u32::MAX);
        assert_eq!((debug.read(6), debug.read(7)), (0xffff_0ff0, 0xffff_2fff));
        debug.write(6, u32::MAX);
        assert_eq!(debug.read(6), 0xffff_efff);
    }

    #[test]
    fn hits_are_told_anew_and_the_rest_stays() {
        let mut debug = DebugRegisters::new();
        debug.write(6, dr6::BS | 2);
        debug.note(4);
        assert_eq!(debug.read(6), dr6::FIXED | dr6::BS | 4);
        debug.note(dr6::BD);
        assert_eq!(debug.read(6), dr6::FIXED | dr6::BS | dr6::BD);
    }

    #[test]
    fn breakpoints_hit_what_they_watch() {
        // 0: instruction; 1: write, 2 bytes; 2: port, 1 byte; 3: read or write, 4 bytes.
        let debug = registers(0xf254_0000 & 0xffff_0000 | 0x0050_0000 | 0x00ff);
        let debug = DebugRegisters { control: 0b1111_0010_0101_0000 << 16 | 0xff, ..debug };
        assert_eq!((debug.code_hits(0x1000), debug.code_hits(0x1001), debug.code_hits(0x2000)), (1, 0, 0));
        assert_eq!((debug.data_hits(0x2000, 1, true), debug.data_hits(0x2000, 1, false)), (2, 0));
        assert_eq!(debug.data_hits(0x1ffe, 4, true), 2, "an access over its border");
        assert_eq!(debug.data_hits(0x1ffe, 2, true), 0);
        assert_eq!((debug.port_hits(0x60, 1), debug.port_hits(0x5f, 2), debug.port_hits(0x61, 4)), (4, 4, 0));
        assert_eq!((debug.data_hits(0xffff_ffff, 1, false), debug.data_hits(0, 4, true)), (8, 0));
        assert_eq!(debug.code_addresses().collect::<alloc::vec::Vec<_>>(), [0x1000]);
        assert!(debug.armed() && !registers(0xf254_0000).armed());
        assert_eq!(registers(0xf254_0000).data_hits(0x2000, 1, true), 0, "not enabled");
    }
}
