use core::mem::offset_of;

/// The registers of a guest, as the entry code leaves and takes them: the CPU itself pushes `ss` to `rip` (and an error code)
/// here, because TSS.RSP0 is the end of this structure, and the exit stub pushes the rest.
///
/// ```text
///   0  gpr[16]   rax rcx rdx rbx (unused) rbp rsi rdi r8 .. r15: x86 numbering
/// 128  vector    and REFUSED
/// 136  error     0 where the vector has none
/// 144  rip  152 cs  160 rflags  168 rsp  176 ss
/// 184            end = TSS.RSP0, a multiple of 16
/// ```
/// `gpr[4]` is unused: the stack pointer is `rsp`. No code of a 32-bit guest can name R8 to R15, so a run neither loads nor stores
/// them; in the frame of a host exception they are there. DS, ES, FS and GS stay in the CPU, see [`World::segment`](crate::World::segment).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuestContext {
    /// General registers in x86 numbering; index 4 is unused. A 32-bit guest uses the lower halves.
    pub gpr: [u64; 16],
    /// What ended the last run: the exception or interrupt vector, or `REFUSED`, above them all, if there was no run.
    pub vector: u64,
    /// The CPU's error code for `vector`, 0 if it has none.
    pub error: u64,
    /// Instruction pointer. A run clears the upper half, as for every register of a 32-bit guest that could hold an address.
    pub rip: u64,
    /// Code segment selector.
    pub cs: u64,
    /// The real flags: a run forces IF=1, IOPL=0, NT=0, VM=0.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment selector.
    pub ss: u64,
}

/// IRETQ refused CS or SS: set in `vector`, above the vectors.
pub(crate) const REFUSED: u64 = 1 << 8;

/// Offsets of fields, for the assembly.
pub(crate) const VECTOR: usize = offset_of!(GuestContext, vector);
pub(crate) const GPR8: usize = offset_of!(GuestContext, gpr) + size_of::<[u64; 8]>();
pub(crate) const RIP: usize = offset_of!(GuestContext, rip);
pub(crate) const CS: usize = offset_of!(GuestContext, cs);
pub(crate) const RFLAGS: usize = offset_of!(GuestContext, rflags);

/// Flag bits a guest's real RFLAGS may carry: arithmetic, TF, DF, NT, RF, AC, ID.
const GUEST_FLAGS: u64 = 0x25_4dd5;
/// Bit 1 is always set; IF is on, so that the host's interrupts end the run.
const FORCED_FLAGS: u64 = 0x202;
/// Flags of arithmetic results.
const STATUS_FLAGS: u64 = 0x8d5;
/// Flag bits that read 0 on any CPU (SDM 1, 3.4.3), and VM.
const NO_FLAGS: u64 = !0x3d_7fd7;

impl GuestContext {
    /// Whether a run has ended in virtual-8086 mode. Repairs flags that QEMU's translator has spoilt, given those of the entry.
    ///
    /// Before QEMU 8.0 CMPXCHG8B takes an operand of an earlier instruction for the flags, if that one began the block that is entered.
    /// All its bits are then read as set flags: a pointer of Linux' allocator as TF and DF, among others that no CPU has, or as VM. The
    /// bits of results are gone, but ZF is right, and no code looks at the others after CMPXCHG8B.
    #[inline]
    pub(crate) fn was_in_v86(&mut self, entered: u64) -> bool {
        self.rflags & NO_FLAGS != 0 && !self.repair_spoilt(entered)
    }

    #[cold]
    #[inline(never)]
    fn repair_spoilt(&mut self, entered: u64) -> bool {
        // VM alone is what a guest can reach by IRET under TCG.
        let spoilt = self.rflags & NO_FLAGS != 1 << 17;
        if spoilt {
            self.rflags = self.rflags & STATUS_FLAGS | entered & !STATUS_FLAGS;
        }
        spoilt
    }

    /// What the real flags are for the flags in the context.
    #[inline]
    pub(crate) const fn real_flags(rflags: u64) -> u64 {
        rflags & GUEST_FLAGS | FORCED_FLAGS
    }
}

const _: () = assert!(size_of::<GuestContext>() == 184);
const _: () = assert!(offset_of!(GuestContext, vector) == 128 && offset_of!(GuestContext, error) == 136);
const _: () = assert!(RIP == 144 && CS == 152 && RFLAGS == 160);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_choose_privileged_flags() {
        let real = GuestContext::real_flags(u64::MAX);
        assert_eq!(real & (3 << 12), 0, "IOPL");
        assert_eq!(real & (1 << 17 | 1 << 19 | 1 << 20), 0, "VM VIF VIP");
        assert_eq!(GuestContext::real_flags(0), 0x202);
        assert_eq!(real & 0x8d5, 0x8d5, "CF PF AF ZF SF OF");
        assert_eq!(
            real & (1 << 8 | 1 << 10 | 1 << 16 | 1 << 18 | 1 << 21),
            1 << 8 | 1 << 10 | 1 << 16 | 1 << 18 | 1 << 21
        );
    }
    #[test]
    fn flags_that_no_cpu_has_come_from_the_translator() {
        let repaired = |entered, rflags| {
            let mut context = GuestContext { rflags, ..GuestContext::default() };
            (context.was_in_v86(entered), context.rflags)
        };
        assert_eq!(repaired(0x202, 0x246), (false, 0x246));
        assert_eq!(repaired(0x202, 0x3d_7fd7), (false, 0x3d_7fd7), "all flags that there are");
        assert_eq!(repaired(0x202, 0x2_0202), (true, 0x2_0202), "virtual-8086 mode");
        assert_eq!(repaired(0x202, 0xc100_07e0 | 0x242), (false, 0x2c2), "TF and DF are not the guest's");
        assert_eq!(repaired(0x4_0302, 0xc106_0242), (false, 0x4_0342), "what was set stays");
    }
}
