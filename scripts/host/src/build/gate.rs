//! Disassembles the kernel and finds what must not be there.
//!
//! Guest FPU state stays live in the registers while the kernel runs, so no instruction of the kernel may touch it, save for
//! the few that switch it, in `gnomon-hw`. And an access below RSP (a "red zone") would be overwritten by an interrupt
//! frame. Compiler flags are meant to guarantee both; this check is the proof for the file that is booted.

use std::fmt;

use anyhow::Context as _;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter, Mnemonic, OpKind,
    Register,
};
use object::{Object as _, ObjectSection as _, SectionFlags};

use crate::symbols::Symbols;

/// This file's text: a changed rule makes old verdicts void.
pub(super) const SOURCE: &str = include_str!("gate.rs");

/// What the functions of `gnomon-hw` may use, to initialise and switch the FPU.
const ALLOWED: [Mnemonic; 6] =
    [Mnemonic::Fxsave, Mnemonic::Fxsave64, Mnemonic::Fxrstor, Mnemonic::Fxrstor64, Mnemonic::Fninit, Mnemonic::Ldmxcsr];
/// The section of code that runs before long mode; it is 32-bit and has no compiled code in it.
const BOOT_SECTION: &str = ".boot";

/// A place that breaks a rule.
#[derive(Debug)]
pub struct Finding {
    /// Address of the instruction.
    pub address: u64,
    /// Where that is.
    pub symbol: String,
    /// The instruction.
    pub text: String,
    /// The rule.
    pub rule: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {}: {}: {}", self.address, self.symbol, self.rule, self.text)
    }
}

/// Every place in the executable sections of an ELF file that breaks a rule.
///
/// # Errors
/// If it is no ELF file.
pub fn check(elf: &[u8]) -> anyhow::Result<Vec<Finding>> {
    let file = object::File::parse(elf).context("the kernel is no ELF file")?;
    let symbols = Symbols::from_elf(elf)?;
    let mut findings = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        if sh_flags.0 & object::elf::SHF_EXECINSTR.0 == 0 || section.name() == Ok(BOOT_SECTION) {
            continue;
        }
        let bytes = section.data().context("cannot read a section of the kernel")?;
        check_code(bytes, section.address(), &symbols, &mut findings);
    }
    Ok(findings)
}

fn check_code(bytes: &[u8], start: u64, symbols: &Symbols, findings: &mut Vec<Finding>) {
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut frame = Frame::default();
    let mut function = None;
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let symbol = symbols.find(instruction.ip());
        if symbol.map(|symbol| symbol.start) != function {
            function = symbol.map(|symbol| symbol.start);
            frame.check(symbols, findings);
            frame = Frame::default();
        }
        let name = symbol.map_or("", |symbol| symbol.name.as_str());
        if touches_fpu(&instruction) && !(ALLOWED.contains(&instruction.mnemonic()) && name.contains("gnomon_hw")) {
            findings.push(Finding::new(&instruction, symbols, "touches FPU or vector state"));
        }
        if accesses(&instruction, Register::RSP).is_some_and(|displacement| displacement < 0) {
            findings.push(Finding::new(&instruction, symbols, BELOW_RSP));
        }
        frame.step(&instruction);
    }
    frame.check(symbols, findings);
}

const BELOW_RSP: &str = "accesses memory below RSP";

impl Finding {
    fn new(instruction: &Instruction, symbols: &Symbols, rule: &'static str) -> Self {
        let mut text = String::new();
        IntelFormatter::new().format(instruction, &mut text);
        let address = instruction.ip();
        Self { address, symbol: symbols.describe(address).unwrap_or_else(|| "?".into()), text, rule }
    }
}

/// The displacement of a memory operand `[base + displacement]` that is really accessed.
fn accesses(instruction: &Instruction, base: Register) -> Option<i64> {
    let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    let plain = memory && instruction.memory_base() == base && instruction.memory_index() == Register::None;
    let harmless = matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
    (plain && !harmless).then(|| instruction.memory_displacement64().cast_signed())
}

fn touches_fpu(instruction: &Instruction) -> bool {
    let vector = |register: Register| {
        register.is_vector_register() || register.is_st() || register.is_mm() || register.is_k() || register.is_tmm()
    };
    let state = |feature: &CpuidFeature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::FPU | F::FPU287 | F::FPU387 | F::MMX | F::FXSR | F::XSAVE | F::XSAVEC | F::XSAVEOPT | F::XSAVES
        )
    };
    let switches_state = |mnemonic| !matches!(mnemonic, Mnemonic::Xgetbv | Mnemonic::Xsetbv);
    (0..instruction.op_count()).any(|i| vector(instruction.op_register(i)))
        || matches!(
            instruction.mnemonic(),
            Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr | Mnemonic::Vldmxcsr | Mnemonic::Vstmxcsr
        )
        || (instruction.cpuid_features().iter().any(state) && switches_state(instruction.mnemonic()))
}

/// What is known of one function's stack frame: with a frame pointer, a red zone is used through RBP.
#[derive(Default)]
struct Frame {
    /// RBP was set to RSP.
    framed: bool,
    /// Bytes below RBP that pushes and subtractions have reserved at most.
    reserved: i64,
    /// RSP moved by an amount that is not a constant.
    unknown: bool,
    /// The deepest access below RBP.
    deepest: Option<(i64, Instruction)>,
}

impl Frame {
    fn step(&mut self, instruction: &Instruction) {
        if instruction.code() == Code::Mov_r64_rm64 || instruction.code() == Code::Mov_rm64_r64 {
            let (to, from) = (instruction.op0_register(), instruction.op1_register());
            if (to, from) == (Register::RBP, Register::RSP) {
                *self = Self { framed: true, unknown: self.framed, ..Self::default() };
            }
        }
        if !self.framed {
            return;
        }
        self.reserve(instruction);
        let below = accesses(instruction, Register::RBP).filter(|&displacement| displacement < 0);
        if let Some(displacement) = below.filter(|&d| self.deepest.as_ref().is_none_or(|(deepest, _)| d < *deepest)) {
            self.deepest = Some((displacement, *instruction));
        }
    }

    /// Calls push an address too, but the callee pops it: only what stays reserved counts, as a sum over the function.
    fn reserve(&mut self, instruction: &Instruction) {
        let writes_rsp = instruction.op0_register() == Register::RSP;
        match instruction.mnemonic() {
            Mnemonic::Push => self.reserved += i64::from(-instruction.stack_pointer_increment()),
            Mnemonic::Sub if writes_rsp && instruction.op1_kind() != OpKind::Register => {
                self.reserved += instruction.immediate(1).cast_signed();
            }
            Mnemonic::Add if writes_rsp && instruction.op1_kind() != OpKind::Register => {
                self.reserved += (-instruction.immediate(1).cast_signed()).max(0);
            }
            Mnemonic::Sub | Mnemonic::Add | Mnemonic::And | Mnemonic::Lea | Mnemonic::Mov if writes_rsp => {
                self.unknown = true
            }
            _ => {}
        }
    }

    fn check(&self, symbols: &Symbols, findings: &mut Vec<Finding>) {
        if let Some((displacement, instruction)) = self.deepest.as_ref().filter(|_| !self.unknown)
            && -displacement > self.reserved
        {
            findings.push(Finding::new(instruction, symbols, BELOW_RSP));
        }
    }
}

#[cfg(test)]
mod tests;
