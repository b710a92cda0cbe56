//! Where a patch goes in its page, and the jump to it.

use alloc::vec::Vec;

use super::patch::{Body, Distance, JUMP, JUMP_OPCODE, Patch, Step};
use super::view::{PAGE, Span};

/// From a page of code to its patches: the two multiples of 4 MiB whose jumps consist of bytes that trap.
pub(super) const DISTANCES: [u32; 2] = [0xfb00_0000, 0xfc00_0000];
/// The lowest two bytes of the displacement. The upper two are FF FA or FF FB: FF /7 is undefined, CLI and STI fault. Before FF, each of the
/// second list traps: HLT, CLI, STI, an undefined FE /7 or FF /7, or a prefix of one. Before that, each of the first does.
const LOWEST: [u8; 17] =
    [0xff, 0xfe, 0xfb, 0xfa, 0xf4, 0xf3, 0xf2, 0xf0, 0xef, 0xee, 0xed, 0xec, 0xe7, 0xe6, 0xe5, 0xe4, 0xcc];
const SECOND: [u8; 7] = [0xff, 0xfe, 0xfb, 0xfa, 0xf4, 0xf3, 0xf2];
/// Which bytes of a page of patches are used.
#[derive(Clone)]
pub(super) struct Room([u64; PAGE / 64]);

impl Room {
    pub(super) const fn new() -> Self {
        Self([0; PAGE / 64])
    }

    fn is_free(&self, span: Span) -> bool {
        (span.first..span.end).all(|at| self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 0))
    }

    fn take(&mut self, span: Span) {
        for at in span.first..span.end {
            if let Some(word) = self.0.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
        }
    }

    pub(super) fn give(&mut self, span: Span) {
        for at in span.first..span.end {
            if let Some(word) = self.0.get_mut(at / 64) {
                *word &= !(1 << (at % 64));
            }
        }
    }

    /// The last free run of `length` bytes: what begins early in a page of code has landings early in this one only.
    fn find(&self, length: usize) -> Option<usize> {
        let mut run = 0;
        (0..PAGE).rev().find(|at| {
            let free = self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 0);
            run = if free { usize::saturating_add(run, 1) } else { 0 };
            run == length
        })
    }
}

/// Bytes for a page of patches.
pub(super) type Piece = (usize, Vec<u8>);

/// Finds a place for a patch at one of the distances. Gives it, and what is to be written.
pub(super) fn place(body: &Body, room: &mut Room, distance: u32) -> Option<(Patch, Vec<Piece>)> {
    let span = body.span?;
    let (landing, jump) = landing(span.first, room, distance)?;
    let pad = Span::new(landing, landing.saturating_add(JUMP));
    room.take(pad);
    let Some(at) = room.find(body.bytes.len()) else {
        room.give(pad);
        return None;
    };
    let whole = Span::new(at, at.saturating_add(body.bytes.len()));
    room.take(whole);
    let mut bytes = body.bytes.clone();
    for &Distance { hole, from, to } in &body.exits {
        let from = distance.wrapping_add(at.saturating_add(from) as u32);
        bytes.get_mut(hole..hole.saturating_add(4))?.copy_from_slice(&to.wrapping_sub(from).to_le_bytes());
    }
    let mut steps: Vec<Step> = body.steps.clone();
    for step in &mut steps {
        step.at = step.at.saturating_add(at);
    }
    steps.insert(0, Step { whole: true, ..Step::new(landing, span.first) });
    let mut to_body = [JUMP_OPCODE; JUMP];
    let displacement = (at as u32).wrapping_sub(pad.end as u32);
    to_body.get_mut(1..)?.copy_from_slice(&displacement.to_le_bytes());
    let patch = Patch { span, jump, room: [pad, whole], steps, ends_with_sti: body.ends_with_sti, entries: 0 };
    Some((patch, alloc::vec![(landing, to_body.to_vec()), (at, bytes)]))
}

/// A free place that the jump at `start` can reach by a displacement of trapping bytes.
fn landing(start: usize, room: &Room, distance: u32) -> Option<(usize, [u8; JUMP])> {
    let upper = distance.wrapping_sub(1) & 0xffff_0000;
    SECOND.iter().flat_map(|second| LOWEST.iter().map(move |lowest| (*second, *lowest))).find_map(|(second, lowest)| {
        if matches!(lowest, 0xfe | 0xff) && second & 0x38 != 0x38 {
            // FE and FF are undefined with /7 only.
            return None;
        }
        let displacement = upper | u32::from(second) << 8 | u32::from(lowest);
        let place = (start as u32).wrapping_add(JUMP as u32).wrapping_add(displacement).wrapping_sub(distance) as usize;
        let span = Span { first: place, end: place.saturating_add(JUMP) };
        if place >= PAGE || span.end > PAGE || !room.is_free(span) {
            return None;
        }
        let [a, b, c, d] = displacement.to_le_bytes();
        Some((place, [JUMP_OPCODE, a, b, c, d]))
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::patch::{Known, build};
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    fn page(at: usize, bytes: &[u8]) -> [u8; PAGE] {
        let mut page = [0x90; PAGE];
        page[at..at + bytes.len()].copy_from_slice(bytes);
        page
    }

    /// What is known if instructions begin at these offsets from `at`.
    fn known(at: usize, begins: &'static [usize]) -> impl Fn(usize) -> Known {
        move |offset| if begins.iter().any(|begin| at + begin == offset) { Known::Usable } else { Known::Nothing }
    }

    #[test]
    fn a_loop_of_five_bytes_is_a_patch() {
        // cli; sti; dec %ecx; jnz back
        let page = page(0xe0, &[0xfa, 0xfb, 0x49, 0x75, 0xfb, 0xfa]);
        let body = build(&page, 0xe0, known(0xe0, &[0, 1, 2, 3, 5])).unwrap();
        let mut room = Room::new();
        for distance in DISTANCES {
            let (patch, pieces) = place(&body, &mut room, distance).unwrap();
            assert_eq!(patch.span, Span::new(0xe0, 0xe5));
            assert_eq!(pieces.len(), 2);
            assert!([0xe1, 0xe2, 0xe3].iter().all(|&at| patch.entry(at).is_some()));
            assert!(patch.entry(0xe4).is_none(), "that is inside of an instruction");
        }
    }

    #[test]
    fn a_call_leaves_the_address_behind_it() {
        // sti; call to 0x2000 from the page
        let page = page(0xe0, &[0xfb, 0xe8, 0x1a, 0x1f, 0x00, 0x00]);
        let body = build(&page, 0xe0, known(0xe0, &[0, 1])).unwrap();
        let (patch, pieces) = place(&body, &mut Room::new(), DISTANCES[0]).unwrap();
        assert_eq!(patch.span, Span::new(0xe0, 0xe6));
        let (at, bytes) = &pieces[1];
        let base = DISTANCES[0].wrapping_add(*at as u32);
        let mut decoder = Decoder::with_ip(32, bytes, base.into(), DecoderOptions::NONE);
        let code: Vec<_> = decoder.iter().collect();
        let call = code.iter().position(|insn| insn.mnemonic() == Mnemonic::Call).unwrap();
        assert_eq!(code[call].near_branch_target(), code[call + 1].ip(), "to the next instruction");
        let lea = code.iter().find(|insn| insn.mnemonic() == Mnemonic::Lea).unwrap();
        assert_eq!((code[call + 1].ip() as u32).wrapping_add(lea.memory_displacement32()), 0xe6);
        assert_eq!(code.last().unwrap().near_branch_target(), 0x2000);
        let of_call = patch.steps.iter().filter(|step| step.guest == 0xe1);
        assert!(of_call.clone().count() == 5 && of_call.clone().all(|step| step.after_sti));
    }

    #[test]
    fn a_page_full_of_sites_has_room_for_patches_at_its_start() {
        // CLI, everywhere
        let page = page(0, &[0xfa; PAGE - 16]);
        let mut room = Room::new();
        for at in (0..16).map(|n| 0x800 + n * JUMP).chain((0..8).map(|n| n * JUMP)) {
            let body = build(&page, at, |_| Known::Usable);
            let body = body.unwrap_or_else(|| panic!("{at:#x}"));
            assert!(place(&body, &mut room, DISTANCES[1]).is_some(), "{at:#x}");
        }
    }

    #[test]
    fn every_place_in_a_page_reaches_a_landing() {
        for distance in DISTANCES {
            for start in 0..PAGE - JUMP {
                let (at, jump) = landing(start, &Room::new(), distance).unwrap();
                let [_, displacement @ ..] = jump;
                let target = (start as u32 + 5).wrapping_add(u32::from_le_bytes(displacement));
                assert_eq!(target, distance.wrapping_add(at as u32));
            }
        }
    }

    #[test]
    fn every_byte_of_a_jump_traps() {
        let traps = |bytes: &[u8]| {
            let insn = Decoder::new(32, bytes, DecoderOptions::NONE).decode();
            let ports = matches!(insn.mnemonic(), Mnemonic::In | Mnemonic::Out);
            insn.is_invalid()
                || ports
                || matches!(insn.mnemonic(), Mnemonic::Hlt | Mnemonic::Cli | Mnemonic::Sti | Mnemonic::Int3)
        };
        for distance in DISTANCES {
            let mut room = Room::new();
            let mut count = 0;
            while let Some((at, jump)) = landing(0x800, &room, distance) {
                room.take(Span::new(at, at + JUMP));
                let mut bytes = jump.to_vec();
                bytes.extend([0x90; 16]);
                for first in 1..JUMP {
                    assert!(traps(&bytes[first..]), "{:02x?}", &bytes[first..JUMP]);
                }
                count += 1;
            }
            assert!(count > 8, "{count} places");
        }
    }
}
