//! The sensitive instructions that ring 1 would execute without a trap, and what is done about each (Popek and Goldberg 1974; Robin
//! and Irvine 2000). This is the one list; `docs/architecture.md` shows it as a table.
//!
//! Everything else either works in ring 1 as in ring 0, or faults there and is emulated from the fault: CLI, STI, HLT, IN, OUT, moves of
//! control and debug registers, LGDT and so on raise #GP; SYSENTER and SYSCALL have no target (#GP, #UD); RDPMC and, under CR4.TSD, RDTSC
//! raise #GP; loads of SS with RPL 0 raise #GP.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::trap::vector;

/// Why an instruction must not run unseen, and so what is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sensitive {
    /// PUSHF shows IF and IOPL, POPF changes them: virtual ones.
    Flags,
    /// IRET: IF, IOPL, NT and the privilege level in its frame are virtual ones. RETF: it would reach user code unseen.
    Return,
    /// SGDT, SIDT, SLDT, STR, SMSW show the guest's registers. (UMIP would trap them too, where there is one.)
    Tables,
    /// LAR, LSL, VERR, VERW look into the guest's own descriptor tables. ARPL does not, but shares what it is for.
    Descriptors,
    /// MOV from CS and SS, PUSH CS and PUSH SS show the privilege level.
    Selector,
    /// CPUID shows the virtual CPU.
    Cpuid,
    /// A far CALL pushes CS.
    FarCall,
    /// A read through CS would read shadow code.
    CodeRead,
    /// INT3, INT 3 and INT 4: breakpoints look like undiscovered code, and the two gates are open in the host's IDT.
    Gate,
}

/// Whether, and why, an instruction of the guest kernel is sensitive.
pub(crate) fn sensitive(insn: &Instruction) -> Option<Sensitive> {
    Some(match insn.mnemonic() {
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Popf | Mnemonic::Popfd => Sensitive::Flags,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Retf => Sensitive::Return,
        Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Sldt | Mnemonic::Str | Mnemonic::Smsw => Sensitive::Tables,
        Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw | Mnemonic::Arpl => Sensitive::Descriptors,
        Mnemonic::Mov if is_code_or_stack(insn, 1) => Sensitive::Selector,
        Mnemonic::Push if is_code_or_stack(insn, 0) => Sensitive::Selector,
        Mnemonic::Cpuid => Sensitive::Cpuid,
        Mnemonic::Call if !is_near_call(insn) => Sensitive::FarCall,
        Mnemonic::Int3 => Sensitive::Gate,
        Mnemonic::Int if matches!(insn.immediate8(), vector::BP | vector::OF) => Sensitive::Gate,
        mnemonic if insn.segment_prefix() == Register::CS && reads_code(insn, mnemonic) => Sensitive::CodeRead,
        _ => return None,
    })
}

fn is_code_or_stack(insn: &Instruction, operand: u32) -> bool {
    insn.op_kind(operand) == OpKind::Register && matches!(insn.op_register(operand), Register::CS | Register::SS)
}

fn is_near_call(insn: &Instruction) -> bool {
    use iced_x86::Code;
    !insn.is_call_far()
        && !insn.is_call_far_indirect()
        && !matches!(insn.code(), Code::Call_m1616 | Code::Call_m1632 | Code::Call_ptr1616 | Code::Call_ptr1632)
}

/// Does an instruction with a prefix for CS reach memory through it? A prefix on one that has no memory operand, or does not use it, means nothing.
fn reads_code(insn: &Instruction, mnemonic: Mnemonic) -> bool {
    let string =
        |kind| matches!(kind, OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegDI | OpKind::MemorySegEDI);
    let unused = matches!(mnemonic, Mnemonic::Lea | Mnemonic::Nop | Mnemonic::Prefetcht0 | Mnemonic::Prefetchnta)
        || matches!(mnemonic, Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2 | Mnemonic::Prefetch | Mnemonic::Prefetchw);
    let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory || string(insn.op_kind(n)));
    memory && !unused
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn judge(bytes: &[u8]) -> Option<Sensitive> {
        sensitive(&Decoder::new(32, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn every_sensitive_instruction_is_on_the_list() {
        let list: &[(&[u8], Sensitive)] = &[
            (&[0x9c], Sensitive::Flags),
            (&[0x66, 0x9c], Sensitive::Flags),
            (&[0x9d], Sensitive::Flags),
            (&[0x66, 0x9d], Sensitive::Flags),
            (&[0xcf], Sensitive::Return),
            (&[0x66, 0xcf], Sensitive::Return),
            (&[0x0f, 0x01, 0x00], Sensitive::Tables),
            (&[0x0f, 0x01, 0x08], Sensitive::Tables),
            (&[0x0f, 0x00, 0xc0], Sensitive::Tables),
            (&[0x0f, 0x00, 0xc8], Sensitive::Tables),
            (&[0x0f, 0x01, 0xe0], Sensitive::Tables),
            (&[0x0f, 0x02, 0xc1], Sensitive::Descriptors),
            (&[0x0f, 0x03, 0xc1], Sensitive::Descriptors),
            (&[0x0f, 0x00, 0xe0], Sensitive::Descriptors),
            (&[0x0f, 0x00, 0xe8], Sensitive::Descriptors),
            (&[0x63, 0xc8], Sensitive::Descriptors),
            (&[0x8c, 0xc8], Sensitive::Selector),
            (&[0x8c, 0xd0], Sensitive::Selector),
            (&[0x8c, 0x08], Sensitive::Selector),
            (&[0x0e], Sensitive::Selector),
            (&[0x16], Sensitive::Selector),
            (&[0x0f, 0xa2], Sensitive::Cpuid),
            (&[0x9a, 0, 0, 0, 0, 8, 0], Sensitive::FarCall),
            (&[0xff, 0x18], Sensitive::FarCall),
            (&[0x2e, 0x8b, 0x00], Sensitive::CodeRead),
            (&[0x2e, 0xa5], Sensitive::CodeRead),
            (&[0x2e, 0xff, 0x24, 0x85, 0, 0, 0, 0], Sensitive::CodeRead),
            (&[0xcc], Sensitive::Gate),
            (&[0xcd, 3], Sensitive::Gate),
            (&[0xcd, 4], Sensitive::Gate),
        ];
        for (bytes, why) in list {
            assert_eq!(judge(bytes), Some(*why), "{bytes:02x?}");
        }
    }

    #[test]
    fn the_others_are_not() {
        let list: &[&[u8]] = &[
            &[0x90],
            &[0x8c, 0xd8],                                  // mov eax, ds
            &[0x1e],                                        // push ds
            &[0xe8, 0, 0, 0, 0],                            // call
            &[0xff, 0xd0],                                  // call eax
            &[0x2e, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], // the long NOP of compilers
            &[0x2e, 0x8d, 0xb4, 0x26, 0, 0, 0, 0],          // the LEA of old ones
            &[0x2e, 0x74, 0],                               // a branch hint
            &[0xcd, 0x80],
            &[0xf4],
        ];
        for bytes in list {
            assert_eq!(judge(bytes), None, "{bytes:02x?}");
        }
    }
}
