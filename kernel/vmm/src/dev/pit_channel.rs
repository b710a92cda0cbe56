//! One counter of an 8254 programmable interval timer, as a function of time in clock ticks. Terms are those of Intel's
//! data sheet: CE (counting element), OUT, GATE, null count, N (the initial count).
//!
//! Nothing counts in the background: the counter keeps the tick at which N was loaded and derives CE and OUT from the
//! ticks since then. The one CLK pulse that loading takes on the chip is left out.

/// A tick of the 8254's clock since the start of the virtual machine.
pub(super) type Tick = i64;

/// How the bytes of a count pass through the 8-bit port (RW1 and RW0 in the control word).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Low,
    High,
    /// Low byte, then high byte.
    Both,
}

/// The counting mode (M2..M0 in the control word; 6 and 7 mean 2 and 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    InterruptOnTerminalCount,
    OneShot,
    RateGenerator,
    SquareWave,
    SoftwareStrobe,
    HardwareStrobe,
}

impl Mode {
    fn from_control(control: u8) -> Self {
        match (control >> 1) & 7 {
            0 => Self::InterruptOnTerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// Whether only a rising GATE loads CE.
    fn is_gate_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Where CE stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// No count was written since the control word, or no trigger came: OUT is at its initial level.
    Waiting,
    /// N was loaded at this tick (computed, so it may lie before the start of the machine).
    Counting(Tick),
    /// GATE is low after so many ticks of counting.
    Frozen(Tick),
}

/// A count that the periodic modes take over at the end of a (half) period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    at: Tick,
    loaded: Tick,
    n: Tick,
}

/// One counter.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    control: u8,
    mode: Mode,
    access: Access,
    bcd: bool,
    gate: bool,
    /// The initial count, 1..=65536 (10000 in BCD).
    n: Tick,
    run: Run,
    pending: Option<Pending>,
    null_count: bool,
    written_low: Option<u8>,
    read_high_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    /// A counter after the control word `control` (its SC bits do not matter) and the count 0 at tick 0.
    pub(super) fn started(control: u8, gate: bool) -> Self {
        let mut channel = Self {
            control,
            mode: Mode::SquareWave,
            access: Access::Both,
            bcd: false,
            gate,
            n: 0x1_0000,
            run: Run::Waiting,
            pending: None,
            null_count: true,
            written_low: None,
            read_high_next: false,
            latched_count: None,
            latched_status: None,
        };
        channel.write_control(control, 0);
        channel.write(0, 0);
        channel.write(0, 0);
        channel
    }

    /// A control word for this counter: a counter latch command or a new mode.
    pub(super) fn write_control(&mut self, control: u8, now: Tick) {
        self.sync(now);
        self.access = match (control >> 4) & 3 {
            0 => return self.latch_count(now),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        };
        self.control = control & 0x3F;
        self.mode = Mode::from_control(control);
        self.bcd = control & 1 != 0;
        self.run = Run::Waiting;
        self.pending = None;
        self.null_count = true;
        self.written_low = None;
        self.read_high_next = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    /// Holds the count for the next read. Ignored while an earlier one is unread.
    pub(super) fn latch_count(&mut self, now: Tick) {
        self.sync(now);
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(now));
        }
    }

    /// Holds the status byte for the next read (read-back command). Ignored while an earlier one is unread.
    pub(super) fn latch_status(&mut self, now: Tick) {
        self.sync(now);
        let status = u8::from(self.out(now)) << 7 | u8::from(self.null_count) << 6 | self.control;
        self.latched_status.get_or_insert(status);
    }

    /// Reads the counter's port.
    pub(super) fn read(&mut self, now: Tick) -> u8 {
        self.sync(now);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count(now)).to_le_bytes();
        let (value, last) = match (self.access, self.read_high_next) {
            (Access::Low, _) => (low, true),
            (Access::High, _) => (high, true),
            (Access::Both, false) => (low, false),
            (Access::Both, true) => (high, true),
        };
        self.read_high_next = !last;
        if last {
            self.latched_count = None;
        }
        value
    }

    /// Writes the counter's port.
    pub(super) fn write(&mut self, value: u8, now: Tick) {
        self.sync(now);
        let count = match (self.access, self.written_low.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                self.written_low = Some(value);
                if self.mode == Mode::InterruptOnTerminalCount {
                    self.run = Run::Waiting; // data sheet, mode 0: the first byte stops the counting and lowers OUT
                }
                return;
            }
        };
        self.load(self.initial_count(count), now);
    }

    /// Drives the GATE pin.
    pub(super) fn set_gate(&mut self, high: bool, now: Tick) {
        self.sync(now);
        let rising = high && !self.gate;
        self.gate = high;
        if self.mode.is_gate_triggered() {
            if rising && (self.pending.is_some() || self.run != Run::Waiting) {
                self.take_pending_n();
                self.start(now);
            }
            return;
        }
        match (self.mode, self.run) {
            (mode, Run::Frozen(elapsed)) if rising => {
                self.take_pending_n();
                let elapsed = if mode.is_periodic() { 0 } else { elapsed };
                self.start(now.saturating_sub(elapsed));
            }
            (_, Run::Counting(loaded)) if !high => {
                self.run = Run::Frozen(now.saturating_sub(loaded));
                if let Some(pending) = &mut self.pending {
                    pending.at = Tick::MAX; // taken over when GATE rises
                }
            }
            _ => {}
        }
    }

    /// The OUT pin.
    pub(super) fn out(&mut self, now: Tick) -> bool {
        self.sync(now);
        let n = self.n;
        match (self.mode, self.run) {
            (mode, Run::Waiting) => mode != Mode::InterruptOnTerminalCount,
            (Mode::InterruptOnTerminalCount | Mode::OneShot, _) => self.elapsed(now) >= n,
            (Mode::RateGenerator | Mode::SquareWave, Run::Frozen(_)) => true,
            (Mode::RateGenerator, _) => n == 1 || self.elapsed(now) % n != n - 1,
            (Mode::SquareWave, _) => self.elapsed(now) % n < high_half(n),
            (Mode::SoftwareStrobe | Mode::HardwareStrobe, _) => self.elapsed(now) != n,
        }
    }

    /// The first tick after `after` at which OUT rises, if no port is written and GATE stays.
    pub(super) fn next_rise(&self, after: Tick) -> Option<Tick> {
        let Run::Counting(loaded) = self.run else { return None };
        let rise = self.rise_of(loaded, self.n, after);
        match self.pending {
            Some(pending) if rise.is_none_or(|rise| rise > pending.at) => {
                self.rise_of(pending.loaded, pending.n, after.max(pending.at))
            }
            _ => rise,
        }
    }

    fn rise_of(&self, loaded: Tick, n: Tick, after: Tick) -> Option<Tick> {
        let elapsed = after.saturating_sub(loaded);
        let rise = match self.mode {
            Mode::InterruptOnTerminalCount | Mode::OneShot => n,
            // A count of 1 is illegal in the periodic modes; OUT then stays high.
            Mode::RateGenerator | Mode::SquareWave if n == 1 => return None,
            Mode::RateGenerator | Mode::SquareWave => elapsed.div_euclid(n).saturating_add(1).saturating_mul(n),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => n.saturating_add(1),
        };
        (rise > elapsed).then(|| loaded.saturating_add(rise))
    }

    /// A whole new count arrived.
    fn load(&mut self, n: Tick, now: Tick) {
        match self.run {
            Run::Counting(loaded) if self.mode.is_periodic() => {
                self.null_count = true;
                self.pending = Some(self.at_next_reload(loaded, n, now));
            }
            _ if self.mode.is_gate_triggered() => {
                // Taken at the next trigger; a running pulse is not disturbed.
                self.null_count = true;
                self.pending = Some(Pending { at: Tick::MAX, loaded: 0, n });
            }
            _ => {
                self.n = n;
                self.start(now);
                if !self.gate {
                    self.run = Run::Frozen(0);
                }
            }
        }
    }

    /// When and how a periodic mode takes over `n`: mode 2 at the end of the period, mode 3 at the end of the half.
    fn at_next_reload(&self, loaded: Tick, n: Tick, now: Tick) -> Pending {
        let elapsed = now.saturating_sub(loaded);
        let period = now.saturating_sub(elapsed % self.n);
        let (high, end) = (period.saturating_add(high_half(self.n)), period.saturating_add(self.n));
        if self.mode == Mode::SquareWave && now < high {
            // The next half is a low one: as if a high half of the new length had ended there.
            return Pending { at: high, loaded: high.saturating_sub(high_half(n)), n };
        }
        Pending { at: end, loaded: end, n }
    }

    /// Takes over a pending count whose time has come.
    fn sync(&mut self, now: Tick) {
        if let Some(pending) = self.pending.take_if(|pending| pending.at <= now) {
            self.n = pending.n;
            self.start(pending.loaded);
        }
    }

    fn take_pending_n(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.n = pending.n;
        }
    }

    fn start(&mut self, loaded: Tick) {
        self.run = Run::Counting(loaded);
        self.null_count = false;
    }

    fn elapsed(&self, now: Tick) -> Tick {
        match self.run {
            Run::Waiting => 0,
            Run::Counting(loaded) => now.saturating_sub(loaded).max(0),
            Run::Frozen(elapsed) => elapsed,
        }
    }

    /// The counting element as it is read.
    fn count(&self, now: Tick) -> u16 {
        let elapsed = self.elapsed(now);
        let n = self.n;
        let count = match self.mode {
            Mode::RateGenerator => n - elapsed % n,
            Mode::SquareWave => square_wave_count(n, elapsed % n),
            _ => n.saturating_sub(elapsed),
        };
        if self.bcd { to_bcd(count.rem_euclid(10_000)) } else { count as u16 }
    }

    fn initial_count(&self, written: u16) -> Tick {
        let value = if self.bcd { from_bcd(written) } else { Tick::from(written) };
        match (value, self.bcd) {
            (0, false) => 0x1_0000,
            (0, true) => 10_000,
            _ => value,
        }
    }
}

/// Ticks for which mode 3 holds OUT high: half of N, the odd tick included.
fn high_half(n: Tick) -> Tick {
    n - n / 2
}

/// CE in mode 3 goes down by two from N, or from N - 1 when N is odd (data sheet, mode 3).
fn square_wave_count(n: Tick, phase: Tick) -> Tick {
    let in_half = if phase < high_half(n) { phase } else { phase - high_half(n) };
    (n & !1) - 2 * in_half
}

fn from_bcd(value: u16) -> Tick {
    (0..4).rev().fold(0, |sum, digit| sum * 10 + Tick::from((value >> (digit * 4)) & 0xF))
}

fn to_bcd(value: Tick) -> u16 {
    let digit = |power: Tick, shift: u32| ((value / power % 10) as u16) << shift;
    digit(1, 0) | digit(10, 4) | digit(100, 8) | digit(1000, 12)
}

#[cfg(test)]
#[path = "pit_channel_tests.rs"]
mod tests;
