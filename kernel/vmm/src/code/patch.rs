//! What a patch consists of: the code that does the work of a few guest instructions without an exit, and how to leave it.
//!
//! Five bytes of shadow code become a jump to the patch, which ends with a jump back. The virtual IF is the real NT, inverted, while
//! the guest kernel runs: any privilege level may change NT, and it means nothing but to IRET, which always traps. The real AC,
//! which means nothing below level 3, says that an interrupt waits for the guest to set IF: then STI and POPF trap. A guest that has AC, NT
//! or IOPL set itself runs no patches.
//!
//! Nobody may see a patch from outside. So for each of its instructions there is a [`Step`] that says which guest instruction it belongs
//! to, and what must be put back if the patch is left there: an instruction of the guest's either has not begun or is done.
//!
//! The jump's displacement consists of bytes that trap, whichever of them one jumps to: a guest that jumps among the instructions that
//! were replaced is noticed. That leaves two distances from the code to its patches, and a few dozen places in a page for each jump.

use alloc::vec::Vec;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use super::sensitive::sensitive;
use super::view::{PAGE, Span};

/// Bytes of the jump.
pub(super) const JUMP: usize = 5;
pub(super) const JUMP_OPCODE: u8 = 0xe9;
/// Instructions in a patch, at most: five bytes are at most five.
const MOST: usize = 5;

/// One instruction of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Where it begins in the page of patches.
    pub at: usize,
    /// The guest instruction that is to run if the patch is left before this step.
    pub guest: usize,
    /// Doublewords to drop from the stack then.
    pub pops: u8,
    /// What the topmost of them holds.
    pub restores: Restores,
    /// It is a guest instruction itself, or none: a fault of it is one of the instruction at `guest`.
    pub whole: bool,
    /// An STI was just executed.
    pub after_sti: bool,
    /// The guest instruction begins here, so that the patch can be entered.
    pub begins: bool,
}

impl Step {
    /// A step of the instruction at `guest` that leaves nothing to be put back.
    pub(super) const fn new(at: usize, guest: usize) -> Self {
        let restores = Restores::Nothing;
        Self { at, guest, pops: 0, restores, whole: false, after_sti: false, begins: false }
    }
}

/// What a patch has on the stack of what it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restores {
    Nothing,
    Flags,
    Eax,
}

/// A patch in its place.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// The bytes of the guest's that it stands for.
    pub span: Span,
    /// What is shown in place of the first of them.
    pub jump: [u8; JUMP],
    /// The bytes that it takes in the page of patches.
    pub room: [Span; 2],
    /// Its instructions.
    pub steps: Vec<Step>,
    /// Its last instruction is STI.
    pub ends_with_sti: bool,
    /// How many times the guest jumped among its instructions.
    pub entries: u8,
}

impl Patch {
    /// Is there a byte at `offset` that belongs to the jump, but is not its first?
    pub(super) const fn is_inside(&self, offset: usize) -> bool {
        offset > self.span.first && offset < self.span.first.saturating_add(JUMP)
    }

    /// Is the byte at this offset of the page of patches one of this patch's?
    pub(super) fn holds(&self, at: usize) -> bool {
        self.room.iter().any(|room| (room.first..room.end).contains(&at))
    }

    /// The bytes that look different.
    pub(super) fn shown(&self) -> Span {
        Span::new(self.span.first, self.span.first.saturating_add(JUMP))
    }

    /// Where the guest instruction at `offset` begins in the patch.
    pub(super) fn entry(&self, offset: usize) -> Option<Step> {
        self.steps.iter().find(|step| step.guest == offset && step.begins).copied()
    }
}

/// A patch without a place: its code, with steps and jumps relative to its start.
#[derive(Default)]
pub(super) struct Body {
    pub bytes: Vec<u8>,
    pub steps: Vec<Step>,
    /// Displacements to guest code.
    pub exits: Vec<Distance>,
    pub span: Option<Span>,
    pub ends_with_sti: bool,
}

/// How far it is from a patch to guest code: a number in the patch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Distance {
    /// Where it stands.
    pub hole: usize,
    /// From where it counts.
    pub from: usize,
    /// To where, from the page of code on.
    pub to: u32,
}

/// How a patch is left before a step.
#[derive(Clone, Copy)]
struct Leave {
    pops: u8,
    restores: Restores,
}

const CLEAN: Leave = Leave { pops: 0, restores: Restores::Nothing };
const DROP: Leave = Leave { pops: 1, restores: Restores::Nothing };
const DROP_TWO: Leave = Leave { pops: 2, restores: Restores::Nothing };
const RESTORE: Leave = Leave { pops: 1, restores: Restores::Flags };
const RESTORE_TWO: Leave = Leave { pops: 2, restores: Restores::Flags };
const RESTORE_EAX: Leave = Leave { pops: 1, restores: Restores::Eax };

impl Body {
    fn step(&mut self, guest: usize, leave: Leave, bytes: &[u8]) {
        let Leave { pops, restores } = leave;
        let at = self.bytes.len();
        self.steps.push(Step { pops, restores, ..Step::new(at, guest) });
        self.bytes.extend_from_slice(bytes);
    }

    fn whole(&mut self, guest: usize, pops: u8, bytes: &[u8]) {
        let at = self.bytes.len();
        self.steps.push(Step { pops, whole: true, ..Step::new(at, guest) });
        self.bytes.extend_from_slice(bytes);
    }

    /// CLI.
    fn clear_interrupts(&mut self, guest: usize) {
        self.step(guest, CLEAN, &[0x9c]);
        self.step(guest, DROP, &[0x80, 0x4c, 0x24, 0x01, 0x40]); // or byte [esp+1], NT
        self.step(guest, RESTORE, &[0x9d]);
    }

    /// STI.
    fn set_interrupts(&mut self, guest: usize) {
        self.step(guest, CLEAN, &[0x9c]);
        self.step(guest, DROP, &[0xf6, 0x44, 0x24, 0x02, 0x04]); // test byte [esp+2], AC
        self.step(guest, RESTORE, &[0x74, 0x01]); // jz
        self.step(guest, RESTORE, &[0xcc]);
        self.step(guest, RESTORE, &[0x80, 0x64, 0x24, 0x01, 0xbf]); // and byte [esp+1], ~NT
        self.step(guest, RESTORE, &[0x9d]);
    }

    /// PUSHF. The image has the real flags; if NT is set, IF, NT and AC must be clear in it. The flags come back from a copy.
    fn push_flags(&mut self, guest: usize, next: usize) {
        self.step(guest, CLEAN, &[0x9c]);
        self.step(guest, DROP, &[0xf6, 0x44, 0x24, 0x01, 0x40]); // test byte [esp+1], NT
        self.step(guest, RESTORE, &[0x74, 0x10]); // jz
        self.step(guest, RESTORE, &[0xff, 0x34, 0x24]); // push dword [esp]
        self.step(guest, RESTORE_TWO, &[0x80, 0x74, 0x24, 0x05, 0x42]); // xor byte [esp+5], NT | IF
        self.step(guest, RESTORE_TWO, &[0x80, 0x64, 0x24, 0x06, 0xfb]); // and byte [esp+6], ~AC
        self.step(guest, RESTORE_TWO, &[0x9d]);
        self.whole(next, 0, &[0xeb, 0x04]);
        self.step(guest, RESTORE, &[0xff, 0x34, 0x24]); // jz comes here
        self.step(guest, RESTORE_TWO, &[0x9d]);
    }

    /// POPF. An image with TF, IOPL, NT or AC is emulated; else NT becomes the inverse of its IF.
    fn pop_flags(&mut self, guest: usize, next: usize) {
        self.step(guest, CLEAN, &[0xf7, 0x04, 0x24, 0x00, 0x71, 0x04, 0x00]); // test dword [esp], TF | IOPL | NT | AC
        self.step(guest, CLEAN, &[0x74, 0x01]); // jz
        self.step(guest, CLEAN, &[0xcc]);
        self.step(guest, CLEAN, &[0x9c]);
        self.step(guest, DROP, &[0xf6, 0x44, 0x24, 0x02, 0x04]); // test byte [esp+2], AC
        self.step(guest, DROP, &[0x8d, 0x64, 0x24, 0x04]); // lea esp, [esp+4]
        self.step(guest, CLEAN, &[0x74, 0x01]); // jz
        self.step(guest, CLEAN, &[0xcc]);
        self.step(guest, CLEAN, &[0xf6, 0x44, 0x24, 0x01, 0x02]); // test byte [esp+1], IF
        self.step(guest, CLEAN, &[0x75, 0x0f]); // jnz
        self.step(guest, CLEAN, &[0xff, 0x34, 0x24]); // push dword [esp]
        self.step(guest, DROP, &[0x80, 0x4c, 0x24, 0x01, 0x40]); // or byte [esp+1], NT
        self.step(guest, DROP, &[0x9d]);
        self.whole(next, 1, &[0x8d, 0x64, 0x24, 0x04]); // lea esp, [esp+4]
        self.whole(next, 0, &[0xeb, 0x01]);
        self.step(guest, CLEAN, &[0x9d]); // jnz comes here
    }

    /// A near CALL: the return address is made from the patch's own, without a change of flags.
    fn call(&mut self, guest: usize, next: usize, target: u32) {
        self.step(guest, CLEAN, &[0x50]); // push eax
        self.step(guest, DROP, &[0xe8, 0, 0, 0, 0]); // call to the next instruction
        let here = self.bytes.len();
        self.step(guest, DROP_TWO, &[0x58]); // pop eax
        self.step(guest, RESTORE_EAX, &[0x8d, 0x80]); // lea eax, [eax + distance]
        self.distance(here, next as u32);
        self.step(guest, RESTORE_EAX, &[0x87, 0x04, 0x24]); // xchg [esp], eax
        // Done, but for EIP.
        self.whole(target as usize, 0, &[]);
        self.exit(&[JUMP_OPCODE], target);
    }

    /// A jump to guest code, with its opcode.
    fn exit(&mut self, opcode: &[u8], target: u32) {
        self.bytes.extend_from_slice(opcode);
        self.distance(self.bytes.len().saturating_add(4), target);
    }

    fn distance(&mut self, from: usize, to: u32) {
        self.exits.push(Distance { hole: self.bytes.len(), from, to });
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// Adds a guest instruction; says whether the patch may go on behind it. `None`: it cannot be in a patch.
    fn add(&mut self, insn: &Instruction, bytes: &[u8], offset: usize) -> Option<bool> {
        let next = offset.saturating_add(insn.len());
        self.ends_with_sti = false;
        let first = self.steps.len();
        match insn.mnemonic() {
            Mnemonic::Cli => self.clear_interrupts(offset),
            Mnemonic::Sti => {
                self.set_interrupts(offset);
                self.ends_with_sti = true;
            }
            Mnemonic::Pushfd => self.push_flags(offset, next),
            Mnemonic::Popfd => self.pop_flags(offset, next),
            _ if sensitive(insn).is_some() || changes_translation(insn) => return None,
            _ => return self.copy(insn, bytes, offset),
        }
        // A prefix would be lost.
        (bytes.len() == 1 && first < self.steps.len()).then_some(true)
    }

    fn copy(&mut self, insn: &Instruction, bytes: &[u8], offset: usize) -> Option<bool> {
        let target = insn.near_branch_target() as u32;
        match insn.flow_control() {
            FlowControl::Next if insn.mnemonic() == Mnemonic::Nop => self.whole(offset, 0, &[0x90]),
            FlowControl::Next => self.whole(offset, 0, bytes),
            // SYSEXIT faults there, and is emulated.
            FlowControl::Return if matches!(insn.code(), Code::Retnd | Code::Retnd_imm16 | Code::Sysexitd) => {
                self.whole(offset, 0, bytes);
                return Some(false);
            }
            FlowControl::Call if insn.code() == Code::Call_rel32_32 && bytes.len() == JUMP => {
                self.call(offset, offset.saturating_add(insn.len()), target);
                return Some(false);
            }
            FlowControl::ConditionalBranch if insn.is_jcc_short_or_near() => {
                self.whole(offset, 0, &[]);
                self.exit(&[0x0f, 0x80 | condition(bytes)?], target);
            }
            FlowControl::UnconditionalBranch if insn.is_jmp_short_or_near() => {
                self.whole(offset, 0, &[]);
                self.exit(&[JUMP_OPCODE], target);
                return Some(false);
            }
            _ => return None,
        }
        Some(true)
    }
}

/// The condition of a Jcc, from its bytes.
fn condition(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [opcode @ 0x70..=0x7f, _] | [0x0f, opcode @ 0x80..=0x8f, _, _, _, _] => Some(opcode & 15),
        _ => None,
    }
}

/// What runs behind it may be other code, or the stack another one: the way back into the patch would not be sure.
fn changes_translation(insn: &Instruction) -> bool {
    let register = insn.op0_register();
    register.is_cr()
        || register.is_segment_register()
        || matches!(insn.mnemonic(), Mnemonic::Lss | Mnemonic::Lmsw | Mnemonic::Invlpg)
}

/// What is known of a byte of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// An instruction begins there that may be part of a patch.
    Usable,
    /// Nothing was discovered there.
    Nothing,
    /// Anything else.
    Other,
}

/// Makes the patch for the instruction at `start` and as many behind it as it takes to have room for the jump. `page` holds the guest's
/// bytes. Where control never comes to the next instruction, bytes that nobody has reached are room too.
pub(super) fn build(page: &[u8; PAGE], start: usize, known: impl Fn(usize) -> Known) -> Option<Body> {
    let mut body = Body::default();
    let mut decoder = Decoder::with_ip(32, page, 0, DecoderOptions::NONE);
    let mut offset = start;
    let mut goes_on = true;
    for _ in 0..MOST {
        if !goes_on || offset.saturating_sub(start) >= JUMP {
            break;
        }
        if known(offset) != Known::Usable || decoder.set_position(offset).is_err() {
            return None;
        }
        decoder.set_ip(offset as u64);
        let insn = decoder.decode();
        let next = offset.saturating_add(insn.len());
        let inner = offset.saturating_add(1)..next;
        if insn.is_invalid() || !inner.clone().all(|at| known(at) == Known::Nothing) {
            return None;
        }
        let after_sti = body.ends_with_sti;
        let first = body.steps.len();
        goes_on = body.add(&insn, page.get(offset..next)?, offset)?;
        for step in body.steps.iter_mut().skip(first).filter(|step| step.guest == offset) {
            step.after_sti = after_sti;
        }
        if let Some(step) = body.steps.get_mut(first) {
            step.begins = true;
        }
        offset = next;
    }
    let end = start.saturating_add(JUMP);
    if !goes_on && (offset..end).all(|at| known(at) == Known::Nothing) {
        offset = offset.max(end);
    }
    if offset < end || offset >= PAGE {
        return None;
    }
    if goes_on {
        let after_sti = body.ends_with_sti;
        body.whole(offset, 0, &[]);
        if let (true, Some(step)) = (after_sti, body.steps.last_mut()) {
            step.after_sti = true;
        }
        body.exit(&[JUMP_OPCODE], offset as u32);
    }
    body.span = Some(Span::new(start, offset));
    Some(body)
}
