//! The system control ports of a PC: 0x61 (speaker, counter 2, refresh), 0x92 (fast reset and A20) and 0xCF9 (reset
//! control).

use super::i8042::Pulse;
use super::pit::Pit;
use super::time::Nanos;

const PORT_B: u16 = 0x61;
const PORT_A: u16 = 0x92;

const GATE_2: u8 = 1 << 0;
/// Bits 0..3 of port 0x61 can be written: gate, speaker, and two error checks that find nothing.
const PORT_B_WRITABLE: u8 = 0x0F;
const REFRESH: u8 = 1 << 4;
const OUT_2: u8 = 1 << 5;
/// The refresh bit changes at each refresh of the memory, in nanoseconds.
const REFRESH_PERIOD: u64 = 15_085;

const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;

/// The registers behind the three ports.
#[derive(Clone, Debug)]
pub(super) struct System {
    port_b: u8,
    port_a: u8,
    reset_control: u8,
}

impl System {
    pub(super) fn new() -> Self {
        Self { port_b: 0, port_a: A20, reset_control: 0 }
    }

    pub(super) fn read(&self, port: u16, pit: &mut Pit, now: Nanos) -> u8 {
        match port {
            PORT_A => self.port_a,
            PORT_B => {
                let refresh = if now.raw() / REFRESH_PERIOD % 2 == 1 { REFRESH } else { 0 };
                let out = if pit.out_2(now) { OUT_2 } else { 0 };
                self.port_b | refresh | out
            }
            _ => self.reset_control,
        }
    }

    #[must_use]
    pub(super) fn write(&mut self, port: u16, value: u8, pit: &mut Pit, now: Nanos) -> Pulse {
        let reset = match port {
            PORT_A => {
                self.port_a = value & !FAST_RESET;
                value & FAST_RESET != 0
            }
            PORT_B => {
                self.port_b = value & PORT_B_WRITABLE;
                pit.set_gate_2(value & GATE_2 != 0, now);
                false
            }
            _ => {
                self.reset_control = value & !RESET_CPU;
                value & RESET_CPU != 0
            }
        };
        if reset { Pulse::Reset } else { Pulse::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET_CONTROL: u16 = 0xCF9;

    const NOW: Nanos = Nanos::ZERO;

    #[test]
    fn port_61_shows_counter_2_and_refresh() {
        let (mut system, mut pit) = (System::new(), Pit::new());
        assert_eq!(system.write(PORT_B, 0xFD, &mut pit, NOW), Pulse::None);
        pit.write(0x43, 0xB0, NOW);
        assert_eq!(system.read(PORT_B, &mut pit, NOW), 0x0D);
        assert_eq!(system.read(PORT_B, &mut pit, Nanos::new(REFRESH_PERIOD)), 0x1D);
        pit.write(0x42, 10, NOW);
        pit.write(0x42, 0, NOW);
        assert_eq!(system.read(PORT_B, &mut pit, Nanos::new(2 * REFRESH_PERIOD)), 0x2D);
        assert_eq!(system.write(PORT_B, 0x00, &mut pit, NOW), Pulse::None);
        assert_eq!(system.read(PORT_B, &mut pit, NOW) & 0x03, 0);
    }

    #[test]
    fn resets() {
        let (mut system, mut pit) = (System::new(), Pit::new());
        assert_eq!(system.read(PORT_A, &mut pit, NOW), A20);
        assert_eq!(system.write(PORT_A, 0x02, &mut pit, NOW), Pulse::None);
        assert_eq!(system.write(PORT_A, 0x03, &mut pit, NOW), Pulse::Reset);
        assert_eq!(system.write(RESET_CONTROL, 0x02, &mut pit, NOW), Pulse::None);
        assert_eq!(system.write(RESET_CONTROL, 0x06, &mut pit, NOW), Pulse::Reset);
        assert_eq!(system.read(RESET_CONTROL, &mut pit, NOW), 0x02);
    }
}
