//! Finding code: decoding along direct control flow from an address that the guest kernel reached.

use alloc::vec::Vec;
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};

use super::sensitive::sensitive;
use super::view::{Found, PAGE};

/// Most instructions found in one exit. A patch of a page that was executed costs an emulator as much as many exits, so the more at
/// once the better; it ends because a page ends.
const BATCH: usize = 1024;
/// Branch targets that wait to be looked at.
const WAITING: usize = 128;

/// Decodes from `start` on, along the direct branches within the page. `code` holds the page and as many bytes behind it as an
/// instruction may reach into; `address` is the page's own. `known` says whether an instruction was discovered before.
pub(super) fn discover(code: &[u8], address: u32, start: usize, known: impl Fn(usize) -> bool) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = [0_u64; PAGE / 64];
    let mut waiting = Vec::with_capacity(WAITING);
    waiting.push(start);
    let mut decoder = Decoder::with_ip(32, code, address.into(), DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while let Some(from) = waiting.pop() {
        let mut offset = from;
        while offset < PAGE && found.len() < BATCH && !known(offset) && first_visit(&mut seen, offset) {
            if decoder.position() != offset {
                if decoder.set_position(offset).is_err() {
                    break;
                }
                decoder.set_ip(u64::from(address).wrapping_add(offset as u64));
            }
            decoder.decode_out(&mut insn);
            if insn.is_invalid() {
                // What is no instruction, or ends where nobody knows how it goes on, is looked at when it is reached.
                let cut = decoder.last_error() == DecoderError::NoMoreBytes;
                let length = if cut { PAGE.saturating_sub(offset) as u8 } else { 1 };
                found.push(Found { offset, length, trap: true, shy: false });
                break;
            }
            let inside = code.get(offset.saturating_add(1)..offset.saturating_add(insn.len())).unwrap_or(&[]);
            let (trap, shy) = (sensitive(&insn).is_some(), looks_sensitive(inside));
            found.push(Found { offset, length: insn.len() as u8, trap, shy });
            if let Some(target) = target_in_page(&insn, address)
                && waiting.len() < WAITING
            {
                waiting.push(target);
            }
            if !goes_on(&insn) {
                break;
            }
            offset = offset.saturating_add(insn.len());
        }
    }
    found
}

/// Do these bytes, if one jumped among them, look like an instruction that must not run unseen? Only the ones that occur are
/// looked for: PUSHF, POPF, IRET, INT3, CPUID, the group of SGDT and SLDT, LAR, LSL, and MOV from CS or SS.
fn looks_sensitive(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().any(|&byte| match (core::mem::replace(&mut before, byte), byte) {
        (_, 0x9c | 0x9d | 0xcf | 0xcc) | (0x0f, 0xa2 | 0x00..=0x03) => true,
        (0x8c, second) => second & 0x38 == 0x08 || second & 0x38 == 0x10,
        _ => false,
    })
}

fn first_visit(seen: &mut [u64; PAGE / 64], offset: usize) -> bool {
    let Some(word) = seen.get_mut(offset / 64) else { return false };
    let bit = 1 << (offset % 64);
    let first = *word & bit == 0;
    *word |= bit;
    first
}

/// Where a direct near branch goes, if it stays in the page.
fn target_in_page(insn: &Instruction, address: u32) -> Option<usize> {
    let direct = matches!(
        insn.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
    );
    if !direct || insn.near_branch_target() == 0 {
        return None;
    }
    let offset = (insn.near_branch_target() as u32).wrapping_sub(address) as usize;
    (offset < PAGE).then_some(offset)
}

/// Is the next instruction reached from this one? What follows a call usually is.
fn goes_on(insn: &Instruction) -> bool {
    !matches!(
        insn.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Exception
    )
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    const AT: u32 = 0xc010_0000;

    fn page(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut code = vec![0xf4; PAGE];
        for (offset, bytes) in parts {
            code[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        code
    }

    fn offsets(found: &[Found]) -> Vec<(usize, u8, bool)> {
        let mut list: Vec<_> = found.iter().map(|f| (f.offset, f.length, f.trap)).collect();
        list.sort_unstable();
        list
    }

    #[test]
    fn follows_branches_and_stops_at_returns() {
        // push ebp; pushf; je +3; ret; (3 bytes never reached); at 0x10: nop; ret
        let code = page(&[(0, &[0x55, 0x9c, 0x74, 0x0c, 0xc3]), (0x10, &[0x90, 0xc3])]);
        let list = offsets(&discover(&code, AT, 0, |_| false));
        assert_eq!(
            list,
            [(0, 1, false), (1, 1, true), (2, 2, false), (4, 1, false), (0x10, 1, false), (0x11, 1, false)]
        );
    }

    #[test]
    fn known_code_is_not_decoded_again() {
        let code = page(&[(0, &[0x90, 0x90, 0x90, 0xc3])]);
        assert_eq!(offsets(&discover(&code, AT, 0, |offset| offset == 2)), [(0, 1, false), (1, 1, false)]);
    }

    #[test]
    fn what_is_no_instruction_traps() {
        let code = page(&[(0, &[0x90, 0x0f, 0x0b]), (8, &[0x0f, 0x04])]);
        assert_eq!(offsets(&discover(&code, AT, 0, |_| false)), [(0, 1, false), (1, 2, false)]);
        assert_eq!(offsets(&discover(&code, AT, 8, |_| false))[0], (8, 1, true));
    }

    #[test]
    fn the_last_instruction_needs_its_rest() {
        let mut code = page(&[(PAGE - 2, &[0xb8, 1])]);
        assert_eq!(offsets(&discover(&code, AT, PAGE - 2, |_| false)), [(PAGE - 2, 2, true)]);
        code.extend([2, 3, 4, 0xc3]);
        assert_eq!(offsets(&discover(&code, AT, PAGE - 2, |_| false)), [(PAGE - 2, 5, false)]);
    }

    #[test]
    fn loops_end() {
        let code = page(&[(0, &[0xeb, 0xfe])]);
        assert_eq!(discover(&code, AT, 0, |_| false).len(), 1);
        assert!(discover(&vec![0x90; PAGE], AT, 0, |_| false).len() <= BATCH);
    }
}
