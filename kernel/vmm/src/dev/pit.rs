//! The 8254 of a PC: counter 0 is the timer interrupt, counter 1 was the memory refresh, counter 2 the speaker with its
//! gate and output at port 0x61. Here are its ports and the way between nanoseconds and ticks; see
//! [`super::pit_channel`] for the counting.

use super::pit_channel::{Channel, Tick};
use super::time::{NANOS_PER_SECOND, Nanos};

/// The 8254's clock on a PC, in Hz.
const CLOCK: u64 = 1_193_182;
/// Counters 1 and 2 after a reset in QEMU: square wave, largest count.
const SQUARE_WAVE: u8 = 0x36;
/// What a BIOS makes of counter 0: rate generator, largest count (18.2 Hz).
const RATE_GENERATOR: u8 = 0x34;

/// Most edges that are owed at once: Linux wants five of ten before it believes in the timer.
const MOST_OWED: u8 = 16;

/// The three counters.
#[derive(Clone, Debug)]
pub(super) struct Pit {
    counter_0: Channel,
    counter_1: Channel,
    counter_2: Channel,
    /// Rises of counter 0 up to this tick were reported.
    seen: Tick,
    edge: bool,
    /// Edges that passed unseen and are still to be repeated.
    owed: u8,
    /// How many more may be owed.
    credit: u8,
}

impl Pit {
    /// The timer as a BIOS leaves it.
    pub(super) fn new() -> Self {
        Self {
            counter_0: Channel::started(RATE_GENERATOR, true),
            counter_1: Channel::started(SQUARE_WAVE, true),
            counter_2: Channel::started(SQUARE_WAVE, false),
            seen: 0,
            edge: false,
            owed: 0,
            credit: MOST_OWED,
        }
    }

    pub(super) fn read(&mut self, port: u16, now: Nanos) -> u8 {
        self.advance(now);
        let now = ticks(now);
        match port {
            0x40 => self.counter_0.read(now),
            0x41 => self.counter_1.read(now),
            0x42 => self.counter_2.read(now),
            _ => 0, // the control word cannot be read
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8, now: Nanos) {
        self.advance(now);
        let now = ticks(now);
        let before = self.counter_0.out(now);
        match port {
            0x40 => self.counter_0.write(value, now),
            0x41 => self.counter_1.write(value, now),
            0x42 => self.counter_2.write(value, now),
            _ => self.write_control(value, now),
        }
        self.edge |= !before && self.counter_0.out(now);
        if port == 0x40 || (port == 0x43 && value >> 6 == 0) {
            self.owed = 0;
        }
    }

    /// Drives counter 2's gate (port 0x61, bit 0).
    pub(super) fn set_gate_2(&mut self, high: bool, now: Nanos) {
        self.counter_2.set_gate(high, ticks(now));
    }

    /// Counter 2's output (port 0x61, bit 5).
    pub(super) fn out_2(&mut self, now: Nanos) -> bool {
        self.counter_2.out(ticks(now))
    }

    /// Lets counter 0 run up to `now`. Several periods that passed unseen make one edge; the others are owed, because it may be the host
    /// that had other things to do, and guests count edges.
    pub(super) fn advance(&mut self, now: Nanos) {
        let now = ticks(now);
        if let Some(rise) = self.counter_0.next_rise(self.seen).filter(|&rise| rise <= now) {
            self.edge = true;
            self.owe(rise, now);
        }
        self.seen = self.seen.max(now);
    }

    /// Owes the edges between one and `now`. Each period that was seen in time allows one more, so that a guest whose handler takes
    /// longer than a period still gets to something else.
    fn owe(&mut self, rise: Tick, now: Tick) {
        let missed = match self.counter_0.next_rise(rise) {
            Some(next) if next <= now => now.saturating_sub(rise).checked_div(next.saturating_sub(rise)).unwrap_or(0),
            _ => {
                self.credit = self.credit.saturating_add(1).min(MOST_OWED);
                return;
            }
        };
        let granted = u8::try_from(missed).unwrap_or(u8::MAX).min(self.credit);
        self.credit = self.credit.saturating_sub(granted);
        self.owed = self.owed.saturating_add(granted).min(MOST_OWED);
    }

    /// The guest has taken an interrupt: the next edge that is owed comes now. Says whether there is one.
    #[inline]
    pub(super) fn repeat_edge(&mut self) -> bool {
        if self.owed == 0 {
            return false;
        }
        self.owed = self.owed.saturating_sub(1);
        self.edge = true;
        true
    }

    /// The guest masks or unmasks its 8259: what passed until then is not owed, as no 8259 would have kept it.
    pub(super) const fn forget_owed(&mut self) {
        self.owed = 0;
    }

    /// Whether counter 0's output rose since the last call.
    pub(super) fn take_edge(&mut self) -> bool {
        core::mem::take(&mut self.edge)
    }

    /// When counter 0's output rises next.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.counter_0.next_rise(self.seen).map(nanos)
    }

    fn write_control(&mut self, control: u8, now: Tick) {
        match control >> 6 {
            0 => self.counter_0.write_control(control, now),
            1 => self.counter_1.write_control(control, now),
            2 => self.counter_2.write_control(control, now),
            _ => self.read_back(control, now),
        }
    }

    /// The read-back command: count latched when bit 5 is 0, status when bit 4 is 0, counters by bits 1..3.
    fn read_back(&mut self, command: u8, now: Tick) {
        let counters = [(2, &mut self.counter_0), (4, &mut self.counter_1), (8, &mut self.counter_2)];
        for (_, counter) in counters.into_iter().filter(|(bit, _)| command & bit != 0) {
            if command & 0x20 == 0 {
                counter.latch_count(now);
            }
            if command & 0x10 == 0 {
                counter.latch_status(now);
            }
        }
    }
}

/// The tick that `now` falls into. Exact: no error grows with time.
fn ticks(now: Nanos) -> Tick {
    let (seconds, rest) = (now.raw() / NANOS_PER_SECOND, now.raw() % NANOS_PER_SECOND);
    let ticks = seconds.saturating_mul(CLOCK).saturating_add(rest * CLOCK / NANOS_PER_SECOND);
    Tick::try_from(ticks).unwrap_or(Tick::MAX)
}

/// The first nanosecond of a tick.
fn nanos(tick: Tick) -> Nanos {
    let tick = u64::try_from(tick).unwrap_or(0);
    let (seconds, rest) = (tick / CLOCK, tick % CLOCK);
    let start = (rest * NANOS_PER_SECOND).div_ceil(CLOCK);
    Nanos::new(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn ticks_and_nanoseconds_agree() {
        assert_eq!(ticks(Nanos::new(NANOS_PER_SECOND)), 1_193_182);
        for tick in [0, 1, 2, 65_535, 65_536, 1_193_181, 1_193_182, 1_193_183, 5_000_000_000] {
            assert_eq!(ticks(nanos(tick)), tick);
            assert!(tick == 0 || ticks(Nanos::new(nanos(tick).raw() - 1)) == tick - 1);
        }
        assert!(ticks(Nanos::new(u64::MAX)) > 0);
    }

    /// Counter 0 as a kernel programs it for 100 Hz.
    fn at_100_hz(control: u8) -> Pit {
        let mut pit = Pit::new();
        pit.write(0x43, control, Nanos::ZERO);
        pit.write(0x40, 0x9B, Nanos::ZERO);
        pit.write(0x40, 0x2E, Nanos::ZERO); // 11931
        pit.take_edge();
        pit
    }

    #[test]
    fn a_bios_leaves_18_interrupts_per_second() {
        let pit = Pit::new();
        assert_eq!(pit.next_deadline().map(|deadline| deadline.raw() / MS), Some(54));
    }

    #[test]
    fn counter_0_interrupts_at_its_rate() {
        for control in [0x34, 0x36] {
            let mut pit = at_100_hz(control);
            let mut now = Nanos::ZERO;
            let mut edges = 0;
            while let Some(deadline) = pit.next_deadline().filter(|deadline| deadline.raw() <= NANOS_PER_SECOND) {
                assert!(deadline > now);
                pit.advance(Nanos::new(deadline.raw() - 1));
                assert!(!pit.take_edge());
                now = deadline;
                pit.advance(now);
                assert!(pit.take_edge());
                edges += 1;
            }
            assert_eq!(edges, 100);
        }
    }

    #[test]
    fn a_long_pause_makes_one_edge_and_owes_the_others() {
        let mut pit = at_100_hz(0x34);
        pit.advance(Nanos::new(45 * MS));
        assert!(pit.take_edge());
        pit.advance(Nanos::new(45 * MS));
        assert!(!pit.take_edge());
        for _ in 0..3 {
            assert!(pit.repeat_edge() && pit.take_edge());
        }
        assert!(!pit.repeat_edge() && !pit.take_edge());
        assert_eq!(pit.next_deadline().map(|deadline| deadline.raw() / MS), Some(49));
    }

    #[test]
    fn a_guest_that_is_always_late_is_owed_little() {
        let mut pit = at_100_hz(0x34);
        let mut edges = 0;
        for pause in 1..=100 {
            pit.advance(Nanos::new(pause * 100 * MS));
            edges += u32::from(pit.take_edge());
            while pit.repeat_edge() {
                edges += u32::from(pit.take_edge());
            }
        }
        assert_eq!(edges, 100 + u32::from(MOST_OWED), "of 1,000");
        pit.advance(Nanos::new(20_000 * MS));
        pit.write(0x40, 0, Nanos::new(20_000 * MS));
        assert!(!pit.repeat_edge(), "a new count starts anew");
    }

    #[test]
    fn a_one_shot_interrupts_once() {
        let mut pit = at_100_hz(0x30);
        pit.advance(Nanos::new(50 * MS));
        assert!(pit.take_edge());
        assert_eq!(pit.next_deadline(), None);
        // The next count comes with a low output and one more edge.
        pit.write(0x40, 0x00, Nanos::new(60 * MS));
        pit.write(0x40, 0x10, Nanos::new(60 * MS));
        assert!(!pit.take_edge());
        pit.advance(Nanos::new(70 * MS));
        assert!(pit.take_edge());
    }

    #[test]
    fn a_new_mode_that_lifts_the_output_is_an_edge() {
        let mut pit = at_100_hz(0x30);
        pit.write(0x43, 0x34, Nanos::new(MS));
        assert!(pit.take_edge());
    }

    #[test]
    fn counter_2_runs_through_its_gate() {
        // How kernels calibrate: mode 0, 10 ms, wait for the output.
        let mut pit = Pit::new();
        pit.set_gate_2(true, Nanos::ZERO);
        pit.write(0x43, 0xB0, Nanos::ZERO);
        assert!(!pit.out_2(Nanos::ZERO));
        pit.write(0x42, 0x9B, Nanos::ZERO);
        pit.write(0x42, 0x2E, Nanos::ZERO);
        assert!(!pit.out_2(Nanos::new(9_990_000)));
        assert!(pit.out_2(Nanos::new(10 * MS)));
        pit.write(0x43, 0xB2, Nanos::new(20 * MS)); // mode 1: started by the gate
        pit.write(0x42, 0x9B, Nanos::new(20 * MS));
        pit.write(0x42, 0x2E, Nanos::new(20 * MS));
        pit.set_gate_2(false, Nanos::new(20 * MS));
        pit.set_gate_2(true, Nanos::new(21 * MS));
        assert!(!pit.out_2(Nanos::new(30 * MS)));
        assert!(pit.out_2(Nanos::new(31 * MS)));
    }

    #[test]
    fn the_read_back_command_latches_the_chosen_counters() {
        let mut pit = at_100_hz(0x34);
        pit.write(0x43, 0xC2, Nanos::new(MS)); // status and count of counter 0
        pit.write(0x43, 0xE8, Nanos::new(MS)); // status of counter 2
        let later = Nanos::new(5 * MS);
        assert_eq!(pit.read(0x40, later), 0xB4);
        let count = u16::from_le_bytes([pit.read(0x40, later), pit.read(0x40, later)]);
        assert_eq!(count, 11_931 - 1_193);
        assert_eq!(pit.read(0x42, later) & 0x3F, 0x36);
        assert_eq!(pit.read(0x43, later), 0);
    }
}
