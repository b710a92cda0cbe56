use super::*;

/// Initialized by software with vectors from 0x20 and nothing masked.
fn pic(icw4: u8) -> Pic {
    let mut pic = Pic::initialized(0x08, 0xB8);
    pic.write(Port::Command, 0x11);
    pic.write(Port::Data, 0x27); // the low three bits of ICW2 are not used in 8086 mode
    pic.write(Port::Data, 0x04);
    pic.write(Port::Data, icw4);
    pic
}

fn isr(pic: &mut Pic) -> u8 {
    pic.write(Port::Command, 0x0B);
    pic.read(Port::Command)
}

fn irr(pic: &mut Pic) -> u8 {
    pic.write(Port::Command, 0x0A);
    pic.read(Port::Command)
}

#[test]
fn initialization_takes_four_words_and_clears_the_mask() {
    let mut pic = pic(0x01);
    assert_eq!(pic.read(Port::Data), 0);
    pic.write(Port::Data, 0xFB);
    assert_eq!(pic.read(Port::Data), 0xFB);
    assert_eq!(pic.vector(Some(3)), 0x23);
    assert_eq!(pic.vector(None), 0x27);
}

#[test]
fn initialization_without_icw4_or_icw3_is_shorter() {
    let mut pic = Pic::initialized(8, 0);
    pic.write(Port::Command, 0x10); // cascade, no ICW4
    pic.write(Port::Data, 0x40);
    pic.write(Port::Data, 0x04);
    pic.write(Port::Data, 0x55); // OCW1 already
    assert_eq!(pic.read(Port::Data), 0x55);
    pic.write(Port::Command, 0x13); // single, ICW4
    pic.write(Port::Data, 0x50);
    pic.write(Port::Data, 0x03); // ICW4 with AEOI
    pic.write(Port::Data, 0x00);
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), Some(1));
    assert_eq!(isr(&mut pic), 0);
}

#[test]
fn an_edge_latches_once_and_stays() {
    let mut pic = pic(0x01);
    pic.set_line(4, true);
    pic.set_line(4, true);
    assert_eq!(irr(&mut pic), 0x10);
    assert_eq!(pic.acknowledge(), Some(4));
    assert_eq!(irr(&mut pic), 0);
    pic.write(Port::Command, 0x20);
    assert!(!pic.interrupt()); // still high, but no new edge
    pic.set_line(4, false);
    pic.set_line(4, true);
    assert!(pic.interrupt());
    pic.set_line(4, false);
    assert_eq!(pic.acknowledge(), Some(4));
    pic.write(Port::Command, 0x20);
    assert_eq!(pic.acknowledge(), None);
    assert_eq!(isr(&mut pic), 0); // a spurious interrupt leaves no level in service
}

#[test]
fn a_cascade_takes_its_request_back() {
    let mut pic = pic(0x01);
    pic.set_cascade(2, true);
    assert!(pic.interrupt());
    pic.set_cascade(2, false);
    assert!(!pic.interrupt());
}

#[test]
fn a_pulse_stays_requested() {
    let mut pic = pic(0x01);
    pic.pulse(0);
    pic.pulse(0);
    assert_eq!(pic.acknowledge(), Some(0));
    pic.write(Port::Command, 0x20);
    assert_eq!(pic.acknowledge(), None);
}

#[test]
fn a_masked_request_waits_in_irr() {
    let mut pic = pic(0x01);
    pic.write(Port::Data, 0x02);
    pic.set_line(1, true);
    assert!(!pic.interrupt());
    assert_eq!(irr(&mut pic), 0x02);
    assert!(!pic.awaits(1) && pic.awaits(0));
    pic.write(Port::Data, 0x00);
    assert_eq!(pic.acknowledge(), Some(1));
}

#[test]
fn higher_levels_nest_and_lower_ones_wait() {
    let mut pic = pic(0x01);
    pic.set_line(4, true);
    assert_eq!(pic.acknowledge(), Some(4));
    pic.set_line(6, true);
    assert!(!pic.interrupt());
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), Some(1));
    assert_eq!(isr(&mut pic), 0x12);
    pic.write(Port::Command, 0x20); // ends 1, the highest
    assert_eq!(isr(&mut pic), 0x10);
    assert!(!pic.interrupt());
    pic.write(Port::Command, 0x20);
    assert_eq!(pic.acknowledge(), Some(6));
}

#[test]
fn a_specific_eoi_ends_its_own_level() {
    let mut pic = pic(0x01);
    pic.set_line(4, true);
    pic.acknowledge();
    pic.set_line(1, true);
    pic.acknowledge();
    pic.write(Port::Command, 0x64);
    assert_eq!(isr(&mut pic), 0x02);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let mut pic = pic(0x03);
    pic.set_line(4, true);
    assert_eq!(pic.acknowledge(), Some(4));
    assert_eq!(isr(&mut pic), 0);
    pic.set_line(5, true);
    assert!(pic.interrupt());
}

#[test]
fn priorities_rotate() {
    let mut pic = pic(0x01);
    pic.set_line(3, true);
    pic.acknowledge();
    pic.write(Port::Command, 0xA0); // rotate on non-specific EOI: 3 becomes the lowest
    for level in 0..8 {
        pic.set_line(level, false);
        pic.set_line(level, true);
    }
    let mut order = [0; 8];
    for slot in &mut order {
        *slot = pic.acknowledge().unwrap();
        pic.write(Port::Command, 0x20);
    }
    assert_eq!(order, [4, 5, 6, 7, 0, 1, 2, 3]);
    pic.write(Port::Command, 0xC7); // set priority: 7 lowest again
    pic.pulse(2);
    pic.pulse(5);
    assert_eq!(pic.acknowledge(), Some(2));
    pic.write(Port::Command, 0xE2); // rotate on specific EOI: 2 lowest
    pic.pulse(1);
    assert_eq!(pic.acknowledge(), Some(5));
}

#[test]
fn rotation_in_automatic_eoi() {
    let mut pic = pic(0x03);
    pic.write(Port::Command, 0x80);
    pic.pulse(0);
    assert_eq!(pic.acknowledge(), Some(0));
    pic.pulse(0);
    pic.pulse(7);
    assert_eq!(pic.acknowledge(), Some(7));
    pic.write(Port::Command, 0x00);
    pic.pulse(7);
    assert_eq!(pic.acknowledge(), Some(0));
    assert_eq!(pic.acknowledge(), Some(7));
}

#[test]
fn the_special_mask_mode_lets_lower_levels_through() {
    let mut pic = pic(0x01);
    pic.pulse(1);
    pic.acknowledge();
    pic.pulse(5);
    pic.write(Port::Data, 0x02);
    assert!(!pic.interrupt());
    pic.write(Port::Command, 0x68); // ESMM, SMM
    assert_eq!(pic.acknowledge(), Some(5));
    pic.write(Port::Command, 0x20); // does not end the masked level 1
    assert_eq!(isr(&mut pic), 0x02);
    pic.write(Port::Command, 0x48);
    pic.pulse(5);
    assert!(!pic.interrupt());
}

#[test]
fn the_special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    let mut pic = pic(0x11);
    pic.pulse(CASCADE);
    assert_eq!(pic.acknowledge(), Some(CASCADE));
    pic.pulse(CASCADE);
    assert_eq!(pic.acknowledge(), Some(CASCADE));
    pic.pulse(4);
    assert_eq!(pic.acknowledge(), Some(4));
}

#[test]
fn polling_acknowledges() {
    let mut pic = pic(0x01);
    pic.write(Port::Command, 0x0C);
    assert_eq!(pic.read(Port::Command), 0);
    pic.pulse(6);
    pic.write(Port::Command, 0x0C);
    assert_eq!(pic.read(Port::Command), 0x86);
    assert_eq!(isr(&mut pic), 0x40);
}

#[test]
fn level_triggered_inputs_follow_their_pin() {
    let mut pic = pic(0x01);
    pic.set_elcr(0x20);
    pic.set_line(5, true);
    assert_eq!(pic.acknowledge(), Some(5));
    assert_eq!(irr(&mut pic), 0x20);
    pic.write(Port::Command, 0x20);
    assert!(pic.interrupt());
    pic.set_line(5, false);
    assert!(!pic.interrupt());
}

#[test]
fn a_new_initialization_forgets_requests_and_service() {
    let mut pic = pic(0x03);
    pic.pulse(1);
    pic.write(Port::Command, 0x11);
    pic.write(Port::Data, 0x30);
    pic.write(Port::Data, 0x04);
    pic.write(Port::Data, 0x01);
    assert!(!pic.interrupt());
    assert_eq!(isr(&mut pic), 0);
}
