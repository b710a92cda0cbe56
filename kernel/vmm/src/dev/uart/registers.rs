//! The bits of the 16550A's registers.

use bitflags::bitflags;

bitflags! {
    /// Interrupt enable register.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Ier: u8 {
        const RECEIVED_DATA = 1 << 0;
        const TRANSMITTER_EMPTY = 1 << 1;
        const LINE_STATUS = 1 << 2;
        const MODEM_STATUS = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Fcr: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RECEIVER = 1 << 1;
    }

    /// Line status register.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Lsr: u8 {
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const THR_EMPTY = 1 << 5;
        const TRANSMITTER_EMPTY = 1 << 6;
    }

    /// Modem control register.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Mcr: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOPBACK = 1 << 4;
    }

    /// Modem status register.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Msr: u8 {
        const CTS_CHANGED = 1 << 0;
        const DSR_CHANGED = 1 << 1;
        const RI_ENDED = 1 << 2;
        const DCD_CHANGED = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        const CHANGES = 0x0F;
    }
}
